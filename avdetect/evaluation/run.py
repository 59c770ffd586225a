"""One evaluation: a manifest and a bundle in, a folder of CSV files, pictures and one HTML page out.

run.json     the bundle and the manifest, which the folder belongs to
progress/    what took long, row by row: a run that was killed goes on, a run that ended does nothing twice
scores.csv   a row a file; every other number follows from it, but for those that need the media
metrics.csv, missing.csv, sync.csv, sync_shifts.csv, localisation.csv, robustness.csv, *.png, report.html
summary.json versions, digests, seeds, and what was not measured
"""

from pathlib import Path

import numpy as np
import pandas as pd

from avdetect.bundle import Bundle
from avdetect.datasets.manifest import digest
from avdetect.evaluation import provenance, steps
from avdetect.evaluation.held_out import held_out_scores
from avdetect.evaluation.report import Results, write_report
from avdetect.evaluation.scores import masked, score_table
from avdetect.evaluation.setting import Setting, claim, open_archive, selected


def evaluate(
    table: pd.DataFrame,
    bundle: Bundle,
    out: Path,
    *,
    cache: Path | None = None,
    out_of_fold: bool = False,
    split: str | None = None,
    robustness_files: int = 0,
    workers: int = 1,
    audit: bool = True,
    rounds: int = 500,
    sync: bool = True,
    command: str = "",
) -> Results:
    """Measure `bundle` on the files of `table` (a validated manifest) and write the report into the folder `out`.

    cache: take the clips from this preprocessing cache instead of decoding the files. out_of_fold: do not score, but
    take what training kept of streams that never saw a file's source. split: measure these files only.
    robustness_files: how many files a class are re-encoded for the robustness curves. command: stated in the report.
    Raises ConfigError for a folder that belongs to another evaluation, and what the measurements raise.
    """
    seen = provenance.trained_on(table, bundle)  # asked of the whole manifest: its digest is what a bundle states
    known = set(table["dataset"][table["split"].isin(seen)])
    table = selected(table, split)
    seen = [name for name in seen if (table["split"] == name).any()]
    archive = open_archive(cache, bundle)
    setting = Setting(
        table, bundle, out, archive, workers, rounds, out_of_fold, split, command, tuple(seen), frozenset(known)
    )
    # Before the folder is claimed: what is refused leaves nothing behind.
    scores = held_out_scores(table, bundle, archive) if out_of_fold else None
    identity = {"bundle": bundle.digest, "manifest": digest(table), "split": split or "", "out_of_fold": out_of_fold}
    claim(out, identity)
    if scores is None:
        source, progress = setting.source(np.ones(len(table), bool)), setting.progress / "scores.sqlite"
        scores = score_table(table, source, bundle, progress, workers=workers)
    scores = masked(scores, bundle)
    parts = _parts(table, out_of_fold)
    results = Results(
        scores=scores,
        tables={},
        parts=parts,
        about=provenance.about(setting),
        summary=provenance.summary(setting, list(parts)),
        warnings=provenance.warnings_of(setting, scores),
    )
    steps.measure_scores(setting, results, audit=audit)
    steps.measure_media(setting, results, sync=sync, robustness_files=robustness_files)
    write_report(results, out)
    return results


def _parts(table: pd.DataFrame, out_of_fold: bool) -> dict[str, np.ndarray]:
    """The rows that are measured together; what the bundle did not see comes first."""
    everything = np.ones(len(table), bool)
    dev = (table["split"] == "dev").to_numpy(bool)
    if not dev.any() or dev.all():
        return {"all": everything}
    return {"all": everything, "dev": dev} if out_of_fold else {"dev": dev, "all": everything}
