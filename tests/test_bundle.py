"""A bundle: torch and ONNX agree, what was altered is refused by name, and nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from clips import talking_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import (  # noqa: F401  # some are fixtures
    CALIBRATION,
    CONFIG,
    TABLE,
    Edit,
    build_model,
    copy,
    edit,
    export,
    exported,
    model,
    networks,
    random_input,
)

import avdetect
from avdetect.bundle import (
    DEFAULT_BUNDLE,
    FORMAT,
    GRAPHS,
    OUT_OF_FOLD,
    Bundle,
    Calibration,
    OnnxNetworks,
    execution_providers,
)
from avdetect.config import PreprocessConfig, TrainConfig, VisualConfig, load_yaml
from avdetect.errors import ConfigError, ModelError
from avdetect.export import PARITY_TOLERANCE, _to_onnx, check_parity, golden_inputs
from avdetect.model import Model
from avdetect.streams.visual import VisualStream
from avdetect.training.streams import TorchNetworks
from avdetect.types import Rate

torch.set_num_threads(1)  # networks this small only wait for a second thread


# -- export and parity


@pytest.mark.parametrize(("rows", "time"), [(1, 200), (7, 151), (65, 200)])
@pytest.mark.parametrize("graph", GRAPHS)
def test_onnx_equals_torch(model: Model, networks: OnnxNetworks, graph: str, rows: int, time: int) -> None:
    x = random_input(graph, rows, np.random.default_rng(rows), time)
    with torch.inference_mode():
        fused = model.fusion(torch.from_numpy(x)).numpy() if graph == "fusion" else None
    expected = getattr(TorchNetworks(model), graph)(x) if fused is None else fused
    found = getattr(networks, graph)(x)
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(found, expected, atol=PARITY_TOLERANCE, rtol=0)
    if rows == 7:
        assert expected.std(0).max() > 5 * PARITY_TOLERANCE, "constant outputs would agree too"


@pytest.mark.parametrize(("encoder", "kwargs"), [("test_vit", {"img_size": 64}), ("test_resnet", {})])
def test_other_encoders_export(encoder: str, kwargs: dict[str, int]) -> None:
    torch.manual_seed(0)
    stream = VisualStream(VisualConfig(encoder=encoder, encoder_kwargs=kwargs)).eval()
    x = random_input("visual", 4, np.random.default_rng(0))
    session = onnxruntime.InferenceSession(_to_onnx(stream, x[:2], False), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = stream(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, atol=PARITY_TOLERANCE, rtol=0)


def test_what_differs_from_torch_or_has_diverged_is_not_shipped(
    model: Model, networks: OnnxNetworks, tmp_path: Path
) -> None:
    other, inputs = build_model(), golden_inputs(model, [talking_clip(80)])
    with torch.no_grad():
        other.fusion.head.bias.add_(0.01)
        other.audio.head.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"fusion\.onnx differs"):
        check_parity({"fusion": other.fusion}, networks, inputs)
    assert check_parity({"fusion": model.fusion}, networks, inputs)["fusion"] <= PARITY_TOLERANCE
    with pytest.raises(ModelError, match=r"audio\.onnx"):
        export(other, tmp_path / "nan")


def test_a_sample_without_face_or_voice_is_refused(model: Model) -> None:
    clip = talking_clip(80)
    assert clip.waveform is not None
    silent = dataclasses.replace(clip.waveform, samples=np.zeros_like(clip.waveform.samples))
    for change in ({"tracks": ()}, {"waveform": None}, {"waveform": silent}):
        with pytest.raises(ModelError, match="sample"):
            golden_inputs(model, [dataclasses.replace(clip, **change)])
    with pytest.raises(ModelError, match="sample"):
        golden_inputs(model, [])


def test_a_bundle_states_where_it_comes_from_and_no_path_of_there(exported: Bundle) -> None:
    info = exported.info
    assert (info.format, info.name, info.licence, info.calibration) == (FORMAT, "tiny", "MIT", CALIBRATION)
    assert (info.preprocess, info.preprocess_digest) == (PreprocessConfig(), PreprocessConfig().digest())
    assert info.training["manifest_digest"] == "0" * 16
    assert {"torch", "onnxruntime", "timm"} <= set(info.versions)
    assert info.model == dataclasses.replace(CONFIG, visual=dataclasses.replace(CONFIG.visual, pretrained=False))
    listed = {"golden.npz", OUT_OF_FOLD, *(f"{g}.onnx" for g in GRAPHS)}
    assert {p.name for p in exported.folder.iterdir()} == {"bundle.json", *listed}
    assert exported.files == Bundle.load(exported.folder).files
    assert (set(exported.files), exported.files[OUT_OF_FOLD]) == (listed, TABLE)
    for path in exported.folder.iterdir():
        for place in ("/home/someone", str(Path(__file__).parents[1])):
            assert place.encode() not in path.read_bytes(), f"{path.name} holds this machine's paths"


# -- what is refused


@pytest.mark.parametrize("name", ["golden.npz", "voice.onnx", OUT_OF_FOLD])
def test_an_altered_or_missing_file_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} differs from its hash"):
        Bundle.load(copy)
    (copy / name).unlink()
    with pytest.raises(ModelError, match=f"lacks {name}"):
        Bundle.load(copy)
    for folder in (copy / "nowhere", copy.parent):
        with pytest.raises(ModelError, match=rf"cannot read {folder}/bundle\.json"):
            Bundle.load(folder)


@pytest.mark.parametrize("left", [False, True])
def test_a_bundle_without_an_out_of_fold_table_loads(copy: Path, left: bool) -> None:
    """One that lies in the folder unlisted is not verified, so it is not read either."""
    edit(copy, within("files", **{OUT_OF_FOLD: ...}))
    if not left:
        (copy / OUT_OF_FOLD).unlink()
    assert OUT_OF_FOLD not in Bundle.load(copy).files


@pytest.mark.parametrize("beside", [True, False])
def test_any_other_file_is_refused(copy: Path, beside: bool) -> None:
    digest = Bundle.load(copy).info.files[OUT_OF_FOLD]
    for name in ("OUT_OF_FOLD.CSV.GZ", f"../{OUT_OF_FOLD}", "sixth.onnx", "bundle.json", ""):
        edit(copy, within("files", **{name: digest, OUT_OF_FOLD: digest if beside else ...}))
        with pytest.raises(ModelError, match="lists the files"):
            Bundle.load(copy)
        edit(copy, within("files", **{name: ..., OUT_OF_FOLD: digest}))


def test_another_major_format_is_refused_and_another_minor_one_read(copy: Path) -> None:
    for format in ([FORMAT[0] + 1, 0], [1, 3]):
        edit(copy, lambda v: v.update(format=format, avdetect_version="9.9.9"))  # noqa: B023  # called at once
        with pytest.raises(ModelError, match=rf"format {format[0]}.*reads format {FORMAT[0]}.*avdetect 9\.9\.9"):
            Bundle.load(copy)
    edit(copy, lambda v: v.update(format=[FORMAT[0], FORMAT[1] + 1]))
    assert Bundle.load(copy).info.format == (FORMAT[0], FORMAT[1] + 1)


def test_what_ships_states_the_limits_of_its_recipe() -> None:
    limits = load_yaml(TrainConfig, Path(__file__).parents[1] / "configs" / "release.yaml").limits
    assert Bundle.load().info.limits == limits
    assert 4 <= len(limits) <= 8


OFTEN, RARE = {"probability": 0.3, "reals": 0.5, "fakes": 0.9}, {"probability": 0.8, "reals": 0.05, "fakes": 0.4}


def test_a_probability_has_the_rarest_rate_that_it_reaches() -> None:
    rates = (Rate(**OFTEN), Rate(**RARE))
    calibration = dataclasses.replace(CALIBRATION, rates={"audio_fake": rates})
    assert [calibration.rate("audio_fake", p) for p in (0.3, 0.79, 0.8, 0.99)] == [*rates[:1] * 2, *rates[1:] * 2]
    assert calibration.rate("audio_fake", 0.29) == Rate(0.0, 1.0, 1.0), "all do"
    assert calibration.rate("fake", 0.9) is None, "not measured"


def within(*keys: str, **values: Any) -> Edit:
    """Change that part of the description; a value of `...` is taken away."""

    def change(description: dict[str, Any]) -> None:
        for key in keys:
            description = description[key]
        for key, value in values.items():
            description.pop(key) if value is ... else description.update({key: value})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (within("model", "audio", kernel=3), r"bundle\.json\.model\.audio: unknown key 'kernel'; known keys: "),
        (within(calibration=...), "calibration"),
        (within("calibration", bias=...), "bias"),
        (within("calibration", scale=[1.0, 1.0]), "four"),
        (within("calibration", scale=[1.0, 1.0, 1.0, float("nan")]), "calibration"),
        (within("calibration", fake_threshold=float("inf")), "calibration"),
        (within("calibration", clip=0.5), "calibration"),
        (within("calibration", undecided_threshold=0.9), "above"),
        (within("calibration", rates={"fake": [RARE, OFTEN]}), "in order"),
        (within("calibration", rates={"fake": [OFTEN | {"fakes": float("nan")}]}), "shares"),
        (within("calibration", rates={"fake": [{"probability": 0.5}]}), "damaged"),
        (within(name=5), "bundle.json.name"),
        (within(format="1.0"), "states no format"),
        (within(format=[]), "states no format"),
        (within(format=...), "states no format"),
        (within("files", **{"voice.onnx": ...}), "voice.onnx"),
        (within("preprocess", clip_seconds=6.0), "prepares video differently"),
    ],
)
def test_a_changed_description_is_refused(copy: Path, change: Edit, message: str) -> None:
    edit(copy, change)
    with pytest.raises(ModelError, match=message):
        Bundle.load(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\udcff", "[" * 100_000])
def test_a_description_that_is_no_json_object_is_refused(copy: Path, text: str) -> None:
    (copy / "bundle.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=r"bundle\.json"):
        Bundle.load(copy)


CUDA = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="auto, cpu or cuda"):
        execution_providers("gpu")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: CUDA[1:])
    with pytest.raises(ModelError, match="onnxruntime-gpu"):
        execution_providers("cuda")
    assert execution_providers("auto") == CUDA[1:]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: CUDA)
    assert [execution_providers(device) for device in ("auto", "cuda", "cpu")] == [CUDA, CUDA, CUDA[1:]]


def test_falling_back_from_cuda_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose ONNX Runtime knows CUDA, but cannot start it: said with every result, refused where asked for."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX Runtime's own
        detector = avdetect.load_detector(device="auto")
        with pytest.raises(ModelError, match="could not be started"):
            avdetect.load_detector(device="cuda")
    detection = detector.score(DEFAULT_BUNDLE.parent / "sample" / "sample.mp4", duration_seconds=1)
    assert any("scored on the CPU" in warning for warning in detection.warnings)
    monkeypatch.undo()
    assert not avdetect.load_detector(device="auto").networks.fell_back


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=20), st.floats(0, 0.4), st.floats(0, 50), st.floats(-5, 5))
def test_probabilities_are_clipped_and_rise_with_the_logit(
    values: list[float], clip: float, scale: float, bias: float
) -> None:
    logits = np.repeat(np.sort(values)[:, None], 4, axis=1)
    with np.errstate(all="raise", under="ignore"):
        p = Calibration((scale,) * 4, (bias,) * 4, clip, 0.5, 0.5).probabilities(logits)
    assert p.dtype == np.float32
    assert p.shape == logits.shape
    assert (p >= np.float32(clip)).all()
    assert (p <= np.float32(1 - clip)).all()
    assert (np.diff(p, axis=0) >= 0).all()


def test_probabilities_of_known_logits() -> None:
    p = CALIBRATION.probabilities(np.array([0.0, 0.5, -0.6, -0.6], np.float32))
    np.testing.assert_allclose(p, 1 / (1 + np.exp([0.0, 0.0, 0.0, 0.0])), atol=1e-6)
    p = CALIBRATION.probabilities(np.array([[2.0, 0.0, 0.0, 0.0], [-99, 99, 0, 0]], np.float32))
    np.testing.assert_allclose(p[0], 1 / (1 + np.exp([-2.0, 1.0, -0.3, -0.9])), atol=1e-6)
    np.testing.assert_allclose(p[1, :2], [0.01, 0.99], atol=1e-6)
