"""A bundle: torch and ONNX agree, what was altered is refused by name or noticed, and nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from clips import talking_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

import avdetect
from avdetect.audio import N_MELS
from avdetect.bundle import (
    DEFAULT_BUNDLE,
    FORMAT,
    GOLDEN_TOLERANCE,
    GRAPHS,
    OUT_OF_FOLD,
    Bundle,
    Calibration,
    OnnxNetworks,
    execution_providers,
    replay_golden,
)
from avdetect.config import (
    AudioConfig,
    FusionConfig,
    ModelConfig,
    PreprocessConfig,
    SyncConfig,
    TrainConfig,
    VisualConfig,
    load_yaml,
)
from avdetect.errors import ConfigError, ModelError
from avdetect.export import PARITY_TOLERANCE, _to_onnx, check_parity, export_bundle, golden_inputs
from avdetect.model import Model
from avdetect.pooling import FEATURES
from avdetect.streams.sync import SyncStream
from avdetect.training.streams import TorchNetworks
from avdetect.types import Clip, Rate

torch.set_num_threads(1)  # networks this small only wait for a second thread
CONFIG = ModelConfig(
    visual=VisualConfig(encoder="test_efficientnet", pretrained="/home/someone/encoder.safetensors"),
    audio=AudioConfig(channels=(4, 8, 8), embedding=8),
    sync=SyncConfig(embedding=8, channels=(4, 4, 8, 8)),
    fusion=FusionConfig(parts=False),
)
TABLE = gzip.compress(b"path,fake,p_fake,fold\na.mp4,1,0.93,0\nb.mp4,0,0.08,1\n", mtime=0)
CALIBRATION = Calibration((1.0, 2.0, 0.5, 1.5), (0.0, -1.0, 0.3, 0.9), 0.01, 0.6, 0.5)
Edit = Callable[[dict[str, Any]], None]


def build_model() -> Model:
    """With random batch statistics, as after training: the identity would hide a lost normalisation."""
    torch.manual_seed(0)
    model = Model(CONFIG, load_pretrained=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    model.fusion.fit_scale(torch.randn(20, len(FEATURES)).abs())
    return model.eval()


def export(model: Model, folder: Path, sample: Clip) -> Bundle:
    return export_bundle(
        model,
        folder,
        name="tiny",
        licence="MIT",
        preprocess=PreprocessConfig(),
        calibration=CALIBRATION,
        training={"manifest_digest": "0" * 16},
        sample=[sample],
        out_of_fold=TABLE,
    )


@pytest.fixture(scope="module")
def sample_clip() -> Clip:
    return talking_clip(80, mouth=PreprocessConfig().faces.mouth_size)


@pytest.fixture(scope="module")
def model() -> Model:
    return build_model()


@pytest.fixture(scope="module")
def exported(model: Model, sample_clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(model, tmp_path_factory.mktemp("bundle") / "tiny", sample_clip)


@pytest.fixture(scope="module")
def networks(exported: Bundle) -> OnnxNetworks:
    return OnnxNetworks(exported, "cpu", threads=1)


@pytest.fixture
def copy(exported: Bundle, tmp_path: Path) -> Path:
    return shutil.copytree(exported.folder, tmp_path / "copy")


def edit(folder: Path, change: Edit) -> None:
    path = folder / "bundle.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def put(folder: Path, name: str, content: bytes) -> Bundle:
    """Replace a file and its hash: what somebody who builds a malicious bundle would do."""
    (folder / name).write_bytes(content)
    edit(folder, within("files", **{name: hashlib.sha256(content).hexdigest()}))
    return Bundle.load(folder)


def within(*keys: str, **values: Any) -> Edit:
    """Change that part of the description; a value of `...` is taken away."""

    def change(description: dict[str, Any]) -> None:
        for key in keys:
            description = description[key]
        for key, value in values.items():
            description.pop(key) if value is ... else description.update({key: value})

    return change


def random_input(graph: str, rows: int, time: int = 200) -> np.ndarray:
    rng = np.random.default_rng(rows)
    if graph in ("visual", "mouth"):
        shape = (rows, 8, 8, 3) if graph == "visual" else (rows, time // 10, 8, 8)
        side = 1 if graph == "visual" else 2
        return rng.integers(0, 256, shape, dtype=np.uint8).repeat(8, side).repeat(8, side + 1)
    if graph == "fusion":
        return rng.normal(0, 2, (rows, len(FEATURES))).astype(np.float32)
    mels = (rng.normal(-5, 3, (rows, time, N_MELS)) * rng.uniform(0.2, 2, (rows, 1, 1))).astype(np.float32)
    return mels if graph == "speech" else mels[:, :, None]


@pytest.mark.parametrize("graph", GRAPHS)
def test_onnx_equals_torch(model: Model, networks: OnnxNetworks, graph: str) -> None:
    for rows, time in ((1, 200), (7, 151)):
        x = random_input(graph, rows, time)
        with torch.inference_mode():
            fused = model.fusion(torch.from_numpy(x)).numpy() if graph == "fusion" else None
        expected = getattr(TorchNetworks(model), graph)(x) if fused is None else fused
        found = getattr(networks, graph)(x)
        assert (found.shape, found.dtype) == (expected.shape, np.float32)
        np.testing.assert_allclose(found, expected, atol=PARITY_TOLERANCE, rtol=0)
    assert expected.std(0).max() > 5 * PARITY_TOLERANCE, "constant outputs would agree too"


class Failing:
    """ONNX Runtime's own session, but that its provider fails."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *_: Any) -> None:
        raise EPFail("no device")


