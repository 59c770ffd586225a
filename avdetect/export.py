"""Trained model -> bundle. Needs torch; the bundle does not."""

import io
import math
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from timm.layers import get_same_padding
from timm.layers.conv2d_same import Conv2dSame, Conv2dSameExport
from torch import Tensor, nn

from avdetect import __version__
from avdetect.bundle import FORMAT, GRAPHS, OUT_OF_FOLD, Bundle, BundleInfo, Calibration, OnnxNetworks, write_bundle
from avdetect.config import PreprocessConfig
from avdetect.errors import ModelError
from avdetect.extras import installed_version
from avdetect.model import Model
from avdetect.pooling import FEATURES
from avdetect.scoring import audio_windows
from avdetect.speech import speech_mask
from avdetect.types import Clip

PARITY_TOLERANCE = 1e-4  # torch against ONNX Runtime, absolute
OPSET = 17
OVER_TIME = ("speech", "audio", "mouth", "voice")  # graphs whose inputs may be of any length
GOLDEN_ROWS, GOLDEN_STEPS = 2, 16  # of windows of speech that golden.npz holds: their frames are large
HALVES_TOLERANCE = 5e-3  # by which half precision may move the outputs of a graph, relative to their norm
MIN_HALVED = 10_000  # elements of a tensor; smaller ones are not worth a node
# A bundle notes the versions of those that are installed; onnxruntime may be installed as onnxruntime-gpu.
_RECORDED = (
    *("torch", "timm", "onnx", "onnxruntime", "onnxruntime-gpu"),
    *("numpy", "opencv-python-headless", "ffmpeg-python"),
)


def export_bundle(
    model: Model,
    folder: Path,
    *,
    name: str,
    licence: str,
    preprocess: PreprocessConfig,
    calibration: Calibration,
    training: dict[str, Any],
    sample: Sequence[Clip],
    out_of_fold: bytes | None = None,
    limits: Sequence[str] = (),
) -> Bundle:
    """Export `model` into `folder` and read it back.

    sample: the clips of a redistributable file with a face and a voice, of which the golden inputs are cut.
    out_of_fold: content of the table of that name. limits: what a reader of a report must know, a sentence each.
    Raises ModelError when a graph differs from torch by more than 1e-4, before its weights are rounded (`in_halves`).
    """
    model = model.cpu().eval()
    modules = modules_of(model)
    inputs = golden_inputs(model, sample)
    info = BundleInfo(
        format=FORMAT,
        name=name,
        avdetect_version=__version__,
        licence=licence,
        preprocess=preprocess,
        preprocess_digest=preprocess.digest(),
        # Where an encoder's start lay on the training machine is no property of the trained model.
        model=replace(
            model.config,
            visual=replace(model.config.visual, pretrained=False),
            audio=replace(model.config.audio, pretrained=None),
        ),
        calibration=calibration,
        training=training,
        versions={package: version for package in _RECORDED if (version := installed_version(package))},
        files={},
        limits=tuple(limits),
    )
    graphs = {f"{graph}.onnx": _to_onnx(modules[graph], inputs[graph], graph in OVER_TIME) for graph in GRAPHS}
    exact = OnnxNetworks(Bundle(folder, info, graphs, ""), device="cpu")
    check_parity(modules, exact, inputs)
    files = in_halves(folder, info, graphs, exact, inputs) | ({} if out_of_fold is None else {OUT_OF_FOLD: out_of_fold})
    write_bundle(folder, info, files)
    return Bundle.load(folder)


def in_halves(
    folder: Path, info: BundleInfo, graphs: dict[str, bytes], exact: OnnxNetworks, inputs: dict[str, np.ndarray]
) -> dict[str, bytes]:
    """`graphs`, each with its weights in half precision where that moves its outputs by at most HALVES_TOLERANCE; and
    golden.npz of what they then give."""
    halves = {name: stored_in_halves(content) for name, content in graphs.items()}
    small = OnnxNetworks(Bundle(folder, info, halves, ""), device="cpu")
    files = dict(graphs)
    golden: dict[str, np.ndarray] = {}
    for graph in GRAPHS:
        networks, expected = exact, exact.run(graph, inputs[graph])
        if np.linalg.norm(small.run(graph, inputs[graph]) - expected) <= HALVES_TOLERANCE * np.linalg.norm(expected):
            files[f"{graph}.onnx"], networks = halves[f"{graph}.onnx"], small
        kept = inputs[graph] if graph in ("visual", "mouth", "fusion") else inputs[graph][:GOLDEN_ROWS, :GOLDEN_STEPS]
        golden |= {f"{graph}.input": kept, f"{graph}.output": networks.run(graph, kept)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **golden)  # type: ignore[arg-type]  # the stubs take a name for allow_pickle
    return files | {"golden.npz": buffer.getvalue()}


