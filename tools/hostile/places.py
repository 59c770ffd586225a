"""Odd names, what is no quiet regular file, files that change while they are scored, files that name others."""

import os
import shutil
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from hostile.case import SAMPLE, TABLE, Case, Place, content, fixed, run_ffmpeg
from hostile.made import box, element, matroska, pcm_track
from hostile.parts import parts

FORMS: dict[str, str] = TABLE["forms"]
TARGETS: dict[str, str] = TABLE["targets"]
# Names that are none, or that no folder can hold.
_ALONE = ("nul\0.mp4", "x" * 5000, "x/" * 3000, "a" * 256, "", "/", ".", "..", "\0")


def places() -> Iterator[Case]:
    known = [*map(os.fsencode, TABLE["names"]["text"]), *(name.encode("latin-1") for name in TABLE["names"]["latin"])]
    for name in map(os.fsdecode, (*known, b"x" * 251 + b".mp4", b"a" * 255)):
        yield Case("names", f"{name!a}", partial(_copied, "seed.wav", name), scored=True)
        yield Case("names", f"{name!a} is absent", partial(_inside, name), error="cannot open")
    for name in _ALONE:
        label = f"{name[:20]!a}…{len(name)}"
        yield Case("names", label, fixed(str, name), error="cannot open|regular file")
    for name in TABLE["names"]["system"].split():
        yield Case("no file", f"/{name}", fixed(str, f"/{name}"), error=".")
    for table, error in (("refused", "."), ("scored", None), ("sparse", None), ("forbidden", "ermission")):
        for name, script in TABLE[table].items() if table != "forbidden" or os.geteuid() else ():
            yield Case("no file", name, partial(_by_bash, script), error=error, scored=table == "scored")
    for name, script in TABLE["restless"].items():
        for source in ("seed.ts", "seed.mp4", "seed.wav", "sample.mp4"):
            for delay in (0.0, 0.03, 0.1):
                label = f"{source} {name} after {delay} s"
                yield Case("restless files", label, partial(_copied, source, source), partial(_disturb, delay, script))


def _inside(name: str, place: Place) -> Path:
    return place.folder / name


def _copied(source: str, name: str, place: Place) -> Path:
    return Path(shutil.copy(SAMPLE if source == "sample.mp4" else place.seeds / source, place.folder / name))


def _by_bash(script: str, place: Place) -> Path:
    script, _, path = script.partition("|")
    seeds = {"seed": str(place.seeds / "seed.wav"), "film": str(place.seeds / "seed.ts")}
    subprocess.run(["bash", "-ec", script], cwd=place.folder, env=os.environ | seeds, check=True, timeout=60)
    return next(place.folder.rglob("x.mp4")) if path.startswith("*") else place.folder / (path or "x.mp4")


def _disturb(delay: float, script: str, path: Path, over: threading.Event) -> None:
    over.wait(delay)
    command = ["bash", "-c", script]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(command, cwd=path.parent, env=os.environ | {"file": str(path)}, **quiet)  # type: ignore[call-overload]
    over.wait()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def references() -> Iterator[Case]:
    """Every form with some targets, and every target with some forms; and references within real containers."""
    for number, form in enumerate(FORMS):
        for other, target in enumerate(TARGETS):
            if other < 5 or number < 2 or (number + other) % 4 == 0:
                suffix = ("mp4", "m3u8", "ts", "mov", "avi")[(number + other) % 5]
                yield content("playlists", f"{form} to {target}", suffix, partial(_filled, form, target))
    inside: dict[str, tuple[str, Callable[[str, Place], bytes]]] = {
        "MP4 whose data is elsewhere by alis": ("mov", partial(_reference, b"alis")),
        "MP4 whose data is elsewhere by url": ("mov", partial(_reference, b"url ")),
        "MP4 whose data is elsewhere by rsrc": ("mov", partial(_reference, b"rsrc")),
        "MP4 whose movie is elsewhere": ("mov", _reference_movie),
        "Matroska that goes on elsewhere": ("mkv", _linked),
        "AVI after a playlist": ("avi", _gab2),
        "a picture that is elsewhere": ("mp3", _picture_link),
    }
    for target in TARGETS:
        for name, (suffix, data) in inside.items():
            yield content("references", f"{name}: {target}", suffix, partial(data, target))
    for form in ("hls", "concat", "dash", "subtitles", "ass"):
        yield Case("references", f"{form} attached to Matroska", partial(_attached, form), scored=True)
    for suffix in ("ts", "mp4", "mkv", "wav"):
        for side in ("before", "behind"):
            yield content("references", f"a playlist {side} {suffix}", suffix, partial(_mixed, suffix, side))


