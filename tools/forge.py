"""Forge the face, the voice or their match inside a segment of genuine videos, and write playable files.

    python tools/forge.py interview.mp4 lecture.mp4 --out forged --control
    python tools/forge.py interview.mp4 --out forged --method mouth_swap world --segment 2 5

Writes one file a method into --out, `contact.png` (original, forged and difference) and `forged.csv`, a manifest that
can be trained on: it takes the inputs to be genuine. Files are H.264 at 25 fps and the source's resolution, or keep the
source's video as it is when the voice is forged. --control writes the genuine half through the same encoder, so that
the codec is no label. Several inputs serve as each other's "other person". The same seed gives the same forgeries.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avdetect.audio import SILENCE_RMS, rms
from avdetect.config import FaceConfig, MediaConfig, PreprocessConfig
from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.audio import AUDIO
from avdetect.datasets.forgeries.audiovisual import AUDIOVISUAL, NEEDS_OTHER
from avdetect.datasets.forgeries.contact import Row, face_row, sound_row, write_sheet
from avdetect.datasets.forgeries.files import write_sound, write_video
from avdetect.datasets.forgeries.geometry import fit
from avdetect.datasets.forgeries.squares import FaceSquares, cut_squares, forged_video, track_squares
from avdetect.datasets.forgeries.visual import NEEDS, VISUAL, Donors
from avdetect.datasets.manifest import write_manifest
from avdetect.errors import AVDetectError, ConfigError, MediaError
from avdetect.faces import FaceDetector, build_detector
from avdetect.media import MediaReader
from avdetect.types import FPS, SAMPLE_RATE, Float

METHODS = (*VISUAL, *AUDIO, *AUDIOVISUAL)
RANDOM_SECONDS = (1.0, 4.0)  # length of a random segment
SHORTEST_SECONDS = 0.6  # that is worth forging
TRIES = 6  # at a random segment with a face, or with a voice, in it
AROUND_SECONDS = 1.5  # of tracking before and after a segment, where a mouth may come from
SHEET_ROWS = 80
MAX_AUDIO_SECONDS = 3600.0
FADE_SAMPLES = 160  # between the voice and its forgery, inside the segment

Segment = tuple[float, float]  # start and end in seconds
Generator = np.random.Generator


class Unfit(MediaError):
    """An input cannot take a method: no face, no voice, nobody else."""


@dataclass
class Input:
    """One genuine file, opened anew for each pass."""

    path: Path
    name: str  # of its outputs, unique among the inputs
    reader: MediaReader
    samples: Float | None = field(default=None, repr=False)

    @property
    def duration_seconds(self) -> float:
        stated = self.reader.info.duration_seconds
        if stated is None:
            raise MediaError(f"{self.path.name} does not say how long it is; give --segment START END")
        return stated

    def sound(self) -> Float:
        """All of the voice, (num_samples,) from the container's time zero."""
        if self.samples is None:
            if self.reader.info.audio is None:
                raise Unfit(f"{self.path.name} has no audio")
            chunks = self.reader.audio(60.0, duration_seconds=MAX_AUDIO_SECONDS)
            self.samples = np.concatenate([chunk.samples for chunk in chunks] or [np.zeros(0, np.float32)])
        return self.samples


