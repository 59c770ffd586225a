"""Forge the face, the voice or their match inside a segment of genuine videos, and write playable files.

    python tools/forge.py interview.mp4 lecture.mp4 --out forged
    python tools/forge.py interview.mp4 --out forged --method mouth_swap --method world --segment 2 5

Writes one file a method into --out, `contact.png` (original, forged and difference) and `forged.csv`, a manifest that
can be trained on as it is: it takes the inputs to be genuine. Files are H.264 at 25 fps and the source's resolution, or
keep the source's video as it is when the voice is forged (AAC, 16 kHz, mono). The genuine file is written through the
same encoder, as `control-video` and `control-sound`: the real rows of the manifest, and the `original` of the forged
ones. Several inputs serve as each other's "other person"; those that did share a group. The same seed gives the same
forgeries.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from avdetect.config import PreprocessConfig
from avdetect.errors import AVDetectError, ConfigError, MediaError
from avdetect.extras import script_imports
from avdetect.faces import build_detector

with script_imports("forge", "train"):
    from avdetect.datasets.forgeries.audio import AUDIO
    from avdetect.datasets.forgeries.audiovisual import AUDIOVISUAL
    from avdetect.datasets.forgeries.clip import METHODS
    from avdetect.datasets.forgeries.face_files import face_forger
    from avdetect.datasets.forgeries.inputs import Unfit, open_inputs
    from avdetect.datasets.forgeries.job import SHORTEST_SECONDS, Job, Segment
    from avdetect.datasets.forgeries.sound_files import sound_forger
    from avdetect.datasets.forgeries.visual import VISUAL


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    if args.list:
        print("\n".join(_listing()))
        return 0
    try:
        run(args)
    except AVDetectError as error:
        print(f"forge: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("forge: interrupted; what was finished stands in forged.csv", file=sys.stderr)
        return 130
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path, metavar="INPUT", help="genuine videos (or sound files)")
    parser.add_argument("--out", type=Path, help="folder of the results; must hold no forged.csv yet")
    parser.add_argument(
        "--method", nargs="+", action="extend", metavar="NAME", help="names of --list, or all (default); adds up"
    )
    parser.add_argument(
        "--segment", nargs="+", default=["random"], metavar="S", help="START END in seconds, or random (default)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    parser.add_argument("--count", type=int, default=1, help="forgeries an input and method (default 1)")
    parser.add_argument(
        "--control",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write the genuine file through the same encoder. Do not train on what --no-control gives: it holds no "
        "real rows, and beside your own files the codec, the sample rate and the channels alone would tell the fakes",
    )
    parser.add_argument("--split", choices=("train", "dev", "test"), default="train", help="of the manifest's rows")
    parser.add_argument("--list", action="store_true", help="name the methods and end")
    return parser


def _listing() -> Iterator[str]:
    for label, methods in (("face", VISUAL), ("voice", AUDIO), ("match", AUDIOVISUAL)):
        for name, function in methods.items():
            inner: Callable[..., object] = function
            while isinstance(inner, partial) and inner.args:
                inner = inner.args[0]
            text = (inner.__doc__ or "").strip().splitlines()
            yield f"{name:18} {label:6} {text[0] if text else ''}"


def run(args: argparse.Namespace) -> None:
    """All forgeries of all inputs. The manifest and the sheet are written whatever ends it."""
    methods, segment = _methods(args.method or ["all"]), _segment(args.segment)
    if not args.inputs or args.out is None:
        raise ConfigError("name at least one INPUT and a folder as --out (or --list)")
    if args.count < 1 or args.seed < 0:
        raise ConfigError("--count must be at least 1 and --seed at least 0")
    if (args.out / "forged.csv").exists():
        raise ConfigError(f"{args.out} holds a forged.csv already; name a new folder as --out")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {args.out}: {error.strerror}; name another as --out") from error
    config = PreprocessConfig()
    detector = build_detector(config.detector)
    inputs = open_inputs(args.inputs)
    say = partial(print, flush=True)
    job = Job(args.out, inputs, segment, args.seed, args.split, args.control, detector, config.faces, say)
    try:
        for index in range(len(inputs)):
            for count in range(args.count):
                _forge_input(job, index, count, methods, lenient="all" in (args.method or ["all"]))
    finally:
        for source in inputs:
            source.reader.close()
        job.finish()
    if not any(row["fake"] for row in job.rows):
        raise MediaError("nothing was forged: no input has what the methods need (see above)")


def _methods(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in (*METHODS, "all"):
            raise ConfigError(f"there is no method {name!r}; known: all, {', '.join(METHODS)}")
    return list(METHODS) if "all" in names else list(dict.fromkeys(names))


def _segment(words: Sequence[str]) -> Segment | None:
    if list(words) == ["random"]:
        return None
    try:
        start, end = (float(word) for word in words)
    except ValueError:
        raise ConfigError(f"--segment takes START END in seconds, or random; got {' '.join(words)}") from None
    if not 0 <= start < start + SHORTEST_SECONDS <= end < 1e6:
        raise ConfigError(f"--segment must last {SHORTEST_SECONDS:g} s or more and begin at 0 or later")
    return start, end


def _forge_input(job: Job, index: int, count: int, methods: Sequence[str], lenient: bool) -> None:
    """All methods on one input; with `lenient` those that it cannot take are named and left out."""
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
                if not lenient:
                    raise
                print(f"left out: {', '.join(names) if forge is None else name}: {error}", file=sys.stderr)
                if forge is None:
                    break


if __name__ == "__main__":
    sys.exit(main())