def test_a_provider_that_fails_is_an_error_and_prints_nothing(networks: OnnxNetworks, monkeypatch, capsys) -> None:
    """ONNX Runtime would go on with another one, and say so on standard output, where JSON is."""
    session = networks._sessions["fusion"]
    monkeypatch.setattr(session, "_sess", Failing(session._sess))
    with pytest.raises(ModelError, match=r"fusion\.onnx .* cannot be run: no device"):
        networks.fusion(random_input("fusion", 1))
    assert capsys.readouterr() == ("", "")


def test_mouths_in_pieces_give_the_same_vectors(networks: OnnxNetworks, monkeypatch: pytest.MonkeyPatch) -> None:
    mouths = random_input("mouth", 2)  # 20 frames
    whole = networks.mouth(mouths)
    for steps in (1, 5, whole.shape[1]):
        monkeypatch.setattr("avdetect.bundle._MOUTH_STEPS", steps)
        np.testing.assert_allclose(networks.mouth(mouths), whole, atol=1e-6, rtol=0)


def test_what_differs_from_torch_or_has_diverged_is_not_shipped(
    model: Model, exported: Bundle, networks: OnnxNetworks, sample_clip: Clip, tmp_path: Path, monkeypatch
) -> None:
    inputs = golden_inputs(model, [sample_clip])
    assert check_parity({"fusion": model.fusion}, networks, inputs)["fusion"] <= PARITY_TOLERANCE
    other = build_model()
    with torch.no_grad():
        other.fusion.head.bias.add_(0.01)
    graphs = iter(GRAPHS)
    monkeypatch.setattr("avdetect.export._to_onnx", lambda *_: exported.files[f"{next(graphs)}.onnx"])
    with pytest.raises(ModelError, match=r"fusion\.onnx differs"):
        export(other, tmp_path / "other", sample_clip)
    with torch.no_grad():
        other.audio.head.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"audio\.onnx"):
        check_parity({"audio": other.audio}, networks, inputs)


