"""Every YAML that ships: parsed, its networks of a shape that fits, its data settings accepted."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import timm
import torch

from avdetect.audio import N_MELS
from avdetect.config import PreprocessConfig, TrainConfig, VisualConfig, load_yaml
from avdetect.datasets.forgeries.audio import AUDIO
from avdetect.datasets.forgeries.visual import VISUAL
from avdetect.errors import ConfigError
from avdetect.faces import DETECTORS
from avdetect.model import Model
from avdetect.streams.visual import VisualStream
from avdetect.training.sampling import choices

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_config_is_built(path: Path) -> None:
    """On torch's device of tensors without content."""
    config = load_yaml(TrainConfig, path)
    faces, sync = config.preprocess.faces, config.model.sync
    with torch.device("meta"), torch.inference_mode():
        model = Model(config.model, load_pretrained=False).eval()
        crops = torch.zeros(1, faces.crop_size, faces.crop_size, 3, dtype=torch.uint8)
        assert model.visual(crops).shape == (1,)
        frames = model.speech(torch.zeros(1, 200, N_MELS))
        assert model.audio(frames).shape == (1,)
        mouths = torch.zeros(1, 50, faces.mouth_size, faces.mouth_size, dtype=torch.uint8)
        mouth, voice = model.sync(mouths, frames)
    assert mouth.shape == (1, 50 - sync.mouth_frames + 1, sync.embedding)
    assert voice.shape == (1, 50, sync.embedding)
    choices(config.visual.forgeries, VISUAL, "visual")
    choices(config.audio.forgeries, AUDIO, "audio")
    for loop in (config.visual, config.audio, config.sync):
        assert loop.warmup_steps <= loop.steps / 2 or not loop.steps, "no run ends while it warms up"


def test_the_detectors_of_the_configuration_are_those_that_exist() -> None:
    assert set(get_args(get_type_hints(PreprocessConfig)["detector"])) == set(DETECTORS)


PRETRAINED = [path for path in CONFIGS if load_yaml(TrainConfig, path).model.visual.pretrained is True]


@pytest.mark.parametrize("path", PRETRAINED, ids=lambda p: p.name)
def test_a_downloaded_encoder_sees_pixels_as_it_was_trained_with(path: Path) -> None:
    visual = load_yaml(TrainConfig, path).model.visual
    for view in visual.views:
        trained = timm.models.get_pretrained_cfg(view.encoder or visual.encoder)
        assert trained is not None
        assert trained.has_weights, "there is nothing to download"
        if view.highpass:  # grain has no mean, and a scale of its own
            assert isinstance(view.std, float)
            assert 4 <= view.std <= 64
            continue
        for ours, theirs in ((view.mean, trained.mean), (view.std, trained.std)):
            stated = [ours] * 3 if isinstance(ours, float) else ours  # one number is that of all three channels
            assert stated == pytest.approx([255 * value for value in theirs], abs=0.01)


def test_a_download_without_a_network_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """timm's own hub code is what runs; here it finds neither a cache nor the network."""
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    config = VisualConfig(encoder="resnet18.a1_in1k", pretrained=True)
    with pytest.raises(ConfigError, match=r"visual\.pretrained.*network.*--pretrained"):
        VisualStream(config)
    assert VisualStream(config, load_pretrained=False)
