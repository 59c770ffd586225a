"""ONNX graphs of whoever made them: read and judged before ONNX Runtime sees them, and run in bounded memory.

ONNX Runtime reads tensors from other files when a graph says so, and computes constants while it loads. So the protobuf
is walked here first, with the few fields that the exporters write; anything else is refused. What a graph computes when
it runs is bounded in memory (MAX_RUN_BYTES) and not in time: end the process for that (`max_file_seconds` does).

Field numbers: onnx/onnx.proto, IR version 13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from avdetect._protobuf import bytes_of, fields, numbers, signed
from avdetect.errors import ModelError

DOMAINS = (b"", b"ai.onnx")  # the operators of ONNX itself: no contrib ones of ONNX Runtime, no custom ones
MAX_NODES, MAX_DEPTH, MAX_DIMS, MAX_FIELDS = 20_000, 4, 16, 2_000_000
MAX_RUN_BYTES = 4 * 1024**3  # of all tensors of all graphs in a process
LOOPS = (b"Loop", b"Scan", b"SequenceMap")
# data_type -> bytes an element. No strings, complex numbers or packed halves of bytes: no network here has any.
SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
FLOAT, UINT8 = 1, 2
Shape = tuple[int | None, ...]  # None: any number, or one that is known only when the graph runs


class _Refused(ValueError):
    """Why; `check_graph` says of what."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph."""

    data_type: int
    shape: Shape

    def takes(self, other: Port) -> bool:
        """Whether `other` is of this type and rank, and of the sides that are known."""
        return (self.data_type, len(self.shape)) == (other.data_type, len(other.shape)) and all(
            b in (None, a) or a is None for a, b in zip(self.shape, other.shape, strict=True)
        )


def check_graph(content: bytes, name: str, ports: tuple[Port, Port] | None = None) -> None:
    """Raises ModelError unless `content` is a graph of ONNX's own operators that names no other file.

    ports: the one input and the one output that it must have.
    """
    try:
        if content[4:8] == b"ORTM":  # ONNX Runtime would take it for its own format, whatever else it is
            raise _Refused("it is in ONNX Runtime's own format")
        graph = _Model(content)
        if ports is not None:
            for kind, wanted, found in (("input", ports[0], graph.inputs), ("output", ports[1], graph.outputs)):
                if len(found) != 1 or not wanted.takes(found[0]):
                    raise _Refused(f"its {kind} must be one tensor like {wanted}, it has {found}"[:300])
    except ValueError as error:  # of ours, or of the wire format
        raise ModelError(
            f"{name} is refused: {error}. Export it anew as one plain ONNX file, from a source that you trust"
        ) from error