def test_weights_ship_in_half_precision_where_that_is_harmless(
    model: Model, exported: Bundle, sample_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avdetect.export.MIN_HALVED", 100)
    sizes = {}
    for tolerance in (0.0, 1e-2):
        monkeypatch.setattr("avdetect.export.HALVES_TOLERANCE", tolerance)
        bundle = export(model, tmp_path / str(tolerance), sample_clip)
        sizes[tolerance] = len(bundle.files["visual.onnx"])
        assert max(replay_golden(bundle, OnnxNetworks(bundle, "cpu", threads=1)).values()) <= PARITY_TOLERANCE
        moved = np.abs(bundle.golden()["visual.output"] - exported.golden()["visual.output"]).max()
        assert moved <= tolerance + PARITY_TOLERANCE
    assert sizes[1e-2] < 0.7 * sizes[0.0]


def test_a_sample_without_face_or_voice_is_refused(model: Model, sample_clip: Clip) -> None:
    silent = dataclasses.replace(sample_clip.waveform, samples=np.zeros_like(sample_clip.waveform.samples))
    for change in ({"tracks": ()}, {"waveform": None}, {"waveform": silent}):
        with pytest.raises(ModelError, match="sample"):
            golden_inputs(model, [dataclasses.replace(sample_clip, **change)])
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


def test_an_altered_or_missing_file_is_named(copy: Path) -> None:
    for name in ("golden.npz", "voice.onnx", OUT_OF_FOLD):
        whole = (copy / name).read_bytes()
        content = bytearray(whole)
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{name} differs from its hash"):
            Bundle.load(copy)
        (copy / name).unlink()
        with pytest.raises(ModelError, match=f"lacks {name}"):
            Bundle.load(copy)
        (copy / name).write_bytes(whole)
    with pytest.raises(ModelError, match=rf"cannot read {copy.parent}/bundle\.json"):
        Bundle.load(copy.parent)


def test_the_out_of_fold_table_may_be_absent_and_no_other_file_present(exported: Bundle, copy: Path) -> None:
    digest = exported.info.files[OUT_OF_FOLD]
    for name in ("OUT_OF_FOLD.CSV.GZ", f"../{OUT_OF_FOLD}", "sixth.onnx", "bundle.json", ""):
        for beside in (digest, ...):
            edit(copy, within("files", **{name: digest, OUT_OF_FOLD: beside}))
            with pytest.raises(ModelError, match="lists the files"):
                Bundle.load(copy)
            edit(copy, within("files", **{name: ..., OUT_OF_FOLD: digest}))
    edit(copy, within("files", **{OUT_OF_FOLD: ...}))
    assert OUT_OF_FOLD not in Bundle.load(copy).files, "it lies there unlisted, so it is not verified and not read"
    (copy / OUT_OF_FOLD).unlink()
    Bundle.load(copy)


def test_another_major_format_is_refused_and_another_minor_one_read(copy: Path) -> None:
    for format in ([FORMAT[0] + 1, 0], [1, 3]):
        edit(copy, within(format=format, avdetect_version="9.9.9"))
        with pytest.raises(ModelError, match=rf"format {format[0]}.*reads format {FORMAT[0]}.*avdetect 9\.9\.9"):
            Bundle.load(copy)
    edit(copy, within(format=[FORMAT[0], FORMAT[1] + 1]))
    assert Bundle.load(copy).info.format == (FORMAT[0], FORMAT[1] + 1)


def test_what_ships_is_what_its_recipe_makes() -> None:
    """Its calibration is of these networks, pooled so; an encoder's start is no property of it."""
    info, recipe = Bundle.load().info, load_yaml(TrainConfig, Path(__file__).parents[1] / "configs" / "release.yaml")
    assert info.model == dataclasses.replace(
        recipe.model, visual=dataclasses.replace(recipe.model.visual, pretrained=False)
    )
    assert info.preprocess == recipe.preprocess
    assert info.limits == recipe.limits
    assert 4 <= len(info.limits) <= 8


OFTEN, RARE = {"probability": 0.3, "reals": 0.5, "fakes": 0.9}, {"probability": 0.8, "reals": 0.05, "fakes": 0.4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (within("model", "audio", kernel=3), r"bundle\.json\.model\.audio: unknown key 'kernel'; known keys: "),
        (within(calibration=...), "calibration"),
        (within("calibration", scale=[1.0, 1.0]), "four"),
        (within("calibration", scale=[1.0, 1.0, 1.0, float("nan")]), "calibration"),
        (within("calibration", fake_threshold=float("inf")), "calibration"),
        (within("calibration", clip=0.5), "calibration"),
        (within("calibration", undecided_threshold=0.9), "above"),
        (within("calibration", rates={"fake": [RARE, OFTEN]}), "in order"),
        (within("calibration", rates={"fake": [OFTEN | {"fakes": float("nan")}]}), "shares"),
        (within("calibration", rates={"fake": [{"probability": 0.5}]}), "damaged"),
        (within(format="1.0"), "states no format"),
        (within(format=[]), "states no format"),
        (within("files", **{"voice.onnx": ...}), "voice.onnx"),
        (within("preprocess", clip_seconds=6.0), "prepares video differently"),
    ],
)
def test_a_changed_description_is_refused(copy: Path, change: Edit, message: str) -> None:
    edit(copy, change)
    with pytest.raises(ModelError, match=message):
        Bundle.load(copy)


