"""Forge files: every method on every input, into one folder."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from avdetect.datasets.forgeries.audio import AUDIO, AUDIOVISUAL
from avdetect.datasets.forgeries.clip import METHODS
from avdetect.datasets.forgeries.face_files import face_forger
from avdetect.datasets.forgeries.job import SHORTEST_SECONDS, Input, Job, Segment, Unfit
from avdetect.datasets.forgeries.sound_files import sound_forger
from avdetect.datasets.forgeries.visual import VISUAL
from avdetect.errors import ConfigError, MediaError

Say = Callable[[str], None]


def listing() -> Iterator[str]:
    """A line for each method: its name, what it forges, what it does."""
    for label, methods in (("face", VISUAL), ("voice", AUDIO), ("match", AUDIOVISUAL)):
        for name, function in methods.items():
            inner: Any = function
            while isinstance(inner, partial):
                inner = inner.args[0]
            yield f"{name:18} {label:6} {inner.__doc__.splitlines()[0]}"


def forge(job: Job, methods: Sequence[str], count: int, warn: Say | None) -> None:
    """All forgeries of all inputs, `count` of each method. The manifest is written whatever ends it.

    warn: methods that an input cannot take are left out, and it is told; None: they are an error.
    Raises ConfigError, MediaError.
    """
    if (job.out / "forged.csv").exists():
        raise ConfigError(f"{job.out} holds a forged.csv already; name a new folder as --out")
    try:
        job.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {job.out}: {error.strerror}; name another as --out") from error
    try:
        for source in job.inputs:
            for number in range(count):
                _forge_input(job, source, number, methods, warn)
    finally:
        for source in job.inputs:
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


def _forge_input(job: Job, source: Input, count: int, methods: Sequence[str], warn: Say | None) -> None:
    for forger, named in (
        (face_forger, [name for name in methods if name in VISUAL]),
        (sound_forger, [name for name in methods if name not in VISUAL]),
    ):
        forge = None
        for name in named:
            try:
                forge = forge or forger(job, source, count)
                forge(name)
            except Unfit as error:
                if warn is None:
                    raise
                warn(f"left out: {name if forge else ', '.join(named)}: {error}")
                if forge is None:
                    break