@dataclass
class Job:
    """What all forgeries of one run share."""

    out: Path
    inputs: list[Input]
    segment: Segment | None  # None: random
    seed: int
    split: str
    control: bool
    detector: FaceDetector
    faces: FaceConfig
    rows: list[dict[str, Any]] = field(default_factory=list)
    sheet: list[Row] = field(default_factory=list)
    controls: set[Path] = field(default_factory=set)

    def add(self, source: Input, path: Path, method: str, segments: Sequence[Segment], original: Path) -> None:
        """A row of the manifest; a method of "" is a control."""
        forged = {"video": int(method in VISUAL), "audio": int(method in AUDIO)}
        info = source.reader.info
        self.rows.append(
            {
                "path": str(path.resolve()),
                "fake": int(bool(method)),
                "video_fake": None if info.video is None else forged["video"],
                "audio_fake": None if info.audio is None else forged["audio"],
                "group": source.name,
                "split": self.split,
                "dataset": "forge",
                "method": method,
                "original": str(original.resolve()) if method else "",
                "fake_segments": tuple((round(a, 4), round(b, 4)) for a, b in segments),
            }
        )
        print(f"wrote {path}", flush=True)


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
    parser.add_argument("--method", nargs="+", default=["all"], metavar="NAME", help="names of --list, or all")
    parser.add_argument(
        "--segment", nargs="+", default=["random"], metavar="S", help="START END in seconds, or random (default)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    parser.add_argument("--count", type=int, default=1, help="forgeries an input and method (default 1)")
    parser.add_argument("--control", action="store_true", help="also write the genuine file through the same encoder")
    parser.add_argument("--split", choices=("train", "dev", "test"), default="train", help="of the manifest's rows")
    parser.add_argument("--list", action="store_true", help="name the methods and end")
    return parser


def _listing() -> Iterator[str]:
    for label, methods in (("face", VISUAL), ("voice", AUDIO), ("match", AUDIOVISUAL)):
        for name, function in methods.items():
            inner = function.args[0] if isinstance(function, partial) and function.args else function
            text = (inner.__doc__ or "").strip().splitlines()
            yield f"{name:18} {label:6} {text[0] if text else ''}"


def run(args: argparse.Namespace) -> None:
    """All forgeries of all inputs. The manifest and the sheet are written whatever ends it."""
    methods, segment = _methods(args.method), _segment(args.segment)
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
    inputs = _open(args.inputs)
    job = Job(args.out, inputs, segment, args.seed, args.split, args.control, detector, config.faces)
    try:
        for index in range(len(inputs)):
            for count in range(args.count):
                _forge_input(job, index, count, methods, lenient=args.method == ["all"])
    finally:
        for source in inputs:
            source.reader.close()
        if job.rows:
            write_manifest(pd.DataFrame(job.rows), args.out / "forged.csv")
        if job.sheet:
            write_sheet(job.sheet[:SHEET_ROWS], args.out / "contact.png")
    if not any(row["fake"] for row in job.rows):
        raise MediaError("nothing was forged: no input has what the methods need (see above)")


def _methods(names: Sequence[str]) -> list[str]:
    if list(names) == ["all"]:
        return list(METHODS)
    for name in names:
        if name not in METHODS:
            raise ConfigError(f"there is no method {name!r}; known: {', '.join(METHODS)}")
    return list(dict.fromkeys(names))


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


def _open(paths: Sequence[Path]) -> list[Input]:
    """Probe all inputs before any work. Raises MediaError, ConfigError."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError("an INPUT is named twice")
    inputs: list[Input] = []
    media = MediaConfig(max_side=8192)  # the source's own resolution
    for path in paths:
        base = name = re.sub(r"[^\w.-]+", "_", path.stem).lstrip(".-")[:80] or "input"
        taken, number = {source.name.lower() for source in inputs}, 2
        while name.lower() in taken:
            name, number = f"{base}-{number}", number + 1
        inputs.append(Input(path, name, MediaReader(path, media)))
    return inputs


def _forge_input(job: Job, index: int, count: int, methods: Sequence[str], lenient: bool) -> None:
    """All methods on one input; with `lenient` those that it cannot take are named and left out."""
    parts: list[tuple[list[str], Callable[[], Callable[[str], None]]]] = [
        ([name for name in methods if name in VISUAL], partial(_face_forger, job, index, count)),
        ([name for name in methods if name not in VISUAL], partial(_sound_forger, job, index, count)),
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


def _face_forger(job: Job, index: int, count: int) -> Callable[[str], None]:
    """Find a face and a segment once; the function returned forges it by a method."""
    source = job.inputs[index]
    rng = np.random.default_rng((job.seed, index, count, 0))
    squares, first, stop = _face_segment(job, source, rng)
    part = squares.window(first, stop)
    numbers = np.arange(first, stop)
    original = cut_squares(source.reader, squares, numbers)
    moment_of = _another_moment(squares, numbers, rng)
    plain = _control(job, source, "video")

    def forge(method: str) -> None:
        moment = other = None
        if NEEDS.get(method) == "moment":
            moment = cut_squares(source.reader, squares, moment_of)
        elif NEEDS.get(method) == "other":
            other = _other_face(job, index, count, len(numbers), squares.side)
        draw = np.random.default_rng((job.seed, index, count, METHODS.index(method) + 2))
        forged = VISUAL[method](original, draw, Donors(moment, other))
        target = job.out / f"{source.name}.{method}.{count}.mp4"
        write_video(forged_video(source.reader, part, original, forged), source.reader.info, target)
        segment = (first / FPS, stop / FPS)
        job.sheet.append(face_row(f"{target.name}  {segment[0]:.2f}-{segment[1]:.2f} s", original, forged))
        job.add(source, target, method, [segment], plain)

    return forge


def _face_segment(job: Job, source: Input, rng: Generator) -> tuple[FaceSquares, int, int]:
    """A face's run and the frames of it to forge. Raises Unfit without a face in the segment."""
    if source.reader.info.video is None:
        raise Unfit(f"{source.path.name} has no video")
    problem: AVDetectError = Unfit(f"{source.path.name}: no face was found in {TRIES} places")
    for _ in range(1 if job.segment else TRIES):
        start, end = job.segment or _random_segment(source.duration_seconds, rng)
        early = max(0.0, start - AROUND_SECONDS)
        try:
            squares = track_squares(source.reader, job.detector, job.faces, early, end - early + AROUND_SECONDS)
        except MediaError as error:
            problem = Unfit(str(error))
            continue
        first = max(round(start * FPS), squares.first_frame)
        stop = min(round(end * FPS), squares.first_frame + len(squares))
        if job.segment is None:
            stop = min(stop, first + squares.most_frames)
        if stop - first >= min(round(SHORTEST_SECONDS * FPS), round((end - start) * FPS)):
            return squares, first, stop
        problem = Unfit(f"{source.path.name}: no face stays for {SHORTEST_SECONDS:g} s of {start:.2f}-{end:.2f} s")
    raise problem


def _another_moment(squares: FaceSquares, numbers: np.ndarray, rng: Generator) -> np.ndarray:
    """Frames of the face's own run, later or earlier; at an end of the run they go back the way they came.

    Of a few shifts the one is taken at which the head is turned most alike: a profile's mouth fits on no other face.
    """
    best, least = numbers, np.inf
    for _ in range(8):
        shift = int(rng.integers(min(5, len(squares) // 3), max(6, len(squares) // 2))) * int(rng.choice([-1, 1]))
        index = _bounced(numbers - squares.first_frame + shift, len(squares))
        here, there = (squares.landmarks[i].astype(np.float64) for i in (numbers - squares.first_frame, index))
        moved = np.einsum("tij,tnj->tni", fit(there, here)[:, :, :2], there - there.mean(1, keepdims=True))
        turned = float(np.abs(moved - (here - here.mean(1, keepdims=True))).mean())
        if turned < least:
            best, least = squares.first_frame + index, turned
    return best


def _other_face(job: Job, index: int, count: int, frames: int, side: int) -> FaceCrops:
    """The face of another input, as many frames of it; a shorter run goes back the way it came."""
    rng = np.random.default_rng((job.seed, index, count, 1))
    for other in rng.permutation([i for i in range(len(job.inputs)) if i != index]).tolist():
        source = job.inputs[other]
        if source.reader.info.video is None:
            continue
        try:
            end = min(source.duration_seconds, frames / FPS + 2.0)
            squares = track_squares(source.reader, job.detector, job.faces, 0.0, end)
        except MediaError:
            continue  # no face there; another input may have one
        numbers = squares.first_frame + _bounced(np.arange(frames), len(squares))
        return cut_squares(source.reader, squares, numbers, side)
    raise Unfit("no other input shows a face; name a second INPUT with another person")


def _sound_forger(job: Job, index: int, count: int) -> Callable[[str], None]:
    """Find a segment with a voice once; the function returned forges it by a method."""
    source = job.inputs[index]
    samples = source.sound()
    rng = np.random.default_rng((job.seed, index, count, 0))
    start, stop = _voice_segment(job, source, samples, rng)
    plain = _control(job, source, "sound")
    suffix = ".m4a" if source.reader.info.video is None else ".mp4"

    def forge(method: str) -> None:
        other = _other_voice(job, index, count)
        if method in NEEDS_OTHER and other is None:
            raise Unfit("no other input has a voice; name a second INPUT")
        draw = np.random.default_rng((job.seed, index, count, METHODS.index(method) + 2))
        result = {**AUDIO, **AUDIOVISUAL}[method](samples[start:stop], draw, other)
        if not result.segments:
            raise Unfit(f"{source.path.name}: nothing is heard in the segment")
        forged = samples.copy()
        forged[start:stop] = _faded(samples[start:stop], result.samples, start > 0, stop < len(samples))
        segments = [(start / SAMPLE_RATE + a, start / SAMPLE_RATE + b) for a, b in result.segments]
        target = job.out / f"{source.name}.{method}.{count}{suffix}"
        write_sound(forged, source.reader.info, target)
        job.sheet.append(sound_row(f"{target.name}  {_shown(segments)}", samples, forged, segments))
        job.add(source, target, method, segments, plain)

    return forge


def _voice_segment(job: Job, source: Input, samples: Float, rng: Generator) -> tuple[int, int]:
    duration = len(samples) / SAMPLE_RATE
    for _ in range(1 if job.segment else TRIES):
        segment = job.segment or _random_segment(duration, rng)
        start, stop = (min(round(seconds * SAMPLE_RATE), len(samples)) for seconds in segment)
        if stop - start >= min(SHORTEST_SECONDS, duration) * SAMPLE_RATE and rms(samples[start:stop]) > SILENCE_RMS:
            return start, stop
    where = "its random segments" if job.segment is None else f"{job.segment[0]:g}-{job.segment[1]:g} s"
    raise Unfit(f"{source.path.name}: no voice in {where}")


def _other_voice(job: Job, index: int, count: int) -> Float | None:
    rng = np.random.default_rng((job.seed, index, count, 1))
    for other in rng.permutation([i for i in range(len(job.inputs)) if i != index]).tolist():
        if job.inputs[other].reader.info.audio is not None:
            samples = job.inputs[other].sound()
            if len(samples) >= SAMPLE_RATE and rms(samples) > SILENCE_RMS:
                return samples
    return None


def _control(job: Job, source: Input, kind: str) -> Path:
    """The genuine file, through the encoder of forged videos or sounds where --control asks for it; else as it is."""
    if not job.control:
        return source.path
    info = source.reader.info
    target = job.out / f"{source.name}.control-{kind}{'.m4a' if info.video is None else '.mp4'}"
    if target in job.controls:
        return target
    if kind == "video":
        write_video(source.reader.video(), info, target)
    else:
        write_sound(source.sound(), info, target)
    job.controls.add(target)
    job.add(source, target, "", [], target)
    return target


def _random_segment(duration: float, rng: Generator) -> Segment:
    """1 to 4 s on whole frames; all of a shorter file."""
    length = min(round(rng.uniform(*RANDOM_SECONDS) * FPS) / FPS, duration)
    start = int(rng.uniform(0, max(0.0, duration - length)) * FPS) / FPS
    return start, start + length


def _bounced(index: np.ndarray, count: int) -> np.ndarray:
    """Indices 0..count - 1: beyond an end they run back."""
    period = max(2 * (count - 1), 1)
    place = index % period
    return np.where(place < count, place, period - place).astype(np.int64)


def _faded(before: Float, after: Float, at_start: bool, at_end: bool) -> Float:
    """`after`, fading from and to `before` over FADE_SAMPLES at its ends."""
    share = np.ones(len(after), np.float32)
    ramp = (np.arange(FADE_SAMPLES, dtype=np.float32) + 0.5) / FADE_SAMPLES
    if at_start:
        share[:FADE_SAMPLES] = ramp
    if at_end:
        share[-FADE_SAMPLES:] = np.minimum(share[-FADE_SAMPLES:], ramp[::-1])
    return (before + (after - before) * share).astype(np.float32)


def _shown(segments: Sequence[Segment]) -> str:
    return ", ".join(f"{start:.2f}-{end:.2f} s" for start, end in segments)


if __name__ == "__main__":
    sys.exit(main())
