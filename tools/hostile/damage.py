"""Good files, damaged: cut, bits flipped, rearranged, disguised, and with headers that say what is not so."""

import math
import struct
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

from hostile.case import TABLE, Case, Place, content
from hostile.parts import Part, order, parts

SEEDS: dict[str, str] = TABLE["seeds"]
_MOST_ALIKE = 2  # parts of one kind whose borders are cut at
# Cut like others: `fast.mp4` has the same boxes, but its index first, without which nothing is tried.
_LIKE_OTHERS = {"seed.mp4", "dash.mp4", "vp9.webm", "mp3.avi"}
_HEAD = 600  # bytes at either end that count as header
_FLIPS = 500
_REALS = (0.0, -1.0, 1e-300, 1e9, 1e300, math.inf, -math.inf, math.nan)
_SIZED = ("seed.mp4", "fragments.mp4", "seed.mov", "seed.mkv", "seed.webm", "seed.avi", "seed.wav", "seed.aiff")


def damages(seeds: Path) -> Iterator[Case]:
    for name in sorted(SEEDS.keys() - _LIKE_OTHERS):
        data = (seeds / name).read_bytes()
        places = {at + by for at in _borders(parts(data, _suffix(name))) for by in (-1, 0, 1)}
        for cut in sorted(place for place in places if place < len(data)):
            yield content("truncation", f"{name} at {cut}", _suffix(name), partial(_changed, name, cut, b"", len(data)))
    for number in range(_FLIPS):
        name = list(SEEDS)[number % len(SEEDS)]
        yield content("bit flips", f"{name} {number // len(SEEDS)}", _suffix(name), partial(_flip, name))
    for name in SEEDS:
        for how in ("zeros", "ones", "noise", "swapped", "doubled", "missing", "twice", "backwards"):
            yield content("rearranged", f"{name} {how}", _suffix(name), partial(_rearranged, name, how))
    yield from _impostors()
    yield from _header_lies(seeds)
    yield from _size_lies(seeds)


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]


def _borders(found: list[Part]) -> set[int]:
    """Where parts begin and end: of every kind of part, or of some spread over them where there are more."""
    alike: dict[bytes, list[Part]] = {}
    for part in found:
        alike.setdefault(part.kind, []).append(part)
    chosen = [same if kind == b"piece" else same[:: -(-len(same) // _MOST_ALIKE)] for kind, same in alike.items()]
    return {place for same in chosen for part in same for place in (part.start, part.end)} - {0}


def _changed(name: str, start: int, new: bytes, end: int, place: Place) -> bytes:
    data = place.seed(name)
    return data[:start] + new + data[end:]


def _flip(name: str, place: Place) -> bytes:
    data, rng = bytearray(place.seed(name)), place.rng
    headers = [at for part in parts(bytes(data), _suffix(name)) for at in range(part.start, part.payload)]
    for _ in range(rng.choice([1, 1, 2, 5, 20, 200])):
        head, tail = rng.randrange(min(_HEAD, len(data))), len(data) - 1 - rng.randrange(min(_HEAD, len(data)))
        at = rng.choice([rng.choice(headers), head, head, tail, rng.randrange(len(data))])
        data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
    return bytes(data)


def _rearranged(name: str, how: str, place: Place) -> bytes:
    data, rng = place.seed(name), place.rng
    one, other = sorted(rng.choices(parts(data, _suffix(name)), k=2), key=lambda part: part.start)
    at, length = rng.randrange(len(data)), rng.choice([64, 512, 4096])
    after, middle = data[at + length :], data[one.end : max(one.end, other.start)]
    return {
        "zeros": data[:at] + bytes(length) + after,
        "ones": data[:at] + b"\xff" * length + after,
        "noise": data[:at] + rng.randbytes(length) + after,
        "twice": data + data,
        "backwards": data[: _HEAD // 4] + data[_HEAD // 4 :][::-1],
        "missing": data[: one.start] + data[one.end :],
        "doubled": data[: one.end] + data[one.start :],
        "swapped": data[: one.start] + data[other.start : other.end] + middle + data[one.start : one.end],
    }[how]


def _impostors() -> Iterator[Case]:
    """Magic numbers and then noise, zeros or another file; files under another's name; hardly any bytes at all."""
    for name, text in TABLE["magic"].items():
        for tail in ("noise", "zeros", "seed.mp4", "seed.ts", "nothing"):
            data = partial(_impostor, text.encode("latin-1"), tail)
            yield content("impostor", f"{name} and {tail}", "mp4", data)
    for name in SEEDS:
        yield content("impostor", f"{name} named wrongly", "jpg.m3u8", partial(Place.seed, name=name))
    for length in (0, 1, 2, 3, 7, 11, 188):
        yield content("impostor", f"{length} bytes", "mp4", partial(_impostor, b"", "noise", noise=length))


def _impostor(magic: bytes, tail: str, place: Place, noise: int = 6000) -> bytes:
    if tail in SEEDS:
        return magic + place.seed(tail)
    return magic + {"noise": place.rng.randbytes(noise), "zeros": bytes(100_000), "nothing": b""}[tail]


def _header_lies(seeds: Path) -> Iterator[Case]:
    """Every field in the table, with every number that has ever hurt anybody."""
    for name, kinds in TABLE["fields"].items():
        data, suffix = (seeds / name).read_bytes(), _suffix(name)
        found = parts(data, suffix)
        for kind, fields in kinds.items():
            same = [part for part in found if part.kind == kind.encode()] if kind else [Part(b"", 0, 0, len(data))]
            for (which, part), field in product(enumerate(same[:2]), fields.split(", ")):
                label, at, values = _field(field, part, suffix)
                for value in values:
                    make = partial(_changed, name, at, value, at + len(value))
                    yield content("header lies", f"{name} {kind} {which} {label} = {value.hex()}", suffix, make)


def _field(field: str, part: Part, suffix: str) -> tuple[str, int, list[bytes]]:
    """(name, place in the file, bytes to put there) of a field of `part`."""
    length = part.end - part.payload
    if field.endswith(" real"):
        kind, limit = (">f", 3e38) if length == 4 else (">d", math.inf)
        reals = [math.copysign(math.inf, real) if abs(real) > limit else real for real in _REALS]
        return field, part.payload, [struct.pack(kind, real) for real in reals]
    name, at, size = field.rsplit(" ", 2) if field[-1].isdigit() else (field, "0", str(length))
    top = (1 << 8 * int(size)) - 1
    numbers = sorted({0, 1, top // 2, top // 2 + 1, top})
    return name, part.payload + int(at), [number.to_bytes(int(size), order(suffix)) for number in numbers]


def _size_lies(seeds: Path) -> Iterator[Case]:
    """Boxes, elements and chunks whose length is a lie."""
    for name in _SIZED:
        suffix, data = _suffix(name), (seeds / name).read_bytes()
        first = {part.kind: part for part in reversed(parts(data, suffix))}
        for kind, part in first.items():
            at, end, marker = part.start + (0 if suffix in ("mp4", "mov") else 4), part.payload, 0
            if suffix in ("mkv", "webm"):
                at = part.start + (len(kind) + 1) // 2
                marker = 1 << 7 * (end - at)
            end = end if marker else at + 4
            top = (marker or 1 << 32) - 1
            now = int.from_bytes(data[at:end], order(suffix)) & top
            for lie in sorted({0, now // 2, min(now * 2 + 1, top), top // 2, top}):
                make = partial(_changed, name, at, (marker | lie).to_bytes(end - at, order(suffix)), end)
                yield content("size lies", f"{name} length of {kind!r}: {lie}", suffix, make)
