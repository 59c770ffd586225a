"""Damage to inputs: to their bytes, and to values of the JSON or table in them."""

from __future__ import annotations

import json
import random
import re
from typing import Any

_TOKENS = (b"\0", b"\xff", b'"', b"\n", b"\r", b",", b"[" * 3000, b"9" * 5000, b"1e999", b"{}", b"\xed\xa0\x80")
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 2**63, 10**400, float("nan"), float("inf"), "", "\0", "a\nb", "\ud800", "/", "../x"),
    *("1", "é" * 300, [], {}, [[]], [0, 1], {"a": 1}, [None], {"": []}, "9" * 5000, [[1, 2, 3]], [["x", "y"]]),
)
# A text, a small list or object, a word or number of JSON; a cell of a table.
_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|\[[^\[\]]*\]|\{[^{}]*\}|[-+.\w]+|(?<=,)(?=[,\n])')


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One damaged copy: of a value in it, where there is one, half of the time: another, none, or the same twice."""
    found = list(_VALUE.finditer(data)) if rng.random() < 0.5 else []
    if not found:
        return _bytes(data, rng)
    place, value = rng.choice(found), rng.choice(_VALUES)
    new = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    cell = b'"' + new.replace(b'"', b'""') + b'"'  # as a table has it
    new = rng.choice((new, new, cell, cell, b"", place[0] + b"," + place[0]))
    return data[: place.start()] + new + data[place.end() :]


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
            out[at : at + rng.randrange(3)] = rng.choice(_TOKENS)
        else:
            del out[at:]
    return bytes(out)
