"""The files that the README's commands name, cut from the sample clip that ships with the package.

clip.mp4              the sample itself
videos/               three variants of it
data/real, data/fake  eight two-second variants each, to exercise training; what is called fake here is arbitrary, so
                      the scores of a model trained on them mean nothing
"""

import shutil
from pathlib import Path

from media_factory import encode

SAMPLE = Path(__file__).parents[1] / "avdetect" / "weights" / "sample" / "sample.mp4"
FILTERS = ("null", "hflip", "hue=h=40", "eq=brightness=0.1", "scale=320:320", "noise=alls=8:allf=t")


def variant(target: Path, start: float, video_filter: str, seconds: float = 2) -> None:
    """So much of the sample, filtered."""
    cut = ("-ss", str(start), "-t", str(seconds), "-i", str(SAMPLE), "-vf", video_filter)
    encode(target, *cut, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac")


def make_data(folder: Path, each: int = 8) -> Path:
    """real/ and fake/ with `each` files, no two alike."""
    for i, kind in enumerate(("real", "fake")):
        (folder / kind).mkdir(parents=True)
        for k in range(each):
            number = 2 * k + i
            variant(folder / kind / f"{k}.mp4", (number % 8) * 0.5, FILTERS[number % len(FILTERS)])
    return folder


def make_readme_media(folder: Path) -> None:
    """Everything, into an existing empty folder."""
    shutil.copy(SAMPLE, folder / "clip.mp4")
    (folder / "videos").mkdir()
    for i in range(3):
        variant(folder / "videos" / f"{i}.mp4", i, FILTERS[i])
    make_data(folder / "data")