def _url(target: str, place: Place) -> bytes:
    return TARGETS[target].format(secret=place.secret).encode()


def _filled(form: str, target: str, place: Place) -> bytes:
    return FORMS[form].replace("{target}", _url(target, place).decode()).encode()


def _reference(kind: bytes, target: str, place: Place) -> bytes:
    """The data reference of both tracks, not self-contained any more; the boxes around it grow."""
    data, url = place.seed("seed.mp4"), _url(target, place)
    alias = bytes(150) + struct.pack(">HH", 2, len(url)) + url + bytes(len(url) % 2) + struct.pack(">HH", 65535, 0)
    entry = box(kind, bytes(4) + (alias if kind == b"alis" else url + b"\0"))
    for number in (1, 0):
        found = parts(data, "mp4")
        dref = [part for part in found if part.kind == b"dref"][number]
        whole = box(b"dref", struct.pack(">II", 0, 1) + entry)
        out = bytearray(data[: dref.start] + whole + data[dref.end :])
        for part in found:
            if part.start < dref.start and part.end >= dref.end:
                size = part.end - part.start + len(whole) - (dref.end - dref.start)
                out[part.start : part.start + 4] = size.to_bytes(4)
        data = bytes(out)
    return data


def _reference_movie(target: str, place: Place) -> bytes:
    url = _url(target, place) + b"\0"
    reference = box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(url)) + url)
    return box(b"ftyp", b"qt  " + bytes(4) + b"qt  ") + box(b"moov", box(b"rmra", box(b"rmda", reference)))


def _linked(target: str, place: Place) -> bytes:
    """Matroska's names of the file before and the file after; a codec that lies at an address."""
    url = _url(target, place)
    track = pcm_track(1).replace(b"A_PCM/INT/LIT", b"A_QUICKTIME\0\0") + element(0x3B4040, url) + element(0x26B240, url)
    return matroska(track, element(0x1549A966, element(0x3C83AB, url) + element(0x3E83BB, url)))


def _gab2(target: str, place: Place) -> bytes:
    """A chunk of AVI whose subtitles are a playlist: ffmpeg guesses their format (CVE-2016-1897 and its kin)."""
    data, text = place.seed("seed.avi"), _filled("hls", target, place)
    gab2 = b"GAB2\0\2\0" + struct.pack("<I", 2) + b"x\0" + b"\4\0" + struct.pack("<I", len(text)) + text
    header = data.replace(b"auds", b"txts").replace(b"01wb", b"01tx")
    at = header.index(b"movi") + 4
    return header[:at] + b"01tx" + struct.pack("<I", len(gab2)) + gab2 + bytes(len(gab2) % 2) + header[at:]


def _picture_link(target: str, place: Place) -> bytes:
    """ID3's way to say that the cover is at an address."""
    inside = b"\0-->\0\3\0" + _url(target, place)
    frame = b"APIC" + struct.pack(">I", len(inside)) + b"\0\0" + inside
    size = bytes((len(frame) >> 7 * n) & 127 for n in (3, 2, 1, 0))
    return b"ID3\3\0\0" + size + frame + place.seed("seed.mp3")


def _attached(form: str, place: Place) -> Path:
    attachment = place.folder / "attachment"
    attachment.write_bytes(_filled(form, "the server", place))
    options = ["-i", place.seeds / "seed.mkv", "-c", "copy", "-attach", attachment]
    out = run_ffmpeg([*options, "-metadata:s:t", "mimetype=text/x-ssa"], place.folder / "case.mkv")
    attachment.unlink()
    return out


def _mixed(suffix: str, side: str, place: Place) -> bytes:
    text, data = _filled("hls", "the server", place), place.seed(f"seed.{suffix}")
    return text + data if side == "before" else data + text
