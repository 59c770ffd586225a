"""Strict configuration: what is unknown or mistyped is refused by name, and every field counts in the digest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from readme_media import SAMPLE

from avdetect.config import (
    LARGEST_NUMBER,
    MediaLimits,
    PreprocessConfig,
    TrainConfig,
    View,
    from_dict,
    load_yaml,
    to_dict,
)
from avdetect.errors import ConfigError
from avdetect.media import MediaReader


def test_differences_are_taken_over() -> None:
    assert from_dict(TrainConfig, None) == from_dict(TrainConfig, {"model": None}) == TrainConfig()
    free = {"b": 2, "c": ["d"]}
    visual = {"encoder_kwargs": free, "views": [{"mean": 0, "std": [1, 2, 3]}], "pretrained": "path"}
    values = {"seed": 3, "model": {"visual": visual}, "preprocess": {"faces": {"min_confidence": 1}}}
    config = from_dict(TrainConfig, values | {"audio": {"forgeries": {"cut": 2}}})
    assert (config.seed, config.model.visual.encoder_kwargs, config.model.visual.pretrained) == (3, free, "path")
    assert config.model.visual.views == (View(mean=0.0, std=(1.0, 2.0, 3.0)),)
    numbers = [config.preprocess.faces.min_confidence, config.audio.forgeries["cut"], config.model.visual.views[0].mean]
    assert [type(number) for number in numbers] == [float] * 3, "the digest must not depend on 2 or 2.0"
    assert isinstance(config.model.visual.encoder_kwargs["b"], int), "what may be anything is left alone"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: [", "not valid YAML"),
        ("sead: 1", r"train\.yaml: unknown key 'sead'; known keys: seed, name, .*, fusion$"),
        ("model: {sync: {speed: 1.0}}", r"model\.sync: unknown key 'speed'; known keys: mouth_frames"),
        ("[1]", "expected a mapping, got list"),
        ("preprocess: {faces: {min_confidence: true}}", r"min_confidence: expected float \| null, got True"),
        ("preprocess: {detector: middling}", r"detector: must be one of mtcnn, scrfd, got 'middling'"),
        ("model: {visual: {encoder_kwargs: {1: 2}}}", r"encoder_kwargs: .*names as keys, got \{1: 2\}"),
        ("audio: {lr: 1e-3}", r"audio\.lr.*write 1\.0e-03"),  # YAML 1.1 reads this as text
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("seed: 1\nseed: 2", "twice"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", r"aliases .* are refused"),
        ("seed: &a [*a]", r"aliases .* are refused"),
        ("[" * 1000, "nested more than"),
        ("# " + "x" * 70_000, "larger than 64 KiB"),
        ("seed: 0x" + "f" * 5000, r"yaml\.seed: expected int <= 1000000000000000, got a number that is too large"),
        ("visual: {lr: 0x" + "f" * 5000 + "}", r"visual\.lr: Number out of range, got a number that is too large"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("model: {visual: {encoder_kwargs: {a: 2001-01-01}}}", r"encoder_kwargs\.a: expected text"),
        ("visual: {lr: -1.0}", r"train\.yaml\.visual\.lr: expected float > 0\.0, got -1\.0"),
        ("model: {streams: [visual, smell]}", r"model\.streams: must be one of visual, audio, sync, got .*'smell'"),
        ("model: {sync: {mouth_frames: 12}}", r"mouth_frames must be odd, got 12"),
        ("visual: {forgeries: {" + "x" * 999 + ": a}}", "expected float"),
        ("audio: {forgeries: {cut: .nan}}", r"audio\.forgeries: expected float >= 0\.0, got \{'cut': nan\}"),
        ("visual: {forgeries: {self_blend: 0, mouth_swap: 0}}", r"train\.yaml\.visual: .*every weight is 0"),
        ("model: {visual: {views: [{highpass: 4}]}}", r"model\.visual\.views: View\.highpass must be odd, or 0, got 4"),
        ("model: {visual: {contrasts: [a]}}", r"VisualConfig\.contrasts: a must also be named in levels"),
        ("model: {audio: {stretch_seconds: 0.3}}", r"stretch_seconds: expected float >= 0\.5"),
        ("model: {audio: {stretch_seconds: 1.0}}", r"model\.audio: AudioConfig\.stretch_seconds: .* frozen"),
        ("model: {visual: {unit_features: true, tune: none}}", r"model\.visual: VisualConfig\.unit_features"),
        ("model: {visual: {size: 96}}", r"size 96 is smaller than preprocess\.faces\.crop_size 160"),
        ("visual: {reconstructed: 0.4}", r"train\.yaml\.visual\.reconstructed: .* no longer has it; leave it out"),
        ("release: true\nsync: {evaluate_every: 5}", r"sync\.evaluate_every must be 0 with release"),
        ("visual: {batch_size: 32, reals_per_fake: 2}", "batch_size 32"),
        ("audio: {batch_size: 30, accumulate: 4}", "accumulate 4"),
        ("joint: {steps: 5}", r"train\.yaml\.joint: .* no longer has it"),
        ("model: {fusion: {hidden: 5}}", r"fusion\.hidden: .* no longer has it"),
        ("model: {visual: {tune: none}}\nvisual: {evaluate_every: 5}", r"visual\.evaluate_every must be 0.*frozen"),
        ("audio: {alignment: 0.1}", r"audio\.alignment"),
        ("visual: {uniformity: 0.1}", r"need model\.visual\.unit_features"),
        ("model: {visual: {unit_features: true}}\nvisual: {alignment: 0.1, accumulate: 2}", "accumulate must be 1"),
        ("sync: {accumulate: 2}", r"sync\.accumulate must be 1, got 2"),
        ("model: {streams: [visual, audio]}\naudio: {steps: 0}", "the streams with steps are visual, sync"),
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
        "model: {fusion: {stream_dropout: 0}, visual: {views: [{mean: 0, std: [1, 2, 3]}]}}",
        "model: {audio: {window_seconds: 0.5}}\npreprocess: {detector: scrfd, faces: {min_iou: 1, shot_change: 1}}",
        "visual: {accumulate: 2, ema_decay: 0, label_smoothing: 0, forgeries: {self_blend: 3, mouth_swap: 0}}",
        "model: {streams: [sync, visual]}\naudio: {steps: 0}",
        "visual: {steps: 0}\naudio: {steps: 4}",
        "visual: {reconstructed: 0.0}\naudio: {reconstructed: 0}",  # of earlier versions, and never used
    ],
)
def test_the_ends_of_the_ranges_are_taken(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.yaml").write_text(text)
    config = load_yaml(TrainConfig, tmp_path / "train.yaml")
    assert from_dict(TrainConfig, to_dict(config)) == config


def changed(config: Any) -> list[Any]:
    """Copies of `config`, each with one field of it or of its parts changed."""

    def others(value: Any) -> list[Any]:
        if dataclasses.is_dataclass(value):
            return changed(value)
        if isinstance(value, str):
            return ["scrfd"]
        return [0.2 if value is None else value / 2 if isinstance(value, float) else value + 1]

    names = [item.name for item in dataclasses.fields(config)]
    return [dataclasses.replace(config, **{n: other}) for n in names for other in others(getattr(config, n))]


def test_every_field_of_the_preprocessing_counts_in_its_digest() -> None:
    config = PreprocessConfig()
    digests = [copy.digest() for copy in changed(config)]
    assert len(digests) > 15
    assert len({config.digest(), *digests}) == len(digests) + 1
    # Another digest refuses every cache and bundle there is: change it only with what comes out of preprocessing.
    assert PreprocessConfig().digest() == config.digest() == "ab06158098952bc4"


def test_limits_may_be_as_large_as_a_number_may_be() -> None:
    """Who wants no limit writes a large one; the kernel's calls take smaller numbers."""
    largest = {f.name: int(LARGEST_NUMBER) for f in dataclasses.fields(MediaLimits) if f.name != "max_pixels"}
    limits = from_dict(MediaLimits, largest | {"max_streams": 1000, "max_memory_bytes": 2**40})
    with MediaReader(SAMPLE, limits=limits) as reader:
        assert len(next(reader.video()))
