"""The three networks: shapes, no influence of the rest of the batch, and what they are built to ignore."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import make_track, speech
from safetensors.torch import save_file

from avdetect.audio import log_mel
from avdetect.config import AudioConfig, SyncConfig, View, VisualConfig
from avdetect.errors import ConfigError
from avdetect.scoring import audio_mel
from avdetect.speech import speech_mask
from avdetect.streams.audio import AudioStream
from avdetect.streams.speech import frame_shape, speech_encoder
from avdetect.streams.sync import SyncStream, _on_grid
from avdetect.streams.visual import VisualStream

torch.set_num_threads(1)  # networks this small only wait for a second thread
VISUAL = VisualConfig(encoder="test_efficientnet")
AUDIO = AudioConfig(channels=(8, 12, 16), embedding=16)
WHISPER = AudioConfig(encoder="whisper-tiny.en", levels=("stem", "blocks.0"))
SYNC = SyncConfig(embedding=24, channels=(8, 12, 16, 24))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return torch.from_numpy(make_track(np.zeros(20, int)).face_crops)  # (4, 64, 64, 3)


def frames_of(config: AudioConfig) -> torch.Tensor:
    """What the speech encoder hands on of four voices."""
    with torch.no_grad():
        return speech_encoder(config).eval()(
            torch.from_numpy(np.stack([log_mel(speech(1.0, seed)) for seed in range(4)]))
        )


@pytest.fixture(scope="module")
def mouths() -> torch.Tensor:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 20, 8, 8), dtype=np.uint8)
    return torch.from_numpy(coarse.repeat(8, 2).repeat(8, 3))


@torch.inference_mode()
def evaluated(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module.eval()(x)


def warmed(module: torch.nn.Module, *x: torch.Tensor) -> torch.nn.Module:
    """With batch statistics from training, so that eval mode is not the identity."""
    module.train()
    for _ in range(3):
        module(*x)
    return module.eval()


def assert_rows_are_independent(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    whole = evaluated(module, x)
    alone = torch.cat([evaluated(module, x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(evaluated(module, x.flip(0)), whole.flip(0), atol=1e-5, rtol=1e-4)
    assert whole.std(0).max() > 1e-5, "an output that ignores its input proves nothing"
    return whole


@pytest.mark.parametrize(("encoder", "kwargs"), [("test_vit", {"img_size": 64}), ("test_resnet", {})])
def test_any_timm_encoder_gives_a_logit_a_crop(encoder: str, kwargs: dict, crops: torch.Tensor) -> None:
    stream = VisualStream(dataclasses.replace(VISUAL, encoder=encoder, encoder_kwargs=kwargs))
    logits = assert_rows_are_independent(warmed(stream, crops), crops)
    assert (logits.shape, logits.dtype) == ((4,), torch.float32)


def test_pixels_are_normalised_as_configured(crops: torch.Tensor) -> None:
    seen = []
    stream = VisualStream(dataclasses.replace(VISUAL, views=(View(mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0)),)))
    stream.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    evaluated(stream, crops)
    for channel, (mean, std) in enumerate([(10, 1), (20, 2), (30, 4)]):
        torch.testing.assert_close(seen[0][:, channel], (crops[..., channel].float() - mean) / std)


@pytest.mark.parametrize("encoder", ["test_vit", "test_efficientnet", "test_convnext"])
def test_norms_of_every_kind_are_found(encoder: str) -> None:
    stream = VisualStream(VisualConfig(encoder=encoder, tune="norm"))
    learning = {name: p for name, p in stream.encoder.named_parameters() if p.requires_grad}
    assert learning
    assert all(p.ndim == 1 for p in learning.values())
    owners = [stream.encoder.get_submodule(name.rpartition(".")[0]) for name in learning]
    assert not [module for module in owners if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "no_such_net"}, r"visual: the encoder 'no_such_net'"),
        ({"views": (View(encoder="no_such_net"),)}, r"visual: the encoder 'no_such_net'"),
        ({"encoder_kwargs": {"no_such_argument": 1}}, r"visual: the encoder 'test_efficientnet'.*no_such_argument"),
        ({"encoder": "test_nfnet", "tune": "norm"}, r"tune: norm: 'test_nfnet' has no norms"),
        ({"levels": ("blocks.1", "layer1")}, r"visual\.levels.*no 'layer1'.*blocks\.1"),
        ({"levels": ("global_pool",)}, r"visual\.levels: 'global_pool' of test_efficientnet gives no maps"),
    ],
)
def test_what_cannot_be_built_is_a_config_error(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VisualStream(dataclasses.replace(VISUAL, **changes))


def test_encoder_weights_may_lie_in_several_files_and_must_fit(tmp_path: Path) -> None:
    path, folder = tmp_path / "one.safetensors", tmp_path / "several"
    config = dataclasses.replace(VISUAL, pretrained=str(path))
    for _ in ("missing", "damaged"):
        with pytest.raises(ConfigError, match="cannot read"):
            VisualStream(config)
        path.write_bytes(b"not safetensors")
    start = {name: value.contiguous() for name, value in VisualStream(VISUAL).encoder.state_dict().items()}
    names = sorted(start)
    folder.mkdir()
    several = dataclasses.replace(VISUAL, pretrained=str(folder))
    for wrong, wanted in (
        ({"nothing": torch.zeros(1)}, config),
        (start | {names[0]: torch.zeros(3)}, config),
        ({}, several),
    ):
        save_file(wrong, path)
        with pytest.raises(ConfigError, match="does not fit"):
            VisualStream(wanted)
    save_file(start, path)
    for number, part in enumerate((names[:5], names[5:])):
        save_file({name: start[name] for name in part}, folder / f"{number}.safetensors")
    for given in (config, several):
        loaded = VisualStream(given).encoder.state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in start.items())
    fresh = VisualStream(config, load_pretrained=False).encoder.state_dict()
    assert not all(torch.equal(value, fresh[name]) for name, value in start.items())


def test_a_view_may_have_an_encoder_of_its_own(crops: torch.Tensor, tmp_path: Path) -> None:
    first, second = VISUAL.encoder, "test_resnet"
    folder = tmp_path / "encoders"
    folder.mkdir()
    config = dataclasses.replace(
        VISUAL, views=(View(), View(encoder=second), View(share=0.5, encoder=second)), pretrained=str(folder)
    )
    alone = [dataclasses.replace(VISUAL, encoder=name, views=(View(),)) for name in (first, second)]
    alone.append(dataclasses.replace(alone[1], views=(View(share=0.5),)))
    for one in alone[:2]:
        with pytest.raises(ConfigError, match=rf"must be a folder that holds {one.encoder}\.safetensors"):
            VisualStream(config)
        state = {key: value.contiguous() for key, value in VisualStream(one).encoder.state_dict().items()}
        save_file(state, folder / f"{one.encoder}.safetensors")
    stream = VisualStream(config).eval()
    parts = [
        VisualStream(dataclasses.replace(one, pretrained=str(folder / f"{one.encoder}.safetensors"))).eval()
        for one in alone
    ]
    with torch.inference_mode():
        seen = stream.features(crops).split(stream.blocks, 1)
        for found, part in zip(seen, parts, strict=True):
            torch.testing.assert_close(found, part.features(crops))
    assert stream(crops).shape == (4,)
    assert len(stream.others) == 1, "two views share it"
    unused = dataclasses.replace(VISUAL, encoder="no_such_net", views=(View(encoder=second),))
    assert not VisualStream(unused).others, "an encoder that no view has is not built"


def test_level_says_nothing_to_the_audio_stream() -> None:
    mels = frames_of(AUDIO)
    stream = warmed(AudioStream(AUDIO), mels)
    assert assert_rows_are_independent(stream, mels).shape == (4,)
    samples = speech(2.0, 9)
    loud, quiet, other = (
        torch.from_numpy(audio_mel(sound, speech_mask(sound), AUDIO)[None, :, None])
        for sound in (samples, samples * np.float32(0.05), speech(2.0, 10) ** 3 * 4)
    )
    a, b, c = (evaluated(stream, x).item() for x in (loud, quiet, other))
    assert a == pytest.approx(b, abs=5e-3 * max(1, abs(a)))
    assert abs(a - c) > 10 * abs(a - b), "but it hears the difference between two sounds"
    torch.testing.assert_close(evaluated(stream, mels), evaluated(stream, mels - 1.386), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("audio", [AUDIO, WHISPER], ids=["cnn", "whisper"])
def test_towers_give_comparable_unit_vectors_of_each_video_frame(audio: AudioConfig, mouths: torch.Tensor) -> None:
    stream, frames = SyncStream(SYNC, audio), frames_of(audio)
    assert frames.shape[2:] == frame_shape(audio)
    warmed(stream, mouths, frames)
    for tower, x, count in ((stream.mouth, mouths, 20 - 12), (stream.voice, frames, 25)):
        out = assert_rows_are_independent(tower, x)
        assert out.shape == (4, count, SYNC.embedding)
        torch.testing.assert_close(out.norm(dim=2), torch.ones(4, count))
    both = stream(mouths, frames)
    torch.testing.assert_close(both[0], evaluated(stream.mouth, mouths), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[1], evaluated(stream.voice, frames), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mouth_frames", [5, 13])
def test_a_mouth_vector_sees_the_frames_around_its_own(mouth_frames: int) -> None:
    tower = SyncStream(dataclasses.replace(SYNC, mouth_frames=mouth_frames), AUDIO).mouth
    mouths = torch.randint(0, 256, (2, 30, 64, 64), dtype=torch.uint8)
    warmed(tower, mouths)
    dim = mouths // 2 + 20
    torch.testing.assert_close(evaluated(tower, dim), evaluated(tower, dim + 60), atol=1e-5, rtol=0)  # brightness
    other = mouths[:1].clone()
    other[:, 14] = 255 - other[:, 14]
    plain, changed = evaluated(tower, mouths[:1]), evaluated(tower, other)
    assert plain.shape == (1, 30 - mouth_frames + 1, SYNC.embedding)
    moved = ((plain - changed).abs().amax((0, 2)) > 1e-6).nonzero().flatten() + mouth_frames // 2
    assert moved.tolist() == list(range(14 - mouth_frames // 2, 14 + mouth_frames // 2 + 1))


def test_maps_of_any_side_are_pooled_on_one_grid() -> None:
    for side in (3, 4, 6, 11):
        maps = torch.randn(2, 3, side, side)
        torch.testing.assert_close(_on_grid(maps), torch.nn.functional.adaptive_avg_pool2d(maps, 4))
