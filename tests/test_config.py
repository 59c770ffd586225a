"""Strict configuration: what is unknown or mistyped is refused by name, and every field counts in the digest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

import avdetect.config
from avdetect.config import (
    LARGEST_NUMBER,
    MediaLimits,
    ModelConfig,
    PreprocessConfig,
    TrainConfig,
    from_dict,
    load_yaml,
    to_dict,
)
from avdetect.errors import ConfigError
from avdetect.media import MediaReader

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0


@dataclass(frozen=True)
class Sample:
    count: int = 1
    flag: bool = False
    name: str = "a"
    either: bool | str = False
    maybe: float | None = None
    sizes: tuple[int, ...] = (1, 2)
    extra: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    scale: float | tuple[float, ...] = 1.0
    mode: Literal["fast", "slow"] = "fast"
    inner: Inner = field(default_factory=Inner)


def test_nothing_given_is_the_defaults() -> None:
    assert from_dict(Sample, None) == Sample()
    assert from_dict(Sample, {}) == Sample()
    assert from_dict(Sample, {"inner": None}) == Sample()


def test_differences_are_taken_over() -> None:
    values = {"count": 3, "maybe": 2, "either": "path", "sizes": [4, 5, 6], "mode": "slow", "inner": {"rate": 2}}
    config = from_dict(Sample, values)
    assert config == Sample(count=3, maybe=2.0, either="path", sizes=(4, 5, 6), mode="slow", inner=Inner(2.0))
    assert isinstance(config.maybe, float)
    assert isinstance(config.inner.rate, float), "the digest must not depend on 2 or 2.0"
    config = from_dict(Sample, {"weights": {"a": 2}, "extra": {"b": 2, "c": ["d"]}, "scale": [1, 2]})
    assert config == Sample(weights={"a": 2.0}, extra={"b": 2, "c": ["d"]}, scale=(1.0, 2.0))
    assert isinstance(config.weights["a"], float)
    assert isinstance(config.extra["b"], int), "what may be anything is left alone"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"cuont": 3}, "cuont"),
        ({"inner": {"speed": 1.0}}, "config.inner"),
        ({"count": "3"}, "config.count"),
        ({"count": 3.0}, "config.count"),
        ({"count": True}, "config.count"),
        ({"count": None}, "config.count"),
        ({"flag": 1}, "config.flag"),
        ({"flag": "yes"}, "config.flag"),
        ({"name": 5}, "config.name"),
        ({"either": 5}, "config.either"),
        ({"maybe": "0.5"}, "config.maybe"),
        ({"maybe": True}, "config.maybe"),
        ({"sizes": 4}, "config.sizes"),
        ({"sizes": "45"}, "config.sizes"),
        ({"sizes": [1, "2"]}, "config.sizes"),
        ({"extra": [1]}, "config.extra"),
        ({"extra": {1: 2}}, "config.extra: the key 1"),
        ({"weights": {"a": "lots"}}, "config.weights.a: expected float, got 'lots'"),
        ({"weights": {"a": 1.0, "b": True}}, "config.weights.b"),
        ({"weights": {"a": None}}, "config.weights.a"),
        ({"scale": [1, "x"]}, "config.scale"),
        ({"scale": "1"}, "config.scale"),
        ({"mode": "middling"}, "config.mode"),
        ({"inner": 1.0}, "config.inner"),
        ({"inner": {"rate": True}}, "config.inner.rate"),
        ({7: 1}, "7"),
        ([1], "expected a mapping"),
    ],
)
def test_what_is_wrong_is_named(values: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        from_dict(Sample, values)


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="max_pixels"):
        from_dict(MediaLimits, {"max_pixel": 5})


def test_a_dataclass_survives_the_way_to_json_and_back() -> None:
    for config in (Sample(sizes=(3,), maybe=0.1, extra={"a": [1]}), TrainConfig(seed=4), ModelConfig()):
        assert from_dict(type(config), to_dict(config)) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_config_is_read(path: Path) -> None:
    config = load_yaml(TrainConfig, path)
    assert config != TrainConfig(), "a file of differences without a difference"


def test_there_are_shipped_configs() -> None:
    assert {path.stem for path in CONFIGS} == {"smoke", "small", "release", "base", "baseline", "dfdc", "whisper"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: [", "not valid YAML"),
        ("- 1", "expected a mapping"),
        ("sead: 1", "sead"),
        ("seed: one", "train.yaml.seed"),
        ("audio: {lr: 1e-3}", r"audio\.lr.*write 1\.0e-03"),  # YAML 1.1 reads this as text
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("seed: 1\nseed: 2", "twice"),
        ("visual: {lr: 0.1}\nseed: 1\nvisual: {lr: 0.2}", "twice"),
        ("visual: &a {lr: 0.1}\naudio: *a", r"aliases .* are refused"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", r"aliases .* are refused"),
        ("visual: &a {lr: 0.1}\naudio: {<<: *a}", r"aliases .* are refused"),
        ("seed: &a [*a]", r"aliases .* are refused"),
        ("[" * 40_000, "nested more than"),
        ("a: {" * 10_000, "nested more than"),
        ("# " + "x" * 70_000, "larger than 64 KiB"),
        ("seed: 0x" + "f" * 5000, r"train\.yaml.*must be .*at most 1e\+15"),
        ("seed: -0x" + "f" * 5000, r"train\.yaml.*must be .*at most 1e\+15"),
        ("visual: {lr: 0x" + "f" * 5000 + "}", "the number is too large"),
        ("name: 0x" + "f" * 5000, "expected str, got a number that is too large"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("visual: {forgeries: {cut: 1.0e+300}}", "cut must be finite"),
        ("visual: {forgeries: {" + "x" * 999 + ": a}}", "expected float"),
        ("steps: !!int ''", "not valid YAML"),
        ("seed: !!map x", "not valid YAML"),
        ("model: {visual: {encoder_kwargs: {a: 2001-01-01}}}", r"encoder_kwargs\.a: expected text"),
        ("model: {visual: {encoder_kwargs: {1: 2}}}", "the key 1: expected str"),
        ("model: {visual: {encoder_kwargs: {a: {1: 2}}}}", "names as keys"),
        ("visual: {lr: -1.0}", r"train\.yaml\.visual: .*lr must be finite and above 0"),
        ("visual: {forged: 1.5}", r"train\.yaml\.visual: .*forged is a share"),
        ("visual: {batch_size: 32, reals_per_fake: 2}", "batch_size 32"),
        ("audio: {batch_size: 30, accumulate: 4}", "accumulate 4"),
        ("joint: {batch_size: 5}", "joint.batch_size"),
        ("joint: {accumulate: 2}", r"joint\.accumulate must be 1, got 2"),
        ("sync: {accumulate: 2}", r"sync\.accumulate must be 1, got 2"),
        ("visual: {forgeries: {self_blend: lots}}", r"visual\.forgeries\.self_blend: expected float"),
        ("visual: {forgeries: {self_blend: -1}}", r"forgeries\.self_blend must be finite and at least 0"),
        ("audio: {forgeries: {cut: .nan}}", r"audio: forgeries\.cut must be finite"),
        ("audio: {forgeries: {cut: .inf}}", r"audio: forgeries\.cut must be finite"),
        ("visual: {forgeries: {self_blend: 0, mouth_swap: 0}}", "every weight is 0"),
        ("visual: {label_smoothing: 1}", "label_smoothing is a share and must be below 1"),
        ("fusion: {label_smoothing: 1}", "label_smoothing is a share and must be below 1"),
        ("audio: {ema_decay: 1}", "ema_decay is a share and must be below 1"),
        ("sync: {codec: 1.5}", "codec is a share and must be at most 1"),
        ("model: {visual: {dropout: 1}}", "dropout is a share and must be below 1"),
        ("model: {audio: {dropout: 1.5}}", "dropout is a share and must be below 1"),
        ("model: {fusion: {dropout: 1}}", "dropout is a share and must be below 1"),
        ("model: {fusion: {stream_dropout: 2}}", "stream_dropout is a share and must be below 1"),
        ("preprocess: {faces: {min_iou: 7}}", "min_iou is a share"),
        ("preprocess: {faces: {shot_change: 1.1}}", "shot_change is a share"),
        ("preprocess: {faces: {min_confidence: 90}}", "min_confidence is a share"),
        ("preprocess: {faces: {min_face_side: 8}}", "min_face_side is a share"),
        ("preprocess: {detector: foo}", r"preprocess\.detector: must be one of mtcnn, scrfd"),
        ("model: {audio: {channels: []}}", r"AudioConfig\.channels must have at least one entry"),
        ("model: {sync: {channels: []}}", r"SyncConfig\.channels must have at least one entry"),
        ("model: {sync: {mouth_frames: 12}}", r"mouth_frames must be odd and at least 5, got 12"),
        ("model: {sync: {mouth_frames: 3}}", r"mouth_frames must be odd and at least 5, got 3"),
        ("model: {streams: []}", r"ModelConfig\.streams must have at least one entry"),
        ("model: {streams: [visual]}", "the streams with steps are visual, audio, sync"),
        ("model: {streams: [visual, audio]}\naudio: {steps: 0}", "the streams with steps are visual, sync"),
        ("model: {audio: {window_seconds: .001}}", r"window_seconds must be at least 0\.5"),
        (
            "model: {visual: {views: [{mean: [1, 2]}]}}",
            r"mean must be one number or three \(R, G, B\), got \[1\.0, 2\.0\]",
        ),
        ("model: {visual: {views: [{std: []}]}}", r"View\.std"),
        ("model: {visual: {views: [{std: [1, 0, 1]}]}}", "std must be finite and above 0"),
        ("model: {visual: {views: [{mean: grey}]}}", r"model\.visual\.views\.mean"),
        ("sync: {precision: fp8}", "bf16-mixed"),
        ("model: {streams: [visual, smell]}", "smell"),
        ("folds: 1", "at least 2"),
        ("fold_by: continent", "fold_by"),
        ("fusion: {kind: forest}", "fusion.kind"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_yaml(TrainConfig, path)


@pytest.mark.parametrize(
    "text",
    [
        "model: {fusion: {hidden: 0, dropout: 0, stream_dropout: 0}, visual: {views: [{mean: 0, std: [1, 2, 3]}]}}",
        "model: {audio: {window_seconds: 0.5}}\npreprocess: {detector: scrfd, faces: {min_iou: 1, shot_change: 1}}",
        "visual: {accumulate: 2, ema_decay: 0, label_smoothing: 0, forgeries: {self_blend: 3, mouth_swap: 0}}",
        "model: {streams: [sync, visual]}\naudio: {steps: 0}",
        "visual: {steps: 0}\naudio: {steps: 4}",
    ],
)
def test_the_ends_of_the_ranges_are_taken(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.yaml").write_text(text)
    config = load_yaml(TrainConfig, tmp_path / "train.yaml")
    assert from_dict(TrainConfig, to_dict(config)) == config


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_yaml(TrainConfig, tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        load_yaml(TrainConfig, tmp_path / "binary.yaml")


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_yaml(TrainConfig, tmp_path / "empty.yaml") == TrainConfig()


def changed(config: Any) -> list[Any]:
    """Copies of `config`, each with one field of it or of its parts changed."""
    copies = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            others = changed(value)
        elif isinstance(value, str):
            others = [value + "x"]
        else:
            others = [0.2 if value is None else value / 2 if isinstance(value, float) else value + 1]
        copies += [dataclasses.replace(config, **{item.name: other}) for other in others]
    return copies


def test_every_field_of_the_preprocessing_counts_in_its_digest() -> None:
    config = PreprocessConfig()
    digests = [copy.digest() for copy in changed(config)]
    assert len(digests) > 15
    assert len({config.digest(), *digests}) == len(digests) + 1
    assert PreprocessConfig().digest() == config.digest()
    assert len(config.digest()) == 16


def test_the_digest_of_the_defaults_is_the_one_that_caches_and_bundles_state() -> None:
    """Another digest refuses every cache and bundle there is: change it only with what comes out of preprocessing."""
    assert PreprocessConfig().digest() == "ab06158098952bc4"


def test_configs_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PreprocessConfig().detector = "scrfd"  # type: ignore[misc]


def test_limits_may_be_as_large_as_a_number_may_be() -> None:
    """Who wants no limit writes a large one; the kernel's calls take smaller numbers."""
    largest = {f.name: int(LARGEST_NUMBER) for f in dataclasses.fields(MediaLimits) if f.name != "max_pixels"}
    limits = from_dict(MediaLimits, largest | {"max_streams": 1000, "max_memory_bytes": 2**40})
    sample = Path(avdetect.config.__file__).parent / "weights" / "sample" / "sample.mp4"
    with MediaReader(sample, limits=limits) as reader:
        assert len(next(reader.video()))
