"""Files and what the streams said of them, for the tests of what is fitted on that."""

from __future__ import annotations

import numpy as np
import pandas as pd

from avdetect.datasets.manifest import validate
from avdetect.pooling import FEATURES, NUM_VALUES

Data = tuple[pd.DataFrame, np.ndarray]


def separable(rows: int = 210, seed: int = 0) -> Data:
    """Faces, voices and matches, each forged or not; the streams' values follow the labels, with noise.

    Every stream is missing somewhere, and all of them are in row 35 and its multiples.
    """
    rng = np.random.default_rng(seed)
    video, audio, swapped = rng.integers(0, 2, (3, rows))
    present = np.stack([np.arange(rows) % 7 != 0, np.arange(rows) % 5 != 0, np.arange(rows) % 3 == 1], 1)
    present[::35] = False
    values = np.repeat(np.stack([2 * video - 1, 2 * audio - 1, 1 - 2 * swapped], 1), [1, 1, 4], axis=1)
    features = np.zeros((rows, len(FEATURES)), np.float32)
    features[:, :NUM_VALUES] = np.repeat(present, [1, 1, 4], axis=1) * (1.5 * values + rng.standard_normal((rows, 6)))
    features[:, NUM_VALUES:] = present
    table = pd.DataFrame({"path": [f"{i}.mp4" for i in range(rows)], "fake": video | audio | swapped})
    table["video_fake"] = ["" if i % 11 == 0 else label for i, label in enumerate(video)]
    table["audio_fake"] = audio
    table["group"] = [f"p{i // 3}" for i in range(rows)]
    table["dataset"] = np.where(np.arange(rows) % 4 == 0, "small", "big")
    return validate(table.assign(split="train", method="")), features
