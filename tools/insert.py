"""Put fake recordings or clips between genuine ones of the same source: partial forgeries of real generators.

The manifest must know which voices or faces are fake from end to end. For each of up to --per-source fakes of a
`dataset` and split, two files are written: genuine, fake, genuine; and its control, with a third genuine one in the
middle. Genuine ones of the fake's own `group` are taken first. Each piece is the first 1.6 to 4 s of its file, without
the other half (picture or sound). Voices are made equally loud, pictures equally large, and all pass one conversion and
one encoder; what an earlier codec left in a piece stays in it. `inserted.csv` in --out is the manifest of both, with
`fake_segments`. All files of one source and split share a group, since their pieces do.
"""

import argparse
import dataclasses
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from avdetect.audio import rms
from avdetect.cli.console import exit_code, kept
from avdetect.config import MediaConfig
from avdetect.errors import ConfigError, MediaError
from avdetect.extras import script_imports
from avdetect.faces.crops import frames_from_rgb, reduced_rgb
from avdetect.media import MediaReader, probe
from avdetect.types import FPS, SAMPLES_PER_FRAME, VideoFrames

with script_imports("insert", "evaluate"):
    import pandas as pd

    from avdetect.datasets.forgeries.files import write_sound, write_video
    from avdetect.datasets.manifest import SEGMENTS, SPLITS, read_manifest, write_manifest
    from avdetect.stills import STILLS

PARTS = {"voice": "audio_fake", "face": "video_fake"}
SHORTEST, LONGEST = 40, 100  # frames of one piece at 25 fps: 1.6 to 4 s, so that a whole second of a curve fits in
LOUDNESS = 0.06  # RMS of each voice
SILENT = 1e-4  # RMS below which there is no voice to be made louder
MAX_SIDE = 640  # of pictures: three pieces of a film would not fit in memory
GENUINE = 3  # of a control; two of them hold the fake

Piece = NDArray[Any]  # of T video frames: their samples (T, 640) float32, or RGB pictures (T, H, W, 3) uint8


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="CSV or Parquet of whole fakes and genuine files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; new or empty")
    parser.add_argument("--part", choices=PARTS, required=True, help="what is joined and fake in the middle")
    parser.add_argument("--per-source", type=int, default=24, help="fakes of a source and split at most (default 24)")
    parser.add_argument("--split", choices=SPLITS, help="of this split only")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    return exit_code(lambda: run(parser.parse_args(argv)), name="insert", usage=1)


def run(args: argparse.Namespace) -> None:
    if args.per_source < 1 or args.seed < 0:
        raise ConfigError("--per-source must be at least 1 and --seed at least 0")
    table = read_manifest(args.manifest)
    table = table[~table["path"].map(lambda path: Path(path).suffix.lower() in STILLS)]
    table = table if args.split is None else table[table["split"] == args.split]
    with kept(args.out, "name another folder as --out"):
        args.out.mkdir(parents=True, exist_ok=True)
        if any(args.out.iterdir()):
            raise ConfigError(f"{args.out} is not empty; name a new folder as --out")
    rows: list[dict[str, Any]] = []
    for (source, split), files in table.groupby(["dataset", "split"]):
        rng = np.random.default_rng((args.seed, zlib.crc32(f"{args.part} {split} {source}".encode())))
        about = {"dataset": source, "split": split, "group": f"inserted {split} {source}"}
        for fake, pieces in islice(inserted(files, args.part, rng), args.per_source):
            stem = args.out.resolve() / f"{args.part}-{len(rows) // 2:04d}"
            rows += [about | row for row in written(stem, args.part, fake, pieces)]
    if not rows:
        enough = f"{GENUINE} genuine ones, each of {SHORTEST / FPS:g} s or more"
        raise MediaError(f"no source of the manifest has a fake {args.part} and {enough}")
    write_manifest(pd.DataFrame(rows), args.out / "inserted.csv")
    print(f"{len(rows) // 2} with a fake {args.part} inserted, each with its control: {args.out / 'inserted.csv'}")