def test_a_description_that_is_no_json_object_is_refused(tmp_path: Path) -> None:
    for text in (b"", b"[]", b"null", b"\xff", b"[" * 100_000):
        (tmp_path / "bundle.json").write_bytes(text)
        with pytest.raises(ModelError, match=r"bundle\.json"):
            Bundle.load(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was executed",))


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_golden_scores_that_cannot_be_replayed_are_refused(
    exported: Bundle, copy: Path, networks: OnnxNetworks
) -> None:
    golden = exported.golden()
    for content, message in (
        (npz(**{"visual.input": np.array([Bomb()], dtype=object)}), r"golden\.npz"),
        (pickle.dumps(Bomb()), r"golden\.npz"),
        (npz(**{name: array for name, array in golden.items() if name != "mouth.output"}), "cannot be replayed"),
        (npz(**golden | {"mouth.input": np.zeros((1, 2), np.uint8)}), r"mouth\.onnx of .* cannot be run"),
    ):
        bundle = put(copy, "golden.npz", content)
        with pytest.raises(ModelError, match=message):
            replay_golden(bundle, networks)


def test_loading_and_scoring_never_unpickle(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(np.lib.format, "pickle", pickle, raising=False)
    with pytest.raises(AssertionError, match="unpickled"):
        np.load(io.BytesIO(npz(a=np.array([1, "b"], dtype=object))), allow_pickle=True)["a"]
    bundle = Bundle.load(exported.folder)
    differences = replay_golden(bundle, OnnxNetworks(bundle, "cpu", threads=1))
    assert max(differences.values()) <= PARITY_TOLERANCE


def noticed(differences: dict[str, float]) -> set[str]:
    assert set(differences) == set(GRAPHS)
    return {graph for graph, difference in differences.items() if not difference <= GOLDEN_TOLERANCE}


@pytest.mark.parametrize("graph", GRAPHS)
def test_an_altered_golden_score_is_noticed(exported: Bundle, networks: OnnxNetworks, graph: str) -> None:
    golden = exported.golden()
    output = golden[f"{graph}.output"]
    off = output.copy()
    off.flat[-1] += 0.01
    for wrong in (off, output * np.nan, output[:0]):
        files = exported.files | {"golden.npz": npz(**(golden | {f"{graph}.output": wrong}))}
        assert noticed(replay_golden(dataclasses.replace(exported, files=files), networks)) == {graph}


def test_other_weights_are_noticed(copy: Path) -> None:
    other = build_model()
    with torch.no_grad():
        other.audio.head.bias.add_(0.05)
    bundle = put(copy, "audio.onnx", _to_onnx(other.audio, random_input("audio", 2), True))
    assert noticed(replay_golden(bundle, OnnxNetworks(bundle, "cpu", threads=1))) == {"audio"}


@pytest.mark.parametrize("change", [{"mouth_frames": 9}, {"embedding": 6}])
def test_towers_of_another_shape_are_a_model_error(copy: Path, change: dict) -> None:
    """Else lip-sync would be read from vectors that belong to other frames, or that cannot be compared."""
    mouths = random_input("mouth", 1)
    tower = SyncStream(dataclasses.replace(CONFIG.sync, **change), CONFIG.audio).mouth.eval()
    altered = OnnxNetworks(put(copy, "mouth.onnx", _to_onnx(tower, mouths, True)), "cpu", threads=1)
    with pytest.raises(ModelError, match=r"mouth\.onnx of .* gives .*use another bundle"):
        altered.mouth(mouths)


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


def test_falling_back_from_cuda_is_announced(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose ONNX Runtime knows CUDA, but cannot start it: said with every result, refused where asked for."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX Runtime's own
        detector = avdetect.load_detector(device="auto")
        with pytest.raises(ModelError, match="could not be started"):
            OnnxNetworks(exported, device="cuda")
    detection = detector.score(DEFAULT_BUNDLE.parent / "sample" / "sample.mp4", duration_seconds=1)
    assert any("scored on the CPU" in warning for warning in detection.warnings)
    monkeypatch.undo()
    assert not OnnxNetworks(exported, device="auto").fell_back


def test_a_probability_has_the_rarest_rate_that_it_reaches() -> None:
    rates = (Rate(**OFTEN), Rate(**RARE))
    calibration = dataclasses.replace(CALIBRATION, rates={"audio_fake": rates})
    assert [calibration.rate("audio_fake", p) for p in (0.3, 0.79, 0.8, 0.99)] == [*rates[:1] * 2, *rates[1:] * 2]
    assert calibration.rate("audio_fake", 0.29) == Rate(0.0, 1.0, 1.0), "all do"
    assert calibration.rate("fake", 0.9) is None, "not measured"


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=20), st.floats(0, 0.4), st.floats(0, 50), st.floats(-5, 5))
def test_probabilities_are_clipped_and_rise_with_the_logit(
    values: list[float], clip: float, scale: float, bias: float
) -> None:
    logits = np.repeat(np.sort(values)[:, None], 4, axis=1)
    with np.errstate(all="raise", under="ignore"):
        p = Calibration((scale,) * 4, (bias,) * 4, clip, 0.5, 0.5).probabilities(logits)
    assert (p.dtype, p.shape) == (np.float32, logits.shape)
    assert np.float32(clip) <= p.min() <= p.max() <= np.float32(1 - clip)
    assert (np.diff(p, axis=0) >= 0).all()


def test_probabilities_of_known_logits() -> None:
    p = CALIBRATION.probabilities(np.array([[0.0, 0.5, -0.6, -0.6], [2.0, 0.0, 0.0, 0.0], [-99, 99, 0, 0]], np.float32))
    np.testing.assert_allclose(p[0], 0.5, atol=1e-6)
    np.testing.assert_allclose(p[1], 1 / (1 + np.exp([-2.0, 1.0, -0.3, -0.9])), atol=1e-6)
    np.testing.assert_allclose(p[2, :2], [0.01, 0.99], atol=1e-6)
