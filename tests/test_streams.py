"""The three networks: shapes, no influence of the rest of the batch, and what they are built to ignore."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import make_track, speech

from avdetect.audio import N_MELS, log_mel
from avdetect.config import AudioConfig, SyncConfig, VisualConfig
from avdetect.errors import ConfigError
from avdetect.scoring import SYNC_FRAMES, SYNC_MELS, audio_mel, voice_windows
from avdetect.speech import speech_mask
from avdetect.streams.audio import AttentiveStatisticsPooling, AudioStream
from avdetect.streams.sync import SyncStream
from avdetect.streams.visual import VisualStream
from avdetect.types import Waveform

torch.set_num_threads(1)  # networks this small only wait for a second thread
VISUAL = VisualConfig(encoder="test_efficientnet")
AUDIO = AudioConfig(channels=(8, 12, 16), embedding=16)
SYNC = SyncConfig(embedding=24, channels=(8, 12, 16, 24))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return torch.from_numpy(make_track(np.zeros(20, int)).face_crops)  # (4, 64, 64, 3)


@pytest.fixture(scope="module")
def mels() -> torch.Tensor:
    return torch.from_numpy(np.stack([log_mel(speech(1.0, seed)) for seed in range(4)]))


@pytest.fixture(scope="module")
def mouths() -> torch.Tensor:
    coarse = np.random.default_rng(0).integers(0, 256, (4, SYNC_FRAMES, 8, 8), dtype=np.uint8)
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


# -- visual


@pytest.mark.parametrize(
    ("encoder", "kwargs"),
    [
        ("test_efficientnet", {}),
        ("test_resnet", {}),
        ("test_vit", {"img_size": 64}),
        ("mobilenetv2_050", {"pad_type": "same"}),
    ],
)
def test_any_timm_encoder_gives_a_logit_a_crop(encoder: str, kwargs: dict, crops: torch.Tensor) -> None:
    stream = VisualStream(dataclasses.replace(VISUAL, encoder=encoder, encoder_kwargs=kwargs))
    logits = assert_rows_are_independent(warmed(stream, crops), crops)
    assert logits.shape == (4,)
    assert logits.dtype == torch.float32


def test_bytes_and_floats_are_one_scale(crops: torch.Tensor) -> None:
    stream = warmed(VisualStream(VISUAL), crops)
    torch.testing.assert_close(evaluated(stream, crops), evaluated(stream, crops.float()))


def test_pixels_are_normalised_as_configured(crops: torch.Tensor) -> None:
    seen = []
    stream = VisualStream(dataclasses.replace(VISUAL, mean=100.0, std=50.0)).eval()
    stream.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    evaluated(stream, crops)
    expected = (crops.permute(0, 3, 1, 2).float() - 100) / 50
    torch.testing.assert_close(seen[0], expected)


def test_red_green_and_blue_may_have_their_own_scale(crops: torch.Tensor) -> None:
    seen = []
    stream = VisualStream(dataclasses.replace(VISUAL, mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0))).eval()
    stream.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    evaluated(stream, crops)
    for channel, (mean, std) in enumerate([(10, 1), (20, 2), (30, 4)]):
        torch.testing.assert_close(seen[0][:, channel], (crops[..., channel].float() - mean) / std)


def test_the_scale_of_pixels_is_no_weight() -> None:
    """Weights that were saved with one number must load where there are three, and the other way round."""
    stream = VisualStream(dataclasses.replace(VISUAL, mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0)))
    assert not {"mean", "std"} & set(stream.state_dict())
    VisualStream(VISUAL).load_state_dict(stream.state_dict())
    assert stream.mean.flatten().tolist() == [10, 20, 30], "the weights bring no scale of their own"


@pytest.mark.parametrize("scale", [{}, {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}])
def test_the_scale_of_pixels_is_exported(scale: dict, crops: torch.Tensor) -> None:
    import onnxruntime

    from avdetect.export import PARITY_TOLERANCE, _to_onnx

    stream = warmed(VisualStream(dataclasses.replace(VISUAL, **scale)), crops)
    graph = _to_onnx(stream, crops[:2].numpy(), False)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": crops.numpy()})[0]
    np.testing.assert_allclose(found, evaluated(stream, crops), atol=PARITY_TOLERANCE, rtol=0)


@pytest.mark.parametrize("encoder", ["no_such_net", "", "nosource:no_such_net"])
def test_an_unknown_encoder_is_a_config_error(encoder: str) -> None:
    with pytest.raises(ConfigError, match=r"visual\.encoder"):
        VisualStream(dataclasses.replace(VISUAL, encoder=encoder))


def test_unknown_encoder_arguments_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="test_efficientnet"):
        VisualStream(dataclasses.replace(VISUAL, encoder_kwargs={"no_such_argument": 1}))


def test_encoder_weights_are_read_from_a_file(tmp_path: Path, crops: torch.Tensor) -> None:
    from safetensors.torch import save_file

    donor = warmed(VisualStream(VISUAL), crops)
    path = tmp_path / "encoder.safetensors"
    state = {**donor.encoder.state_dict(), "classifier.weight": torch.zeros(2, 2)}
    save_file({k: v.contiguous() for k, v in state.items() if not k.endswith("num_batches_tracked")}, str(path))
    torch.manual_seed(5)
    stream = VisualStream(dataclasses.replace(VISUAL, pretrained=str(path)))
    for key, value in stream.encoder.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, donor.encoder.state_dict()[key], msg=key)
    torch.manual_seed(5)
    fresh = VisualStream(dataclasses.replace(VISUAL, pretrained=str(path)), load_pretrained=False)
    torch.manual_seed(5)
    torch.testing.assert_close(fresh.state_dict(), VisualStream(VISUAL).state_dict())


def test_encoder_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"nothing": torch.zeros(1)}, str(path))
    config = dataclasses.replace(VISUAL, pretrained=str(path))
    with pytest.raises(ConfigError, match="does not fit"):
        VisualStream(config)
    state = VisualStream(VISUAL).encoder.state_dict()
    key = next(iter(state))
    save_file({k: v.contiguous() if k != key else torch.zeros(3) for k, v in state.items()}, str(path))
    with pytest.raises(ConfigError, match="does not fit"):
        VisualStream(config)
    path.write_bytes(b"not safetensors")
    with pytest.raises(ConfigError, match="cannot read"):
        VisualStream(config)
    with pytest.raises(ConfigError, match="cannot read"):
        VisualStream(dataclasses.replace(VISUAL, pretrained=str(tmp_path / "none.safetensors")))


# -- audio


def test_audio_logits(mels: torch.Tensor) -> None:
    stream = warmed(AudioStream(AUDIO), mels)
    assert assert_rows_are_independent(stream, mels).shape == (4,)


@pytest.mark.parametrize("frames", [50, 51, 100, 200, 333])
def test_audio_windows_of_any_length(frames: int) -> None:
    assert evaluated(AudioStream(AUDIO), torch.randn(2, frames, N_MELS)).shape == (2,)


def test_level_says_nothing_to_the_audio_stream(mels: torch.Tensor) -> None:
    stream = warmed(AudioStream(AUDIO), mels)
    samples = speech(2.0, 9)
    loud, quiet, other = (
        torch.from_numpy(audio_mel(sound, speech_mask(sound), AUDIO)[None])
        for sound in (samples, samples * np.float32(0.05), speech(2.0, 10) ** 3 * 4)
    )
    a, b, c = (evaluated(stream, x).item() for x in (loud, quiet, other))
    assert a == pytest.approx(b, abs=5e-3 * max(1, abs(a)))
    assert abs(a - c) > 10 * abs(a - b), "but it hears the difference between two sounds"
    torch.testing.assert_close(evaluated(stream, mels), evaluated(stream, mels - 1.386), atol=1e-4, rtol=1e-4)


def test_attentive_pooling_is_a_weighted_mean_and_deviation() -> None:
    pool = AttentiveStatisticsPooling(3)
    torch.nn.init.zeros_(pool.attention[2].weight)  # equal weights: plain statistics
    x = torch.randn(2, 3, 50)
    expected = torch.cat([x.mean(2), x.std(2, unbiased=False)], 1)
    torch.testing.assert_close(pool(x), expected, atol=1e-4, rtol=1e-4)
    still = pool(torch.full((1, 3, 9), 2.0))
    assert torch.isfinite(still).all()
    still.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in pool.parameters() if p.grad is not None)


def test_a_constant_window_gives_finite_gradients() -> None:
    stream = AudioStream(AUDIO)
    stream(torch.full((2, 100, N_MELS), -11.5)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in stream.parameters())


# -- sync


def test_towers_give_comparable_unit_vectors(mouths: torch.Tensor) -> None:
    stream = SyncStream(SYNC)
    sound = speech(0.4)
    voice = torch.from_numpy(voice_windows(Waveform(sound), speech_mask(sound))[0][:4])
    assert voice.shape == (4, SYNC_MELS, N_MELS)
    warmed(stream, mouths, voice)
    for tower, x in ((stream.mouth, mouths), (stream.voice, voice)):
        out = assert_rows_are_independent(tower, x)
        assert out.shape == (4, SYNC.embedding)
        torch.testing.assert_close(out.norm(dim=1), torch.ones(4))
    both = stream(mouths, voice)
    torch.testing.assert_close(both[0], evaluated(stream.mouth, mouths), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[1], evaluated(stream.voice, voice), atol=1e-5, rtol=1e-4)


def test_level_says_nothing_to_the_voice_tower() -> None:
    tower = SyncStream(SYNC).voice
    sounds = [speech(1.0) * np.float32(gain) for gain in (1, 0.05)]
    loud, quiet = (torch.from_numpy(voice_windows(Waveform(sound), speech_mask(sound))[0]) for sound in sounds)
    warmed(tower, loud)
    torch.testing.assert_close(evaluated(tower, loud), evaluated(tower, quiet), atol=5e-3, rtol=0)


def test_brightness_says_nothing_to_the_mouth_tower(mouths: torch.Tensor) -> None:
    tower = SyncStream(SYNC).mouth
    warmed(tower, mouths)
    dim = mouths // 2 + 20
    torch.testing.assert_close(evaluated(tower, dim), evaluated(tower, dim + 60), atol=1e-5, rtol=0)


def test_the_order_of_frames_matters_to_the_mouth_tower(mouths: torch.Tensor) -> None:
    tower = warmed(SyncStream(SYNC).mouth, mouths)
    assert (evaluated(tower, mouths) - evaluated(tower, mouths.flip(1))).abs().max() > 1e-3


@pytest.mark.parametrize("channels", [(8, 12, 16), (8, 12, 16, 24, 32), ()])
def test_towers_of_another_depth_are_a_config_error(channels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"(?i)sync(config)?\.channels"):
        SyncStream(dataclasses.replace(SYNC, channels=channels))


def test_dropout_is_off_when_scoring(mels: torch.Tensor) -> None:
    stream = AudioStream(dataclasses.replace(AUDIO, dropout=0.9))
    torch.testing.assert_close(evaluated(stream, mels), evaluated(stream, mels), atol=0, rtol=0)