def inserted(files: pd.DataFrame, part: str, rng: np.random.Generator) -> Iterator[tuple[pd.Series, list[Piece]]]:
    """Of one source the row of each fake, and the pieces (first, fake, last, middle of the control)."""
    partial = np.logical_or.reduce([files[name].map(bool) for name in SEGMENTS if name in files])
    real, fakes = files[files[PARTS[part]].eq(0)], files[files[PARTS[part]].eq(1) & ~partial]
    read: Callable[[str], Piece] = sound if part == "voice" else pictures
    for number in rng.permutation(len(fakes)):
        fake = fakes.iloc[number]
        drawn = real.iloc[rng.permutation(len(real))]
        nearest = drawn["group"].ne(fake["group"]).sort_values(kind="stable").index
        shares = rng.random(GENUINE + 1)
        for forged in readable([fake["path"]], read):
            genuine = list(islice(readable(drawn.loc[nearest, "path"], read), GENUINE))
            if len(genuine) < GENUINE:
                return
            whole = [genuine[0], forged, genuine[1], genuine[2]]
            lengths = [SHORTEST + round(share * (len(p) - SHORTEST)) for p, share in zip(whole, shares, strict=True)]
            yield fake, [piece[:length] for piece, length in zip(whole, lengths, strict=True)]


def readable(paths: Iterable[str], read: Callable[[str], Piece]) -> Iterator[Piece]:
    for path in paths:
        try:
            yield read(path)
        except MediaError as error:
            print(f"left out: {error}", file=sys.stderr)


def sound(path: str) -> Piece:
    """(T, 640) the first samples of a file, at most LONGEST frames. Raises MediaError (too short, silent)."""
    with MediaReader(path) as reader:
        chunk = next(reader.audio(LONGEST / FPS, duration_seconds=LONGEST / FPS), None)
    samples = np.zeros(0, np.float32) if chunk is None else chunk.samples
    count = len(samples) // SAMPLES_PER_FRAME
    if count < SHORTEST or rms(samples) < SILENT:
        raise MediaError(f"{path} is silent or shorter than {SHORTEST / FPS:g} s")
    return samples[: count * SAMPLES_PER_FRAME].reshape(count, SAMPLES_PER_FRAME)


def pictures(path: str) -> Piece:
    """(T, H, W, 3) the first frames of a file, at most LONGEST, as RGB. Raises MediaError (too short)."""
    with MediaReader(path, MediaConfig(max_side=MAX_SIDE)) as reader:
        batches = reader.video(duration_seconds=LONGEST / FPS)
        frames = [reduced_rgb(batch, i, MAX_SIDE) for batch in batches for i in range(len(batch))]
    if len(frames) < SHORTEST:
        raise MediaError(f"{path} is shorter than {SHORTEST / FPS:g} s")
    return np.stack(frames)


def written(stem: Path, part: str, fake: pd.Series, pieces: list[Piece]) -> Iterator[dict[str, Any]]:
    """Write the forgery and its control; their rows, without what all rows of a source share."""
    first, middle, last, other = pieces
    segment = (len(first) / FPS, (len(first) + len(middle)) / FPS)
    forged, control = (stem.with_name(f"{stem.name}-{name}.mp4") for name in ("fake", "real"))
    header = probe(fake["path"])  # says only that nothing stands beside what is written: no stream of it is copied
    for target, parts, label in ((forged, [first, middle, last], 1), (control, [first, other, last], 0)):
        if part == "voice":
            equal = [(piece * (LOUDNESS / max(rms(piece), SILENT))).ravel() for piece in parts]
            write_sound(np.concatenate(equal).clip(-1, 1), dataclasses.replace(header, video=None), target)
        else:
            size = (min(piece.shape[1] for piece in pieces), min(piece.shape[2] for piece in pieces))
            write_video(joined_video(parts, size), dataclasses.replace(header, audio=None), target)
        segments = (segment,) if label else ()
        row = {"path": str(target), "fake": label, "video_fake": None, "audio_fake": None, PARTS[part]: label}
        row |= {"method": fake["method"] if label else "", "original": str(control) if label else ""}
        row |= {"video_fake_segments": (), "audio_fake_segments": (), f"{PARTS[part]}_segments": segments}
        yield row | {"fake_segments": segments, "kind": "speech" if part == "voice" else "inserted"}


def joined_video(parts: list[Piece], size: tuple[int, int]) -> Iterator[VideoFrames]:
    """The parts one after the other, each fitted into (height, width) `size` and centred on black."""
    start = 0
    for part in parts:
        scale = min(size[0] / part.shape[1], size[1] / part.shape[2])
        height, width = (max(1, round(side * scale)) for side in part.shape[1:3])
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        canvas = np.zeros((len(part), *size, 3), np.uint8)
        for picture, fitted in zip(part, canvas[:, top : top + height, left : left + width], strict=True):
            fitted[:] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        yield frames_from_rgb(canvas, start)
        start += len(part)


if __name__ == "__main__":
    sys.exit(main())
