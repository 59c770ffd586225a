"""The function of our networks is pinned: another timm, torch or ONNX Runtime that computes something else fails here.

A release's weights keep their meaning only while the architecture does: padding, epsilons, the order of the levels. So
the networks of configs/release.yaml get weights from a formula that no library's random generator has a part in, see
inputs from the same formula, and must give the numbers in golden_networks.json, in torch and as exported.

Where the architecture was changed on purpose, write the numbers anew and say so in the commit:

    python tests/test_golden_networks.py
"""

from __future__ import annotations

import importlib.metadata
import json
import zlib
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from avdetect.audio import N_MELS
from avdetect.bundle import GOLDEN_TOLERANCE, GRAPHS
from avdetect.config import TrainConfig, load_yaml
from avdetect.export import OVER_TIME, _to_onnx, modules_of
from avdetect.model import Model
from avdetect.pooling import FEATURES, NUM_VALUES
from avdetect.streams.speech import frame_shape
from avdetect.types import Float

torch.set_num_threads(1)
STORED = Path(__file__).with_name("golden_networks.json")
CONFIG = load_yaml(TrainConfig, Path(__file__).parents[1] / "configs" / "release.yaml")
ROWS = 3
STEPS = 24  # of log-mels and of frames


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1) that depend on `name` and their place alone, in float64.

    The mixing function of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): integers, so the same on every machine.
    """
    z = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) / 2**23 - 1).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of a weight or buffer of this name: of the size that a trained one has, so that nothing saturates."""
    values = uniform(name, shape)
    if len(shape) > 1:  # variance 1 / fan-in, and somewhat more for what a ReLU takes away
        return values * np.sqrt(3 * 1.5 / np.prod(shape[1:]))
    around_one = name.endswith(("weight", "running_var", ".std"))
    return 1 + 0.2 * values if around_one else 0.2 * values


@cache
def model() -> Model:
    model = Model(CONFIG.model, load_pretrained=False)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(weight(name, tuple(tensor.shape))))
    return model.eval()


def modules() -> dict[str, nn.Module]:
    return modules_of(model())


def example(graph: str) -> np.ndarray:
    """ROWS inputs of a graph: pictures with coarse shapes and grain, mels, frames and features of a usual size."""
    faces, mouth_frames = CONFIG.preprocess.faces, CONFIG.model.sync.mouth_frames
    if graph in ("visual", "mouth"):
        side, blocks = (faces.crop_size, 3) if graph == "visual" else (faces.mouth_size, mouth_frames + 1)
        coarse = uniform(f"{graph} shapes", (ROWS, blocks, 8, 8)).repeat(side // 8, 2).repeat(side // 8, 3)
        pixels = np.rint(127.5 + 80 * coarse + 40 * uniform(f"{graph} grain", coarse.shape)).astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if graph == "visual" else pixels
    if graph == "speech":
        return (5 * uniform("speech mels", (ROWS, STEPS, N_MELS)) - 5).astype(np.float32)
    if graph in ("audio", "voice"):
        return uniform(f"{graph} frames", (ROWS, STEPS, *frame_shape(CONFIG.model.audio))).astype(np.float32)
    features = 3 * uniform("fusion features", (ROWS, len(FEATURES)))
    features[:, NUM_VALUES:] = [[1, 1, 1], [1, 0, 0], [0, 1, 1]]
    return features.astype(np.float32)


@cache
def in_torch(graph: str) -> Float:
    module = modules()[graph]  # made outside of inference mode, whose tensors cannot be exported
    with torch.inference_mode():
        return module(torch.from_numpy(example(graph))).numpy()


@cache
def content(graph: str) -> bytes:
    return _to_onnx(modules()[graph], example(graph)[:2], variable_time=graph in OVER_TIME)


@cache
def exported(graph: str) -> Float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content(graph), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": example(graph)})[0]


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("timm", "torch", "onnxruntime", "numpy")}


