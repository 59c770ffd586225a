"""The measurements of an evaluation, one after the other, into its `Results`.

What cannot be measured, because the manifest or the machine lacks what it needs, is said in `Results.unmeasured`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from avdetect.datasets.manifest import own_voice
from avdetect.errors import ManifestError
from avdetect.evaluation.audit import FACTS, beaten, evaluation_folds, facts, guesses, shortcuts
from avdetect.evaluation.columns import subset_masks
from avdetect.evaluation.localisation import measure_localisation
from avdetect.evaluation.report import Results, rows_in_words, write_csv
from avdetect.evaluation.robustness import robustness
from avdetect.evaluation.setting import Setting
from avdetect.evaluation.sync import MIN_SECONDS, measure_sync
from avdetect.evaluation.tables import measurements, missing_streams

CHUNK = 64  # files whose container facts are written at once


def measure_scores(setting: Setting, results: Results, *, audit: bool) -> None:
    """All that follows from the scores table, and the shortcut audit, for each part."""
    scores, threshold = results.scores, setting.bundle.info.calibration.fake_threshold
    results.tables["missing"] = missing_streams(scores)
    if audit:
        scores = scores.join(_guesses(setting, results))
    else:
        results.unmeasured.append(
            "The shortcut audit was switched off (--no-audit): nothing says what files alone tell."
        )
    frames = []
    for part, mask in results.parts.items():
        rows = measurements(scores[mask], threshold, setting.rounds)
        shortcut_rows = shortcuts(scores, setting.rounds, mask)
        results.warnings += [f"{rows_in_words(part)}: {sentence}." for sentence in beaten(rows, shortcut_rows)]
        frames += [frame.assign(part=part) for frame in (rows, shortcut_rows) if len(frame)]
    table = pd.concat(frames, ignore_index=True) if frames else rows.assign(part="")
    results.tables["metrics"] = table[["part", *(name for name in table if name != "part")]]


def _guesses(setting: Setting, results: Results) -> pd.DataFrame:
    """`audit.guesses` of the clips and the speech, by classifiers trained on the other folds of all files; index as in
    the scores table."""
    judged = (results.scores["error"] == "").to_numpy(bool) & ~subset_masks(results.scores)["stills"]
    scores = results.scores[judged].reset_index(drop=True)
    known = container_facts(scores["path"].tolist(), setting.progress / "facts.csv", setting.workers)
    read = int(known.notna().any(axis=1).sum())
    if not read:
        results.unmeasured.append("The shortcut audit: none of the files is there to be read.")
        return pd.DataFrame()
    if read < len(known):
        results.warnings.append(
            f"Shortcut audit: {len(known) - read} of {len(known)} files are not there, or no media."
        )
    try:
        fold = evaluation_folds(scores)
    except ManifestError as error:
        results.unmeasured.append(f"The shortcut audit: {error}.")
        return pd.DataFrame()
    results.summary["audit_folds"] = {"by": str(fold.name), "number": int(fold.nunique())}
    found = guesses(scores, known, fold)
    if found.empty:
        results.unmeasured.append("The shortcut audit: too few files of both classes.")
    return found.set_axis(results.scores.index[judged])


def container_facts(paths: list[str], target: Path, workers: int) -> pd.DataFrame:
    """(N, FACTS) of the files, kept in the CSV `target`; NaN for a file that cannot be read, which is tried anew."""
    known = pd.read_csv(target, dtype={"path": str}) if target.exists() else pd.DataFrame(columns=["path", *FACTS])
    todo = sorted(set(paths) - set(known["path"]))
    with ThreadPoolExecutor(workers) as pool:  # the work is ffmpeg's, in processes of its own
        for start in range(0, len(todo), CHUNK):
            chunk = todo[start : start + CHUNK]
            rows = pd.DataFrame(list(pool.map(facts, chunk)), columns=list(FACTS), dtype=np.float64)
            rows = rows.assign(path=chunk)[["path", *FACTS]][rows.notna().any(axis=1)]
            known = pd.concat([known, rows], ignore_index=True) if len(known) else rows
            write_csv(known, target)
    return known.set_index("path")[list(FACTS)].astype(np.float64).reindex(paths).reset_index(drop=True)


def measure_media(setting: Setting, results: Results, *, sync: bool, robustness_files: int) -> None:
    """What needs the clips or the files again: always with the networks that are in the bundle."""
    table, tables, progress, unmeasured = setting.table, results.tables, setting.progress, results.unmeasured
    if sync:
        _sync(setting, results)
    else:
        unmeasured.append("The match by itself was switched off (--no-sync).")
    if table["fake_segments"].map(bool).any():
        place = progress / "localisation.csv"
        tables["localisation"] = _kept([place], lambda: [measure_localisation(table, setting.detector)])[0]
    else:
        unmeasured.append("Localisation: no partial forgery (fake_segments) in this manifest.")
    if robustness_files:
        place, rounds = progress / f"robustness_{robustness_files}.csv", setting.rounds
        tables["robustness"] = _kept(
            [place],
            lambda: [robustness(table, setting.detector, progress, robustness_files, rounds=rounds)],
        )[0]
        if tables["robustness"].empty:
            unmeasured.append("Robustness: there is no clip and no speech to re-encode.")
    else:
        unmeasured.append("Robustness curves were not asked for (--robustness N).")
    used = [name for name in ("sync", "localisation", "robustness") if len(tables.get(name, ()))]
    if used and setting.trained_on and setting.out_of_fold:
        results.warnings.append(
            f"The tables {', '.join(used)} were measured with the networks of the bundle, which were trained on the "
            f"split {' and '.join(setting.trained_on)} of this manifest: unlike all others they are not out of fold."
        )


def _sync(setting: Setting, results: Results) -> None:
    """The tables `sync_shifts` and `sync`, on the files of dev with their own voice where there is one."""
    mask = results.parts.get("dev", np.ones(len(setting.table), bool))
    table, config, rounds = setting.table[mask], setting.bundle.info.model, setting.rounds
    if "sync" not in config.streams:
        results.unmeasured.append("The match by itself: the model was trained without the match.")
        return
    found: Sequence[pd.DataFrame] = [pd.DataFrame()]
    if own_voice(table).any():
        source, networks = setting.source(mask), setting.detector.networks
        found = _kept(
            [setting.progress / "sync_shifts.csv", setting.progress / "sync.csv"],
            lambda: measure_sync(table, source, networks, config, rounds=rounds),
        )
    if found[0].empty:
        reason = f"The match by itself: no file shows {MIN_SECONDS:g} s of one face with its own voice."
        results.unmeasured.append(reason)
        return
    results.tables["sync_shifts"], results.tables["sync"] = found
    results.summary["sync_measured_on"] = "dev" if "dev" in results.parts else "all"


def _kept(places: Sequence[Path], make: Callable[[], Sequence[pd.DataFrame]]) -> Sequence[pd.DataFrame]:
    """The tables in `places`, made when they are not there. Always read back, so that both ways give the same."""
    if not all(place.exists() for place in places):
        made = make()
        if made[0].empty:
            return made
        for table, place in zip(made, places, strict=True):
            write_csv(table, place)
    return [pd.read_csv(place) for place in places]