class _Model:
    """What a ModelProto holds; reading it raises _Refused."""

    def __init__(self, content: bytes) -> None:
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self._fields, self._nodes = 0, 0
        found = self._read(memoryview(content), "model", _MODEL)
        if not found[7]:
            raise _Refused("it holds no graph")
        for opset in found[8]:
            self._check_domain(self._read(opset, "opset", _OPSET)[1])
        self._graph(found[7][0], 0)

    def _read(self, data: memoryview, what: str, known: dict[int, str]) -> dict[int, list[Any]]:
        """Field -> its values, of a message that has no fields but the known ones; `_MODEL` says how they are known."""
        found: dict[int, list[Any]] = {number: [] for number in known}
        for number, wire, value in fields(data):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise _Refused(f"it has more than {MAX_FIELDS} fields")
            kind = known.get(number)
            if kind is None or wire not in _WIRES[kind]:
                raise _Refused(f"field {number} of a {what} ({_NAMED.get((what, number), 'unknown')}) is not taken")
            if kind.islower() and found[number]:
                # Protobuf would merge the two, and neither of them shows what they make together.
                raise _Refused(f"field {number} of a {what} stands there twice")
            found[number].append(value)
        return found

    def _check_domain(self, values: list[memoryview]) -> None:
        for value in values:
            if bytes(value) not in DOMAINS:
                raise _Refused(f"it needs operators of {bytes(value[:60])!r}, and only ONNX's own are run")

    def _graph(self, data: memoryview, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _Refused(f"its graphs are nested more than {MAX_DEPTH} deep")
        found = self._read(data, "graph", _GRAPH)
        self._nodes += len(found[1])
        if self._nodes > MAX_NODES:
            raise _Refused(f"it has more than {MAX_NODES} nodes")
        for tensor in found[5]:
            self._tensor(tensor)
        for node in found[1]:
            self._node(node, depth)
        if depth == 0:
            self.inputs = [self._port(port) for port in found[11]]
            self.outputs = [self._port(port) for port in found[12]]

    def _node(self, data: memoryview, depth: int) -> None:
        found = self._read(data, "node", _NODE)
        self._check_domain(found[7])
        kind = bytes(found[4][0]) if found[4] else b""
        if kind in LOOPS:
            raise _Refused(f"it has a loop ({kind.decode()})")
        for attribute in found[5]:
            values = self._read(attribute, "attribute", _ATTRIBUTE)
            for tensor in (*values[5], *values[10]):
                self._tensor(tensor)
            for graph in (*values[6], *values[11]):
                self._graph(graph, depth + 1)

    def _tensor(self, data: memoryview) -> None:
        """Each tensor is here, all of it, and nothing but it."""
        found = self._read(data, "tensor", _TENSOR)
        if found[13] or any(found[14]):
            raise _Refused("a tensor lies in another file (external data)")
        kind = found[2][0] if found[2] else 0
        if kind not in SIZES:
            raise _Refused(f"a tensor is of type {kind}, which plain networks do not use")
        dims = [signed(value) for value in islice(numbers(found[1]), MAX_DIMS + 1)]
        if len(dims) > MAX_DIMS or min(dims, default=0) < 0:
            raise _Refused(f"a tensor has the shape {dims[:8]}")
        count = math.prod(dims)
        fixed = bytes_of(found[9], 0) + bytes_of(found[4], 4) + bytes_of(found[10], 8)
        variable = sum(bytes_of(found[number], 1) for number in (5, 7, 11))  # 1 to 10 bytes a number
        whole = fixed == count * SIZES[kind] and not variable
        if not whole and not (count <= variable <= 10 * count and not fixed):
            raise _Refused(f"a tensor of shape {dims[:8]} is not as long as it says")

    def _port(self, data: memoryview) -> Port:
        for value in self._read(data, "value", _VALUE)[2]:
            for tensor in self._read(value, "type", _TYPE)[1]:
                stated = self._read(tensor, "tensor type", _TENSOR_TYPE)
                dims = [self._read(d, "side", _DIM)[1] for s in stated[2] for d in self._read(s, "shape", _SHAPE)[1]]
                return Port(stated[1][0] if stated[1] else 0, tuple(signed(d[0]) if d else None for d in dims))
        return Port(0, ())


# The messages of onnx.proto, field by field: v a varint, f four bytes, m a message or text; M, N (varints), F and D (of
# four and eight bytes) may be repeated. What is absent is refused: training, functions and references to their
# attributes, sparse tensors, sequences, maps, devices.
_WIRES = {"v": (0,), "f": (5,), "m": (2,), "M": (2,), "N": (0, 2), "F": (5, 2), "D": (1, 2)}
_MODEL = {1: "v", 2: "m", 3: "m", 4: "m", 5: "v", 6: "m", 7: "m", 8: "M", 14: "M"}
_OPSET = {1: "m", 2: "v"}
_GRAPH = {1: "M", 2: "m", 5: "M", 10: "m", 11: "M", 12: "M", 13: "M", 14: "M", 16: "M"}
_NODE = {1: "M", 2: "M", 3: "m", 4: "m", 5: "M", 6: "m", 7: "m", 9: "M"}
_ATTRIBUTE = {
    **{1: "m", 2: "f", 3: "v", 4: "m", 5: "m", 6: "m", 7: "F", 8: "N", 9: "M", 10: "M", 11: "M", 13: "m", 20: "v"},
}
_TENSOR = {
    **{1: "N", 2: "v", 4: "F", 5: "N", 7: "N", 8: "m", 9: "m", 10: "D", 11: "N", 12: "m", 13: "M", 14: "v", 16: "M"},
}
_VALUE = {1: "m", 2: "m", 3: "m", 4: "M"}
_TYPE = {1: "m", 6: "m"}
_TENSOR_TYPE = {1: "v", 2: "m"}
_SHAPE = {1: "M"}
_DIM = {1: "v", 2: "m", 3: "m"}
_NAMED = {
    ("model", 20): "training",
    ("model", 25): "functions of its own",
    ("graph", 15): "sparse tensors",
    ("tensor", 6): "text",
    ("attribute", 21): "a function's attribute",
    ("attribute", 22): "sparse tensors",
    ("attribute", 23): "sparse tensors",
    ("type", 4): "sequences",
    ("type", 5): "maps",
}


def session_options(threads: int) -> Any:
    """Options of an ONNX Runtime session whose tensors share MAX_RUN_BYTES with all other sessions of this process."""
    import onnxruntime

    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is said by the exception
    options.enable_mem_pattern = False  # it would keep the room of every shape of input that came along
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@cache
def _bound_memory() -> None:
    """Constants are computed while a graph loads, so that a file of a few bytes could fill any memory."""
    import onnxruntime

    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": MAX_RUN_BYTES}))