def write() -> None:
    """Write golden_networks.json anew, one line an input."""
    lines = [f'"made_with": {json.dumps(versions())}']
    for graph in GRAPHS:
        rows = [json.dumps([round(float(v), 6) for v in np.atleast_1d(row)]) for row in kept(in_torch(graph))]
        lines.append(f'"{graph}": [\n' + ",\n".join(rows) + "\n]")
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def kept(output: np.ndarray) -> np.ndarray:
    """What is stored: all, but of outputs over time (ROWS, steps, …) every eighth number of the last step."""
    return output if output.ndim < 3 else output[:, -1, ..., ::8].reshape(len(output), -1)


def stored(graph: str) -> np.ndarray:
    values = np.array(json.loads(STORED.read_text(encoding="utf-8"))[graph])
    return values[:, 0] if graph in ("visual", "audio") else values


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("where", [in_torch, exported], ids=["torch", "onnx"])
def test_the_networks_compute_what_they_did(where, graph: str) -> None:
    made_with = json.loads(STORED.read_text(encoding="utf-8"))["made_with"]
    what = f"{graph} is another function than with {made_with}; here {versions()}"
    np.testing.assert_allclose(kept(where(graph)), stored(graph), atol=GOLDEN_TOLERANCE, rtol=0, err_msg=what)


def test_the_numbers_say_something() -> None:
    """Outputs that ignore their input, or that are saturated, would hide a change."""
    for graph in GRAPHS:
        values = stored(graph)
        assert values.shape[0] == ROWS
        assert values.std(axis=0).max() > 20 * GOLDEN_TOLERANCE
        assert np.abs(values).max() < 20, "and no NaN"


def test_the_formula_gives_what_it_did() -> None:
    """Else all the numbers would have to be written anew, and would say nothing of the networks."""
    np.testing.assert_allclose(uniform("a", (2, 2)), [[-0.1458973, 0.7218045], [0.1686566, -0.8663329]], atol=1e-6)
    many = uniform("b", (10_000,))
    assert abs(many.mean()) < 0.02
    assert abs(many.var() - 1 / 3) < 0.02


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("change", ["epsilon", "padding", "activation", "order of the channels"])
def test_a_shifted_function_is_noticed(change: str, number: int) -> None:
    """What another version might do to an encoder without any name or shape telling."""
    visual = deepcopy(model().visual).eval()  # a copied graph of torchvision is in train mode
    encoder = [visual.encoder, *visual.others][number]
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    if change == "epsilon":
        for norm in norms:
            norm.eps *= 10
    elif change == "padding":  # all of it on the left instead of the right
        strided = next(m for m in convolutions if m.stride == (2, 2))
        strided.register_forward_pre_hook(lambda _, args: (args[0].roll(1, dims=3),))
    elif change == "activation":
        norms[0].register_forward_hook(lambda _, __, out: torch.nn.functional.silu(out))
    else:
        encoder.register_forward_hook(lambda _, __, out: out.roll(1, dims=1))
    with torch.inference_mode():
        found = visual(torch.from_numpy(example("visual"))).numpy()
    assert np.abs(found - stored("visual")).max() > 5 * GOLDEN_TOLERANCE


def test_the_graph_holds_weights_once_and_paddings_as_constants() -> None:
    """Computed from the shape of every input, paddings cost an eighth of the encoder's time and cannot be fused."""
    weights = sum(parameter.numel() for parameter in model().visual.parameters())
    assert len(content("visual")) < 1.5 * 4 * weights, "an encoder of several views is there once"
    graph = onnx.load_from_string(content("visual")).graph
    made = {node.output[0]: node for node in graph.node}

    def depends_on_the_input(name: str) -> bool:
        return name == "input" or (name in made and any(depends_on_the_input(i) for i in made[name].input))

    pads = [node for node in graph.node if node.op_type == "Pad"]
    assert pads
    assert not any(depends_on_the_input(node.input[1]) for node in pads)


if __name__ == "__main__":
    write()
