"""The three networks: shapes, no influence of the rest of the batch, and what they are built to ignore."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import make_track, speech

from avdetect.audio import N_MELS, log_mel
from avdetect.config import AudioConfig, SyncConfig, View, VisualConfig
from avdetect.errors import ConfigError
from avdetect.scoring import audio_mel
from avdetect.speech import speech_mask
from avdetect.streams.audio import AttentiveStatisticsPooling, AudioStream
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


@pytest.fixture(scope="module")
def mels() -> torch.Tensor:
    """Log-mels as frames: what `speech_encoder` of the CNN hands on."""
    return torch.from_numpy(np.stack([log_mel(speech(1.0, seed)) for seed in range(4)]))[:, :, None]


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
    stream = VisualStream(dataclasses.replace(VISUAL, views=(View(mean=100.0, std=50.0),))).eval()
    stream.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    evaluated(stream, crops)
    expected = (crops.permute(0, 3, 1, 2).float() - 100) / 50
    torch.testing.assert_close(seen[0], expected)


def test_red_green_and_blue_may_have_their_own_scale(crops: torch.Tensor) -> None:
    seen = []
    stream = VisualStream(
        dataclasses.replace(VISUAL, views=(View(mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0)),))
    ).eval()
    stream.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    evaluated(stream, crops)
    for channel, (mean, std) in enumerate([(10, 1), (20, 2), (30, 4)]):
        torch.testing.assert_close(seen[0][:, channel], (crops[..., channel].float() - mean) / std)


def test_the_scale_of_pixels_is_no_weight() -> None:
    """Weights that were saved with one number must load where there are three, and the other way round."""
    stream = VisualStream(dataclasses.replace(VISUAL, views=(View(mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0)),)))
    assert not [name for name in stream.state_dict() if name.startswith("views.")]
    VisualStream(VISUAL).load_state_dict(stream.state_dict())
    assert stream.views[0].mean.flatten().tolist() == [10, 20, 30], "the weights bring no scale of their own"


@pytest.mark.parametrize("scale", [{}, {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}])
def test_the_scale_of_pixels_is_exported(scale: dict, crops: torch.Tensor) -> None:
    import onnxruntime

    from avdetect.export import PARITY_TOLERANCE, _to_onnx

    stream = warmed(VisualStream(dataclasses.replace(VISUAL, views=(View(**scale),))), crops)
    graph = _to_onnx(stream, crops[:2].numpy(), False)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": crops.numpy()})[0]
    np.testing.assert_allclose(found, evaluated(stream, crops), atol=PARITY_TOLERANCE, rtol=0)


def test_views_are_cut_from_the_middle_reduced_and_stand_side_by_side(crops: torch.Tensor) -> None:
    import onnxruntime

    from avdetect.export import PARITY_TOLERANCE, _to_onnx

    side = crops.shape[1]
    seen: list[torch.Tensor] = []
    views = (View(), View(share=0.5), View(reduce=2), View(share=0.5, reduce=2, highpass=3, std=8.0))
    stream = VisualStream(dataclasses.replace(VISUAL, views=views)).eval()
    hook = stream.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    features = stream.features(crops)
    hook.remove()
    assert [one.shape[-1] for one in seen] == [side, side // 2, side // 2, side // 4]
    torch.testing.assert_close(seen[1], seen[0][..., side // 4 : -(side // 4), side // 4 : -(side // 4)])
    torch.testing.assert_close(seen[2], seen[0].unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)))
    alone = VisualStream(dataclasses.replace(VISUAL, views=views[:1])).eval()
    alone.encoder.load_state_dict(stream.encoder.state_dict())
    width = features.shape[1] // len(views)
    torch.testing.assert_close(features[:, :width], alone.features(crops))
    assert stream.head.in_features == features.shape[1]
    graph = _to_onnx(warmed(stream, crops), crops[:2].numpy(), False)
    found = onnxruntime.InferenceSession(graph).run(None, {"input": crops.numpy()})[0]
    np.testing.assert_allclose(found, evaluated(stream, crops), atol=PARITY_TOLERANCE, rtol=0)
    weights = sum(parameter.numel() for parameter in stream.encoder.parameters())
    assert len(graph) < 1.5 * 4 * weights, "the encoder's weights are in the graph once"


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
    assert evaluated(AudioStream(AUDIO), torch.randn(2, frames, 1, N_MELS)).shape == (2,)


def test_level_says_nothing_to_the_audio_stream(mels: torch.Tensor) -> None:
    stream = warmed(AudioStream(AUDIO), mels)
    samples = speech(2.0, 9)
    loud, quiet, other = (
        torch.from_numpy(audio_mel(sound, speech_mask(sound), AUDIO)[None, :, None])
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
    stream(torch.full((2, 100, 1, N_MELS), -11.5)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in stream.parameters())


# -- sync


def frames_of(config: AudioConfig, seconds: float = 1.0) -> torch.Tensor:
    encoder = speech_encoder(config).eval()
    sounds = [speech(seconds, seed) for seed in range(4)]
    with torch.no_grad():
        return encoder(torch.from_numpy(np.stack([log_mel(sound) for sound in sounds])))


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


@pytest.mark.parametrize("steps", [96, 97, 98, 99, 100])
@pytest.mark.parametrize("audio", [AUDIO, WHISPER], ids=["cnn", "whisper"])
def test_a_voice_has_one_vector_for_each_whole_video_frame(audio: AudioConfig, steps: int) -> None:
    frames = speech_encoder(audio)(torch.randn(1, steps, N_MELS))
    assert evaluated(SyncStream(SYNC, audio).voice, frames).shape[1] in (steps // 4, -(-steps // 4))


@pytest.mark.parametrize("mouth_frames", [5, 7, 9, 13, 21])
def test_a_mouth_vector_sees_the_frames_around_its_own(mouth_frames: int) -> None:
    tower = SyncStream(dataclasses.replace(SYNC, mouth_frames=mouth_frames), AUDIO).mouth
    mouths = torch.randint(0, 256, (2, 60, 64, 64), dtype=torch.uint8)
    warmed(tower, mouths)
    other = mouths[:1].clone()
    other[:, 30] = 255 - other[:, 30]
    plain, changed = evaluated(tower, mouths[:1]), evaluated(tower, other)
    assert plain.shape == (1, 60 - mouth_frames + 1, SYNC.embedding)
    moved = ((plain - changed).abs().amax((0, 2)) > 1e-6).nonzero().flatten() + mouth_frames // 2
    assert moved.tolist() == list(range(30 - mouth_frames // 2, 30 + mouth_frames // 2 + 1))


def test_a_stretch_of_mouths_gives_what_its_parts_give(mouths: torch.Tensor) -> None:
    tower = warmed(SyncStream(SYNC, AUDIO).mouth, mouths)
    whole, part = evaluated(tower, mouths), evaluated(tower, mouths[:, 4:18])
    torch.testing.assert_close(part, whole[:, 4:6], atol=1e-5, rtol=1e-4)


def test_loudness_says_nothing_to_the_voice_tower(mels: torch.Tensor) -> None:
    tower = warmed(SyncStream(SYNC, AUDIO).voice, mels)
    torch.testing.assert_close(evaluated(tower, mels), evaluated(tower, mels - 1.386), atol=1e-4, rtol=0)


def test_brightness_says_nothing_to_the_mouth_tower(mouths: torch.Tensor) -> None:
    tower = SyncStream(SYNC, AUDIO).mouth
    warmed(tower, mouths)
    dim = mouths // 2 + 20
    torch.testing.assert_close(evaluated(tower, dim), evaluated(tower, dim + 60), atol=1e-5, rtol=0)


def test_the_order_of_frames_matters_to_the_mouth_tower(mouths: torch.Tensor) -> None:
    tower = warmed(SyncStream(SYNC, AUDIO).mouth, mouths)
    assert (evaluated(tower, mouths) - evaluated(tower, mouths.flip(1)).flip(1)).abs().max() > 1e-3


@pytest.mark.parametrize("side", [2, 3, 4, 5, 6, 8, 11])
def test_maps_of_any_side_are_pooled_on_one_grid(side: int) -> None:
    maps = torch.randn(2, 3, side, side)
    torch.testing.assert_close(_on_grid(maps), torch.nn.functional.adaptive_avg_pool2d(maps, 4))


def test_dropout_is_off_when_scoring(mels: torch.Tensor) -> None:
    stream = AudioStream(dataclasses.replace(AUDIO, dropout=0.9))
    torch.testing.assert_close(evaluated(stream, mels), evaluated(stream, mels), atol=0, rtol=0)