def modules_of(model: Model) -> dict[str, nn.Module]:
    """What each graph is made of."""
    return {
        "visual": model.visual,
        "speech": model.speech,
        "audio": model.audio,
        "mouth": model.sync.mouth,
        "voice": model.sync.voice,
        "fusion": model.fusion,
    }


def golden_inputs(model: Model, sample: Sequence[Clip]) -> dict[str, np.ndarray]:
    """One input a graph. Raises ModelError when `sample` lacks a face or a voice."""
    clip = sample[0] if sample else None
    if clip is None or not clip.tracks or clip.waveform is None:
        raise ModelError("the sample clip for the golden scores needs a face and a voice")
    track, mouth_frames = clip.tracks[0], model.config.sync.mouth_frames
    windows = audio_windows(clip.waveform, speech_mask(clip.waveform.samples), model.config.audio)[:3]
    if not windows or not len(track.face_crops) or len(track.mouth_crops) < mouth_frames:
        raise ModelError("the sample clip for the golden scores needs half a second of speech and of a face")
    mels = np.stack([window.mel for window in windows])
    with torch.inference_mode():
        frames = model.speech(torch.from_numpy(mels)).numpy()
    features = np.random.default_rng(0).standard_normal((4, len(FEATURES))).astype(np.float32)
    features[:, -3:] = [[1, 1, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0]]
    return {
        "visual": track.face_crops[:4],
        "speech": mels,
        "audio": frames,
        "mouth": track.mouth_crops[None, : mouth_frames + 7],
        "voice": frames,
        "fusion": features,
    }


def check_parity(
    modules: dict[str, nn.Module], networks: OnnxNetworks, inputs: dict[str, np.ndarray]
) -> dict[str, float]:
    """Largest difference between torch and ONNX Runtime of each graph, at batch sizes 1 and N. Raises ModelError."""
    worst: dict[str, float] = {}
    for graph, module in modules.items():
        for array in (inputs[graph], inputs[graph][:1]):
            with torch.inference_mode():
                expected = module(torch.from_numpy(array)).numpy()
            difference = float(np.abs(networks.run(graph, array) - expected).max())
            if not difference <= PARITY_TOLERANCE:  # so asked, NaN (of a diverged run) does not pass
                raise ModelError(f"{graph}.onnx differs from torch by {difference:.2e} (allowed: {PARITY_TOLERANCE})")
            worst[graph] = max(worst.get(graph, 0.0), difference)
    return worst


class _FixedPadding(nn.Module):
    """A convolution whose TensorFlow-like padding is a constant of the graph, which ONNX Runtime takes into it. Else
    the graph computes it from each input's shape and pads into fresh memory: an eighth of the encoder's time."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        padding: list[int] = []  # of the last dimension first
        for side, kernel, stride, dilation in zip(
            x.shape[2:], conv.kernel_size, conv.stride, conv.dilation, strict=True
        ):
            missing = get_same_padding(int(side), kernel, stride, dilation)  # int: a constant when exported
            padding = [missing // 2, missing - missing // 2, *padding]
        padded = nn.functional.pad(x, padding)
        return nn.functional.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def _with_fixed_padding(module: nn.Module) -> nn.Module:
    module = deepcopy(module).eval()  # the copy of a traced encoder is in training mode again
    for name, part in list(module.named_modules()):
        if isinstance(part, Conv2dSame | Conv2dSameExport):
            module.set_submodule(name, _FixedPadding(part))
    return module


def _to_onnx(module: nn.Module, example: np.ndarray, variable_time: bool) -> bytes:
    """variable_time: whether the second axis of the input, and of an output that has one, may be of any length."""
    module = _with_fixed_padding(module)
    with torch.inference_mode():
        sides = module(torch.from_numpy(example)).ndim
    axes = {0: "batch"} | ({1: "time"} if variable_time else {})
    output_axes = {0: "batch"} | ({1: "steps"} if variable_time and sides > 1 else {})
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter announces its own retirement at every call
        torch.onnx.export(
            module,
            (torch.from_numpy(example),),
            buffer,  # type: ignore[arg-type]  # the TorchScript exporter takes a file object too
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": axes, "output": output_axes},
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


def stored_in_halves(content: bytes) -> bytes:
    """A graph whose large matrices are rounded to half precision, and cast back when it is loaded: half the file."""
    model = onnx.load_from_string(content)
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2 or math.prod(tensor.dims) < MIN_HALVED:
            continue  # no vectors: something may be divided by them
        values = onnx.numpy_helper.to_array(tensor)
        if np.abs(values).max() < np.finfo(np.float16).max:
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model.SerializeToString()
