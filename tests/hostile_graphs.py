"""Graphs that nobody should run, and bundles that hold them. Every graph is one that `onnx` itself builds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from avdetect.bundle import DEFAULT_BUNDLE


def bundle_with(folder: Path, **files: bytes) -> Path:
    """The default bundle with other content of some files (`audio_onnx` is audio.onnx), and its hashes made to fit."""
    folder.mkdir(parents=True, exist_ok=True)
    values = json.loads((DEFAULT_BUNDLE / "bundle.json").read_text())
    named = {name.replace("_", ".") if name != "out_of_fold" else f"{name}.csv.gz": c for name, c in files.items()}
    for name in values["files"]:
        if name in named:
            (folder / name).write_bytes(named[name])
            values["files"][name] = hashlib.sha256(named[name]).hexdigest()
        else:
            (folder / name).symlink_to(DEFAULT_BUNDLE / name)  # as a download cache does it
    (folder / "bundle.json").write_text(json.dumps(values))
    return folder


def model(
    *nodes: NodeProto, tensors: Sequence[TensorProto] = (), domains: Sequence[str] = ("",), input_type: int = 1
) -> ModelProto:
    """A fusion graph, (N, 9) -> (N, 4) as its ports say; the nodes decide."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("input", input_type, ["n", 9])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 4])],
        list(tensors),
    )
    opsets = [helper.make_opsetid(domain, 17 if domain in ("", "ai.onnx") else 1) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def matmul() -> NodeProto:
    return helper.make_node("MatMul", ["input", "w"], ["output"])


def honest() -> ModelProto:
    return model(matmul(), tensors=[numpy_helper.from_array(np.ones((9, 4), np.float32), "w")])


def external(location: str, count: int = 36) -> TensorProto:
    """A weight that lies in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[9, 4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": str(4 * count)}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def constant(name: str, tensor: TensorProto) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=tensor)


def branch(graph: GraphProto) -> NodeProto:
    return helper.make_node("If", ["c"], ["w"], then_branch=graph, else_branch=graph)


def nested(depth: int, *inner: NodeProto) -> GraphProto:
    """`inner` inside so many branches."""
    outputs = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [9, 4])]
    for _ in range(depth):
        inner = (branch(helper.make_graph(list(inner), "b", [], outputs)),)
    return helper.make_graph(list(inner), "b", [], outputs)


def bomb(count: int) -> ModelProto:
    """A few bytes that become `count` numbers while the graph is loaded."""
    shape = numpy_helper.from_array(np.array([count], np.int64), "s")
    return model(constant("s", shape), helper.make_node("ConstantOfShape", ["s"], ["output"]))


def stated(dims: Sequence[int], data_type: int = TensorProto.FLOAT, raw: bytes = b"") -> TensorProto:
    return TensorProto(name="w", data_type=data_type, dims=dims, raw_data=raw)


def _with(change: Callable[[ModelProto], object]) -> ModelProto:
    made = honest()
    change(made)
    return made


def _loop() -> ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("go", 9, [])],
        [helper.make_tensor_value_info("on", 9, [])],
    )
    count = numpy_helper.from_array(np.array(2**62, np.int64), "m")
    return model(constant("m", count), helper.make_node("Loop", ["m", ""], [], body=body), matmul())


def _sparse(made: ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    made.graph.sparse_initializer.append(
        SparseTensorProto(values=values, indices=numpy_helper.from_array(np.zeros(1, np.int64), "i"), dims=[9, 4])
    )


def _sparse_attribute() -> ModelProto:
    node = helper.make_node("Constant", [], ["w"])
    attribute = node.attribute.add(name="sparse_value", type=11)
    attribute.sparse_tensor.dims.extend([9, 4])
    attribute.sparse_tensor.values.CopyFrom(external("x"))
    return model(node, matmul())


def _field(number: int, content: bytes) -> bytes:
    length = bytes([len(content)]) if len(content) < 128 else bytes([len(content) & 127 | 128, len(content) >> 7])
    return bytes([number << 3 | 2]) + length + content


def _twice() -> bytes:
    """Half a tensor and its other half: protobuf merges them into one of sixteen numbers."""
    half = _field(5, stated([4], raw=bytes(16)).SerializeToString())
    node = _field(2, b"w") + _field(4, b"Constant") + _field(5, _field(1, b"value") + half + half)
    return _field(7, _field(1, node) + model(matmul()).graph.SerializeToString()) + _field(8, b"\x10\x11")


# What it is -> the graph, and what the refusal must say.
GRAPHS: dict[str, tuple[Callable[[], ModelProto | bytes], str]] = {
    "external": (lambda: model(matmul(), tensors=[external("weights.bin")]), "external data"),
    "external, absolute": (lambda: model(matmul(), tensors=[external("/etc/passwd")]), "external data"),
    "external, above": (lambda: model(matmul(), tensors=[external("../" * 9 + "etc/passwd")]), "external data"),
    "external in memory": (lambda: model(matmul(), tensors=[external("*/_ORT_MEM_ADDR_/*")]), "external data"),
    "external constant": (lambda: model(constant("w", external("weights.bin")), matmul()), "external data"),
    "external in a branch": (
        lambda: model(branch(nested(1, constant("w", external("weights.bin")))), matmul()),
        "external data",
    ),
    "external in a list": (
        lambda: model(helper.make_node("X", [], [], tensors=[external("weights.bin")]), matmul()),
        "external data",
    ),
    "entry without location": (
        lambda: _with(lambda m: m.graph.initializer[0].external_data.add(key="location", value="x")),
        "external data",
    ),
    "custom operator": (
        lambda: model(helper.make_node("Evil", ["input"], ["output"], domain="my.ops"), domains=("", "my.ops")),
        r"operators of b'my\.ops'",
    ),
    "contrib operator": (
        lambda: model(helper.make_node("Gelu", ["input"], ["output"], domain="com.microsoft")),
        "com.microsoft",
    ),
    "custom opset": (lambda: model(matmul(), domains=("", "my.ops")), r"my\.ops"),
    "functions": (lambda: _with(lambda m: m.functions.add(name="f")), "functions of its own"),
    "training": (lambda: _with(lambda m: m.training_info.add()), "training"),
    "sparse": (lambda: _with(_sparse), "sparse tensors"),
    "sparse attribute": (_sparse_attribute, "sparse tensors"),
    "loop": (_loop, "a loop"),
    "deep": (lambda: model(branch(nested(9, constant("w", stated([1], raw=bytes(4))))), matmul()), "nested more than"),
    "many nodes": (lambda: model(*[helper.make_node("Neg", ["input"], ["output"])] * 20_001), "more than 20000 nodes"),
    "larger than the file": (lambda: model(matmul(), tensors=[stated([2**20, 2**20])]), "not as long as it says"),
    "overflowing": (lambda: model(matmul(), tensors=[stated([2**32, 2**32])]), "not as long as it says"),
    "negative": (lambda: model(matmul(), tensors=[stated([-9, -3], raw=bytes(108))]), "has the shape"),
    "of many sides": (lambda: model(matmul(), tensors=[stated([1] * 17, raw=bytes(4))]), "has the shape"),
    "shorter than the file": (lambda: model(matmul(), tensors=[stated([1], raw=bytes(108))]), "not as long as it says"),
    "a type of halves": (lambda: model(constant("w", stated([2], 22, b"x")), matmul()), "of type 22"),
    "text": (lambda: model(constant("w", helper.make_tensor("w", 8, [1], [b"x"])), matmul()), "text"),
    "other input": (lambda: model(matmul(), input_type=TensorProto.INT64), "its input must be"),
    "two inputs": (lambda: _with(lambda m: m.graph.input.add().CopyFrom(m.graph.output[0])), "its input must be"),
    "no output": (lambda: _with(lambda m: m.graph.ClearField("output")), "its output must be"),
    "other sides": (lambda: _with(lambda m: m.graph.output[0].type.tensor_type.shape.dim.pop()), "its output must be"),
    "twice": (_twice, "stands there twice"),
    "ORT format": (lambda: b"\x12\x7eabORTM" + bytes(120) + honest().SerializeToString(), "own format"),
    "no graph": (lambda: ModelProto(ir_version=8), "holds no graph"),
    "empty": (lambda: b"", "holds no graph"),
    "text file": (lambda: b"not a graph", "cut short|unknown"),
    "cut": (lambda: honest().SerializeToString()[:-9], "cut short"),
    "endless number": (lambda: b"\xff" * 100, "cut short"),
    "endless field": (lambda: b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "cut short"),
}


def content(name: str) -> bytes:
    made = GRAPHS[name][0]()
    return made if isinstance(made, bytes) else made.SerializeToString()
