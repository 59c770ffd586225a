"""ONNX graphs of whoever made them: read and judged before ONNX Runtime sees them, and run in bounded memory.

ONNX Runtime reads tensors from other files when a graph says so, and computes constants while it loads. So the protobuf
is walked here first, with the few fields that the exporters write; anything else is refused. What a graph computes when
it runs is bounded in memory (MAX_RUN_BYTES) and not in time: end the process for that (`max_file_seconds` does).

Own code, because the package `onnx` builds objects before anything can be counted: 10 MB of empty nodes became 744 MB
in memory, so a bundle's 512 MiB would become 40 GB. Field numbers: onnx/onnx.proto, IR version 13. Wire format:
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from avdetect._untrusted import read_regular
from avdetect.errors import ModelError

DOMAINS = (b"", b"ai.onnx")  # the operators of ONNX itself: no contrib ones of ONNX Runtime, no custom ones
MAX_NODES, MAX_DEPTH, MAX_DIMS, MAX_FIELDS = 20_000, 4, 16, 2_000_000
MAX_RUN_BYTES = 4 * 1024**3  # of all tensors of all graphs in a process
LOOPS = (b"Loop", b"Scan", b"SequenceMap")
# data_type -> bytes an element. No strings, complex numbers or packed halves of bytes: no network here has any.
SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
FLOAT, UINT8 = 1, 2
Shape = tuple[int | None, ...]  # None: any number, or one that is known only when the graph runs

# The messages of onnx.proto, field by field: v a varint, f four bytes, m a message or text; M, N (varints), F and D (of
# four and eight bytes) may be repeated. What is absent is refused: training, functions and references to their
# attributes, sparse tensors, sequences, maps, devices.
_WIRES = {"v": (0,), "f": (5,), "m": (2,), "M": (2,), "N": (0, 2), "F": (5, 2), "D": (1, 2)}
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {1: "v", 2: "m", 3: "m", 4: "m", 5: "v", 6: "m", 7: "m", 8: "M", 14: "M"},
    "opset": {1: "m", 2: "v"},
    "graph": {1: "M", 2: "m", 5: "M", 10: "m", 11: "M", 12: "M", 13: "M", 14: "M", 16: "M"},
    "node": {1: "M", 2: "M", 3: "m", 4: "m", 5: "M", 6: "m", 7: "m", 9: "M"},
    "attribute": {
        **{1: "m", 2: "f", 3: "v", 4: "m", 5: "m", 6: "m", 7: "F", 8: "N", 9: "M", 10: "M", 11: "M", 13: "m", 20: "v"},
    },
    "tensor": {
        **{1: "N", 2: "v", 4: "F", 5: "N", 7: "N", 8: "m", 9: "m", 10: "D", 11: "N", 12: "m", 13: "M", 14: "v"},
        **{16: "M"},
    },
    "value": {1: "m", 2: "m", 3: "m", 4: "M"},
    "type": {1: "m", 6: "m"},
    "tensor type": {1: "v", 2: "m"},
    "shape": {1: "M"},
    "side": {1: "v", 2: "m", 3: "m"},
}
_NAMED = {
    **{("model", 20): "training", ("model", 25): "functions of its own", ("graph", 15): "sparse tensors"},
    **{("tensor", 6): "text", ("attribute", 21): "a function's attribute", ("attribute", 22): "sparse tensors"},
    **{("attribute", 23): "sparse tensors", ("type", 4): "sequences", ("type", 5): "maps"},
}


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
    except _Refused as error:
        raise ModelError(
            f"{name} is refused: {error}. Export it anew as one plain ONNX file, from a source that you trust"
        ) from error


class _Model:
    """What a ModelProto holds; reading it raises _Refused."""

    def __init__(self, content: bytes) -> None:
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self._fields, self._nodes = 0, 0
        found = self._read(memoryview(content), "model")
        if not found[7]:
            raise _Refused("it holds no graph")
        for opset in found[8]:
            self._check_domain(self._read(opset, "opset")[1])
        self._graph(found[7][0], 0)

    def _read(self, data: memoryview, message: str) -> dict[int, list[Any]]:
        """Field -> its values, of a message that has no fields but the known ones."""
        known = _MESSAGES[message]
        found: dict[int, list[Any]] = {number: [] for number in known}
        for number, wire, value in _fields(data):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise _Refused(f"it has more than {MAX_FIELDS} fields")
            kind = known.get(number)
            if kind is None or wire not in _WIRES[kind]:
                what = _NAMED.get((message, number), "unknown")
                raise _Refused(f"field {number} of a {message} ({what}) is not taken")
            if kind.islower() and found[number]:
                # Protobuf would merge the two, and neither of them shows what they make together.
                raise _Refused(f"field {number} of a {message} stands there twice")
            found[number].append(value)
        return found

    def _check_domain(self, values: list[memoryview]) -> None:
        for value in values:
            if bytes(value) not in DOMAINS:
                raise _Refused(f"it needs operators of {bytes(value[:60])!r}, and only ONNX's own are run")

    def _graph(self, data: memoryview, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _Refused(f"its graphs are nested more than {MAX_DEPTH} deep")
        found = self._read(data, "graph")
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
        found = self._read(data, "node")
        self._check_domain(found[7])
        kind = bytes(found[4][0]) if found[4] else b""
        if kind in LOOPS:
            raise _Refused(f"it has a loop ({kind.decode()})")
        for attribute in found[5]:
            values = self._read(attribute, "attribute")
            for tensor in (*values[5], *values[10]):
                self._tensor(tensor)
            for graph in (*values[6], *values[11]):
                self._graph(graph, depth + 1)

    def _tensor(self, data: memoryview) -> None:
        """Each tensor is here, all of it, and nothing but it."""
        found = self._read(data, "tensor")
        if found[13] or any(found[14]):
            raise _Refused("a tensor lies in another file (external data)")
        kind = found[2][0] if found[2] else 0
        if kind not in SIZES:
            raise _Refused(f"a tensor is of type {kind}, which plain networks do not use")
        dims = [_signed(value) for value in islice(_numbers(found[1]), MAX_DIMS + 1)]
        if len(dims) > MAX_DIMS or min(dims, default=0) < 0:
            raise _Refused(f"a tensor has the shape {dims[:8]}")
        count = math.prod(dims)
        fixed = _bytes_of(found[9], 0) + _bytes_of(found[4], 4) + _bytes_of(found[10], 8)
        variable = sum(_bytes_of(found[number], 1) for number in (5, 7, 11))  # 1 to 10 bytes a number
        whole = fixed == count * SIZES[kind] and not variable
        if not whole and not (count <= variable <= 10 * count and not fixed):
            raise _Refused(f"a tensor of shape {dims[:8]} is not as long as it says")

    def _port(self, data: memoryview) -> Port:
        for value in self._read(data, "value")[2]:
            for tensor in self._read(value, "type")[1]:
                stated = self._read(tensor, "tensor type")
                dims = [self._read(d, "side")[1] for s in stated[2] for d in self._read(s, "shape")[1]]
                return Port(stated[1][0] if stated[1] else 0, tuple(_signed(d[0]) if d else None for d in dims))
        return Port(0, ())


def _fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of each field: an int of a varint, else the bytes."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        wire = tag & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield tag >> 3, wire, value
            continue
        length = {1: 8, 5: 4}.get(wire, -1)
        if wire == 2:
            length, place = _varint(data, place)
        if not 0 <= length <= len(data) - place:
            raise _Refused("it is no protobuf of its kind, or it is cut short")
        yield tag >> 3, wire, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """The number of variable length at `place`, and the place behind it."""
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value & (2**64 - 1), place  # as protobuf does
    raise _Refused("it is no protobuf of its kind, or it is cut short")


def _numbers(values: Sequence[Any]) -> Iterator[int]:
    """Varints that stand alone or are packed; both are written."""
    for value in values:
        if isinstance(value, int):
            yield value
            continue
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            yield number


def _bytes_of(values: Sequence[Any], alone: int) -> int:
    """Bytes of packed numbers, and of those that stand alone."""
    return sum(alone if isinstance(value, int) else len(value) for value in values)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def session_options(threads: int) -> Any:
    """Options of an ONNX Runtime session whose tensors share MAX_RUN_BYTES with all other sessions of this process."""
    import onnxruntime

    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is said by the exception
    options.enable_mem_pattern = False  # it would keep the room of every shape of input that came along
    # One branch after the other: else the maps of all views of a face are held at once, a fifth more memory.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
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


def shipped_network(path: Path, max_bytes: int, whose: str, providers: Sequence[str]) -> tuple[Any, bytes]:
    """A session, of one thread, of a small graph that ships with the package, and the file's content: what was checked
    is what runs. Raises ModelError; `whose` begins the message."""
    import onnxruntime  # lazily: 0.2 s

    try:
        content = read_regular(path, max_bytes)
        check_graph(content, str(path))
        options = session_options(threads=1)
        options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(content, options, providers=list(providers)), content
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        why = getattr(error, "strerror", None) or error
        remedy = "name a file that is whole, or, if you named none, reinstall avdetect"
        raise ModelError(f"{whose} weights in {path} cannot be loaded ({why}); {remedy}") from error
