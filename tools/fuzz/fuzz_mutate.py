"""Damage to inputs: to their bytes, to values inside JSON, to cells of a table."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

TOKENS = (
    b"\0",
    b"\xff",
    b'"',
    b"\n",
    b"\r",
    b",",
    b"[" * 3000,
    b"9" * 5000,
    b"1e999",
    b"null",
    b"-1",
    b"{}",
    b"\xed\xa0\x80",
)
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 2**63, 10**400, float("nan"), float("inf"), "", "\0", "a\nb", "\ud800", "/", "../x"),
    *("1", "é" * 300, [], {}, [[]], [0, 1], {"a": 1}, [None], {"": []}, "9" * 5000, [[1, 2, 3]], [["x", "y"]]),
)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One damaged copy: of the JSON or table in it, where there is one, half of the time."""
    if rng.random() < 0.5:
        for part in (_json, _cells):
            if (found := part(data, rng)) is not None:
                return found
    return _bytes(data, rng)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, length = rng.randrange(len(out) + 1), rng.randrange(1, 9)
        kind = rng.randrange(9)
        if kind < 2:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif kind < 4:
            del out[at : at + length]
        elif kind < 6:
            out[at:at] = out[at : at + length] * rng.randrange(1, 4)
        elif kind < 8:
            out[at : at + rng.randrange(3)] = rng.choice(TOKENS)
        else:
            del out[at:]
    return bytes(out)


def _json(data: bytes, rng: random.Random) -> bytes | None:
    """A value somewhere in the JSON replaced, left out or doubled; the JSON is all, all but a byte, or a line."""
    lines = data.split(b"\n")
    line = rng.randrange(len(lines))
    for before, text, after in (
        (b"", data, b""),
        (data[:1], data[1:], b""),
        (b"\n".join([*lines[:line], b""]), lines[line], b"\n".join([b"", *lines[line + 1 :]])),
    ):
        try:
            values = json.loads(text)
            places = list(_places(values))
            if places:
                rng.choice(places)(rng)
                return before + json.dumps(values).encode() + after
        except (ValueError, RecursionError):
            continue
    return None


def _places(values: Any) -> list[Callable[[random.Random], None]]:
    """What can be done to each value inside `values`."""
    found: list[Callable[[random.Random], None]] = []
    pending = [values]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        for key in keys:
            found.append(lambda rng, n=node, k=key: _change(n, k, rng))  # type: ignore[misc]
            pending.append(node[key])
    return found


def _change(node: Any, key: Any, rng: random.Random) -> None:
    kind = rng.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[rng.choice(("", "x", "path", "\ud800"))] = node.pop(key)
    elif kind == 1:
        node.insert(key, node[key])
    else:
        node[key] = rng.choice(VALUES)


def _cells(data: bytes, rng: random.Random) -> bytes | None:
    """A cell of a line with commas replaced by what no such cell should hold."""
    lines = data.split(b"\n")
    line = rng.randrange(len(lines))
    cells = lines[line].split(b",")
    if len(cells) < 2:
        return None
    value = rng.choice(VALUES)
    text = value if isinstance(value, str) else json.dumps(value)
    cells[rng.randrange(len(cells))] = b'"' + text.encode("utf-8", "surrogatepass").replace(b'"', b'""') + b'"'
    lines[line] = b",".join(cells)
    return b"\n".join(lines)
