"""The files that the README's commands name, cut from the sample clip that ships with the package.

clip.mp4        the sample itself
videos/         three variants of it
my.csv, data/   a manifest of a dozen two-second variants, half of them labelled real, to exercise training; the labels
                are arbitrary, so the scores of a model trained on them mean nothing
"""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path

from media_factory import RENDERER

SAMPLE = Path(__file__).parents[1] / "avdetect" / "weights" / "sample" / "sample.mp4"
FILTERS = ("null", "hflip", "hue=h=40", "eq=brightness=0.1", "scale=320:320", "noise=alls=8:allf=t")


def variant(target: Path, start: float, video_filter: str) -> None:
    """Two seconds of the sample, filtered."""
    command = [RENDERER, "-v", "error", "-y", "-ss", str(start), "-t", "2", "-i", str(SAMPLE), "-vf", video_filter]
    subprocess.run([*command, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", str(target)], check=True)


def make_manifest(folder: Path, rows: int = 16) -> Path:
    """my.csv and the clips it names; both classes stand in each of two folds and in dev."""
    (folder / "data").mkdir(parents=True)
    columns = ("path", "fake", "video_fake", "audio_fake", "group", "split", "dataset", "method")
    with (folder / "my.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for i in range(rows):
            fake, split = i % 2, "dev" if i >= rows - 4 else "train"
            variant(folder / "data" / f"{i}.mp4", (i % 5) * 0.8, FILTERS[i % len(FILTERS)])
            writer.writerow([f"data/{i}.mp4", fake, fake, fake, f"actor{i}", split, f"source{i % 3}", "made" * fake])
    return folder / "my.csv"


def make_readme_media(folder: Path) -> None:
    """Everything, into an existing empty folder."""
    shutil.copy(SAMPLE, folder / "clip.mp4")
    (folder / "videos").mkdir()
    for i in range(3):
        variant(folder / "videos" / f"{i}.mp4", i, FILTERS[i])
    make_manifest(folder)
