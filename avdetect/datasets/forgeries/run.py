"""Forge files: every method on every input, into one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from avdetect.config import PreprocessConfig
from avdetect.datasets.forgeries.audio import AUDIO
from avdetect.datasets.forgeries.audiovisual import AUDIOVISUAL
from avdetect.datasets.forgeries.clip import METHODS
from avdetect.datasets.forgeries.face_files import face_forger
from avdetect.datasets.forgeries.inputs import Unfit, open_inputs
from avdetect.datasets.forgeries.job import SHORTEST_SECONDS, Job, Segment
from avdetect.datasets.forgeries.sound_files import sound_forger
from avdetect.datasets.forgeries.visual import VISUAL
from avdetect.errors import ConfigError, MediaError
from avdetect.faces import build_detector

Say = Callable[[str], None]


def listing() -> Iterator[str]:
    """A line for each method: its name, what it forges, what it does."""
    for label, methods in (("face", VISUAL), ("voice", AUDIO), ("match", AUDIOVISUAL)):
        for name, function in methods.items():
            inner: Callable[..., object] = function
            while isinstance(inner, partial) and inner.args:
                inner = inner.args[0]
            text = (inner.__doc__ or "").strip().splitlines()
            yield f"{name:18} {label:6} {text[0] if text else ''}"


def forge(
    paths: Sequence[Path],
    out: Path,
    methods: Sequence[str],
    segment: Segment | None,
    *,
    seed: int,
    count: int,
    split: str,
    control: bool,
    lenient: bool,
    say: Say,
    warn: Say,
) -> None:
    """All forgeries of all inputs, `count` of each method. Manifest and contact sheet are written whatever ends it.

    segment: None for random ones. lenient: methods that an input cannot take are left out, which `warn` is told.
    Raises ConfigError, MediaError.
    """
    if (out / "forged.csv").exists():
        raise ConfigError(f"{out} holds a forged.csv already; name a new folder as --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {out}: {error.strerror}; name another as --out") from error
    config = PreprocessConfig()
    detector = build_detector(config.detector)
    inputs = open_inputs(paths)
    job = Job(out, inputs, segment, seed, split, control, detector, config.faces, say)
    try:
        for index in range(len(inputs)):
            for number in range(count):
                _forge_input(job, index, number, methods, warn if lenient else None)
    finally:
        for source in inputs:
            source.reader.close()
        job.finish()
    if not any(row["fake"] for row in job.rows):
        raise MediaError("nothing was forged: no input has what the methods need (see above)")


def methods_of(names: Sequence[str]) -> list[str]:
    """The methods of these names, each once; "all" stands for every one. Raises ConfigError."""
    for name in names:
        if name not in (*METHODS, "all"):
            raise ConfigError(f"there is no method {name!r}; known: all, {', '.join(METHODS)}")
    return list(METHODS) if "all" in names else list(dict.fromkeys(names))


def segment_of(words: Sequence[str]) -> Segment | None:
    """START and END in seconds; None for "random". Raises ConfigError."""
    if list(words) == ["random"]:
        return None
    try:
        start, end = (float(word) for word in words)
    except ValueError:
        raise ConfigError(f"--segment takes START END in seconds, or random; got {' '.join(words)}") from None
    if not 0 <= start < start + SHORTEST_SECONDS <= end < 1e6:
        raise ConfigError(f"--segment must last {SHORTEST_SECONDS:g} s or more and begin at 0 or later")
    return start, end


def _forge_input(job: Job, index: int, count: int, methods: Sequence[str], warn: Say | None) -> None:
    """All methods on one input; with `warn` those that it cannot take are left out, and it is told."""
    parts: list[tuple[list[str], Callable[[], Callable[[str], None]]]] = [
        ([name for name in methods if name in VISUAL], partial(face_forger, job, index, count)),
        ([name for name in methods if name not in VISUAL], partial(sound_forger, job, index, count)),
    ]
    for names, prepare in parts:
        forge = None
        for name in names:
            try:
                forge = forge or prepare()
                forge(name)
            except Unfit as error:
                if warn is None:
                    raise
                warn(f"left out: {', '.join(names) if forge is None else name}: {error}")
                if forge is None:
                    break
