"""The first table: what the shipped model says with one stream, with two, and with all three."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from avdetect.evaluation.cells import NONE, count, interval, share

MODALITIES = {  # score -> its line; `masked:` as `scores.masked` says
    **{"visual_logit": "face, raw", "audio_logit": "voice, raw", "-sync_match": "match, raw"},
    **{"masked:visual": "face, P", "masked:audio": "voice, P", "masked:sync": "match, P"},
    **{"masked:visual+audio": "face + voice", "masked:visual+sync": "face + match"},
    **{"masked:audio+sync": "voice + match", "p_fake": "all three"},
}
_AGAINST = {  # (subset, label) -> title of the column
    ("clips", "fake"): "fake: anything",
    ("clips", "video_fake"): "face: video_fake",
    ("clips", "audio_fake"): "voice: audio_fake",
    ("clips", "mismatch"): "match: mismatch",
    ("RVFA", "fake"): "RVFA: real face, fake voice",
    ("FVRA", "fake"): "FVRA: fake face, real voice",
    ("FVFA", "fake"): "FVFA: both fake",
    ("mismatch", "fake"): "swap: real face, real voice, of two clips",
}


def modalities(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Titles and cells: a line for each of MODALITIES, what it is measured against in columns."""
    found = {(row["score"], row["subset"], row["label"]): row for row in rows}
    asked = [key for key in _AGAINST if any((score, *key) in found for score in MODALITIES)]
    cells = []
    for score, name in MODALITIES.items():
        of_score = [found.get((score, *key), {}) for key in asked]
        called = next((share(row["false_alarms"]) for row in of_score if row.get("subset", "clips") != "clips"), NONE)
        if any(of_score):
            cells.append((name, *(interval(row, "auc") for row in of_score), called))
    if cells:
        counted = (next(found[score, *key] for score in MODALITIES if (score, *key) in found) for key in asked)
        cells.insert(0, ("files (fakes)", *map(count, counted), ""))
    titles = ("streams", *(_AGAINST[key] for key in asked), "RVRA: real clips called fake")
    return titles, tuple(cells)
