"""Which rows of a scores table are measured, on what: the rows of metrics.csv.

A scores table has a row a file: the manifest's columns, `pooling.FEATURES`, p_fake, p_video_fake, p_audio_fake and
p_mismatch (NaN where the model abstained or could not read the file). Speech has no picture and stills have no
sound: they and clips, which is all else, are never measured together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from avdetect.datasets.manifest import LABELS
from avdetect.datasets.splits import texts
from avdetect.evaluation import metrics
from avdetect.evaluation.columns import (
    ANSWERS,
    COLUMNS,
    MIN_CLASS,
    OUTPUTS,
    Files,
    measurement_frame,
    numbers,
    score_values,
    subset_masks,
)
from avdetect.pooling import FEATURES, NUM_VALUES, STREAMS
from avdetect.types import Float, StreamName

STREAM_SCORES = {
    "visual_logit": "video_fake",
    "audio_logit": "audio_fake",
    "-sync_match": "mismatch",
    "-sync_confidence": "mismatch",
    "sync_min_distance": "mismatch",
}
# The shipped model with one stream, with two, and with all: score (`scores.masked`) -> for readers.
MODALITIES = {
    **{"visual_logit": "face, raw", "audio_logit": "voice, raw", "-sync_match": "match, raw"},
    **{"masked:visual": "face, P", "masked:audio": "voice, P", "masked:sync": "match, P"},
    **{"masked:visual+audio": "face + voice", "masked:visual+sync": "face + match"},
    **{"masked:audio+sync": "voice + match", "p_fake": "all three"},
}
# (video_fake, audio_fake) of clips that are fake, by FakeAVCeleb's names; a mismatch is two real halves of two clips.
CLASSES = {"RVFA": (0, 1), "FVRA": (1, 0), "FVFA": (1, 1), "mismatch": (0, 0)}


def measurements(
    scores: pd.DataFrame, threshold: float, rounds: int = 500, tables: Sequence[str] | None = None
) -> pd.DataFrame:
    """Every measurement that the scores table allows, or only those of `tables`; columns as `columns` says.

    threshold: the shipped one, of P(fake) and of what each part alone would make of a file.
    """
    files = Files(scores, threshold, rounds)
    return measurement_frame([row for name in tables or TABLES for row in TABLES[name](files)])


def as_result(frame: pd.DataFrame) -> dict[str, Any]:
    """Measurements as JSON values: "rows" without what is NaN, and "summary", the few numbers that go into a bundle."""
    shown = [*COLUMNS, "auc", "auc_low", "auc_high", *metrics.PLAIN, *metrics.PROPER, *metrics.DECISIONS]
    records = frame[shown].astype(object).to_dict("records")
    rows = [
        {str(k): v.item() if isinstance(v, np.generic) else v for k, v in row.items() if pd.notna(v) and v != ""}
        for row in records
    ]
    stated = ("auc", "auc_pooled", "auc_within", "log_loss")
    summary = {
        f"{row['subset']}/{row['score']}": {key: round(row[key], 4) for key in stated if key in row}
        for row in rows
        if "auc" in row and row["table"] in ("output", "stream")
    }
    return {"rows": rows, "summary": summary}


def missing_streams(scores: pd.DataFrame) -> pd.DataFrame:
    """subset, stream, reason, files, share: how often each stream is missing, and why, most frequent first. A file that
    could not be read has the reason "not read: <type of the error>" for all three."""
    rows = []
    error = texts(scores, "error")
    for subset, mask in subset_masks(scores).items():
        for stream in STREAMS:
            gone = mask & (numbers(scores, f"has_{stream}") != 1)
            reason = texts(scores, f"missing_{stream}").replace("", "not stated")
            reason = reason.mask(error != "", "not read: " + error.str.partition(":")[0])
            counts = reason[gone].value_counts().sort_index().sort_values(ascending=False, kind="stable")
            rows += [(subset, stream, name, count, count / mask.sum()) for name, count in counts.items()]
    return pd.DataFrame(rows, columns=["subset", "stream", "reason", "files", "share"])


def with_outputs(
    table: pd.DataFrame, features: Float, probabilities: Float, silent: Sequence[StreamName] = ()
) -> pd.DataFrame:
    """The scores table of files that were scored in memory: `table` with features (N, F) and probabilities (N, 4).

    A part is judged where its stream is there and not `silent`, the whole where any such stream is: NaN elsewhere, as
    the Detector abstains.
    """
    has = (features[:, NUM_VALUES:] > 0) & ~np.isin(STREAMS, silent)  # (N, 3)
    judged = np.column_stack([has.any(axis=1), has])
    outputs = np.where(judged, probabilities, np.nan)
    columns = dict(zip(FEATURES, features.T, strict=True)) | dict(zip(OUTPUTS, outputs.T, strict=True))
    return table.drop(columns=[c for c in columns if c in table]).assign(**columns)


Rows = Iterable[dict[str, Any]]
Asked = Iterable[tuple[str, str, str, np.ndarray]]  # subset, score, label, files


def _each(files: Files, scores: Mapping[str, str]) -> Asked:
    return ((subset, score, label, mask) for subset, mask in files.masks.items() for score, label in scores.items())


def _outputs(files: Files) -> Rows:
    """Also where a class or every score is missing: abstentions are told."""
    rows = (files.row("output", *one) for one in _each(files, OUTPUTS))
    return (row for row in rows if row["n"] or row["abstained"])


def _ablations(files: Files) -> Asked:
    columns = [str(column) for column in files.scores if str(column).startswith("ablation:")]
    return _each(files, dict.fromkeys(columns, "fake"))


def _class_masks(files: Files) -> Iterator[tuple[str, np.ndarray]]:
    """Each class of fake clips with the real clips; a class speaks of two halves, so both must be there."""
    fake, video, audio = (files.labels[label] for label in LABELS)
    whole = files.masks["clips"] & (files.media == 3)
    real = whole & (fake == 0) & (video == 0) & (audio == 0)
    for name, (face, voice) in CLASSES.items():
        yield name, real | (whole & (fake == 1) & (video == face) & (audio == voice))


def _modalities(files: Files) -> Asked:
    """Every row on the same clips: those of which each part was judged, of the parts that the bundle judges at all."""
    judged = [~np.isnan(score_values(files.scores, name)) for name in OUTPUTS if name != "p_fake"]
    same = np.logical_and.reduce([files.masks["clips"], *(there for there in judged if there.any())])
    asked = [("clips", label, same) for label in ANSWERS] + [(n, "fake", same & m) for n, m in _class_masks(files)]
    return ((subset, score, label, mask) for score in MODALITIES for subset, label, mask in asked)


def _by_column(files: Files, column: str) -> Asked:
    """The fakes of each kind or method against all reals with the same media, by p_fake and by the streams that should
    see. Their recall at 5 % false alarms is that of the same operating point for all whose reals are the same."""
    names = files.column(column)
    for subset, mask in files.masks.items():
        for name in sorted(set(names[mask & (files.labels["fake"] == 1)]) - {""}):
            fakes = mask & (names == name) & (files.labels["fake"] == 1)
            for score, label in {"p_fake": "fake", **_responsible(files, fakes)}.items():
                judged = fakes & files.judged(score, label, 1)
                if judged.sum() >= MIN_CLASS:
                    title = name if column == "kind" else f"{subset}: {name}"
                    yield title, score, label, (fakes & (files.labels[label] == 1)) | files.like(judged, mask)


def _responsible(files: Files, fakes: np.ndarray) -> dict[str, str]:
    """score -> label of the streams that should see these fakes: of each forged half, or the sync where none is."""
    forged = {label: (files.labels[label][fakes] == 1).sum() >= MIN_CLASS for label in LABELS[1:]}
    found = {score: label for score, label in STREAM_SCORES.items() if forged.get(label)}
    real_halves = (files.labels["video_fake"] == 0) & (files.labels["audio_fake"] == 0)
    if (fakes & real_halves).sum() >= MIN_CLASS:
        found["-sync_match"] = "mismatch"
    return found


def _sources(files: Files) -> Asked:
    """Inside each source that holds both classes, among files with the same streams of it: what a source's look, or a
    missing sound track, gives away cannot help there."""
    names = files.column("dataset")
    scores = {"visual_logit": "video_fake", "audio_logit": "audio_fake", "p_fake": "fake"}
    for subset, score, label, mask in _each(files, scores):
        for inside in files.inside(score, label, mask):
            yield f"{subset}: {names[inside][0]}", score, label, inside


def _alarms(files: Files) -> Rows:
    """The share of reals called fake in each source with MIN_CLASS of them, highest first: at the shipped threshold,
    and at the one that alarms on 5 % of reals where every source weighs the same."""
    names = files.column("dataset")
    for subset, score, label, mask in _each(files, OUTPUTS):
        values, real = score_values(files.scores, score), mask & files.judged(score, label, 0)
        share = metrics.weights(np.zeros(real.sum()), files.files[real])
        limit = metrics.alarm_limit(values[real], share) if real.any() else np.inf
        rows: list[dict[str, Any]] = []
        for name in sorted(set(names[real])):
            p = values[real & (names == name)]
            if len(p) < MIN_CLASS:
                continue
            abstained = mask & (names == name) & (files.labels[label] == 0) & np.isnan(values)
            rows.append(
                {
                    **{"table": "false alarms", "subset": f"{subset}: {name}", "score": score, "label": label},
                    **{"n": len(p), "fakes": 0, "abstained": int(abstained.sum())},
                    "note": metrics.TOO_FEW if len(p) < metrics.MIN_FILES else "",
                    **{"false_alarms_at_5": (p >= limit).mean(), "false_alarms": (p >= files.threshold).mean()},
                }
            )
        yield from sorted(rows, key=lambda row: (-row["false_alarms"], -row["false_alarms_at_5"], row["subset"]))


def _pairs(files: Files) -> Rows:
    """Fakes against their own original, or, where it is not in the table, against the reals of their group.

    The AUC is the share of such pairs in the right order (ties half), in each group of fakes, then averaged over the
    groups: a person with many fakes weighs as much as one with a single fake. For each subset, and each source of it
    with at least MIN_CLASS such groups.
    """
    sources = files.column("dataset")
    for subset, score, label, mask in _each(
        files, {"p_fake": "fake", "visual_logit": "video_fake", "audio_logit": "audio_fake"}
    ):
        fake, real = joined_pairs(files, score, label, mask)
        if len(fake):
            yield _pair_row(files, subset, score, label, fake, real)
        for name in sorted(set(sources[fake])):
            inside = sources[fake] == name
            if len(set(files.groups[fake[inside]])) >= MIN_CLASS:
                yield _pair_row(files, f"{subset}: {name}", score, label, fake[inside], real[inside])


def joined_pairs(files: Files, score: str, label: str, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (P,) of fakes and (P,) of the reals that they are compared with; both have the score."""
    fakes, reals = (np.flatnonzero(mask & files.judged(score, label, value)).tolist() for value in (1, 0))
    paths, originals = files.column("path"), files.column("original")
    by_path = {paths[i]: i for i in reals}
    by_group: dict[str, list[int]] = {}
    for i in reals:
        by_group.setdefault(files.groups[i], []).append(i)
    pairs = [
        (fake, real)
        for fake in fakes
        for real in ([by_path[originals[fake]]] if originals[fake] in by_path else by_group.get(files.groups[fake], ()))
    ]
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _pair_row(files: Files, subset: str, score: str, label: str, fake: np.ndarray, real: np.ndarray) -> dict[str, Any]:
    values = score_values(files.scores, score)
    right = (np.sign(values[fake] - values[real]) + 1) / 2  # 1, or 0.5 for a tie
    group, names = pd.factorize(files.groups[fake])
    share = np.bincount(group, weights=right) / np.bincount(group)  # (groups,)
    drawn = [times @ share / times.sum(axis=1) for times in metrics.multiplicities(len(names), files.rounds, 0, 1000)]
    few = min(len(np.unique(fake)), len(np.unique(real))) < metrics.MIN_FILES
    low, high = (np.nan, np.nan) if few else metrics.interval(np.concatenate(drawn))
    return {
        **{"table": "pairs", "subset": subset, "score": score, "label": label, "pairs": len(fake)},
        **{"n": len(np.unique(np.concatenate([fake, real]))), "fakes": len(np.unique(fake))},
        "note": metrics.TOO_FEW if few else "",
        **{"auc": float(share.mean()), "auc_low": low, "auc_high": high},
    }


def _where_both_classes(table: str, ask: Callable[[Files], Asked]) -> Callable[[Files], Rows]:
    return lambda files: (row for asked in ask(files) if "auc" in (row := files.row(table, *asked)))


TABLES: dict[str, Callable[[Files], Rows]] = {  # in the order of metrics.csv
    "modality": _where_both_classes("modality", _modalities),
    "output": _outputs,
    "stream": _where_both_classes("stream", lambda files: _each(files, STREAM_SCORES)),
    "class": _where_both_classes(
        "class", lambda files: ((name, "p_fake", "fake", mask) for name, mask in _class_masks(files))
    ),
    "kind": _where_both_classes("kind", lambda files: _by_column(files, "kind")),
    "method": _where_both_classes("method", lambda files: _by_column(files, "method")),
    "source": _where_both_classes("source", _sources),
    "false alarms": _alarms,
    "pairs": _pairs,
    "ablation": _where_both_classes("ablation", _ablations),
}
