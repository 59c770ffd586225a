"""The pictures of the report: PNG by matplotlib, the same bytes for the same numbers.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; lines also differ in their dashes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score, roc_curve

from avdetect.evaluation.columns import MIN_CLASS, OUTPUTS, label_values, subset_masks
from avdetect.evaluation.metrics import BINS, weights
from avdetect.evaluation.views import SCORES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
Line = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # subset, labels (N,), probabilities (N,), weights (N,)


@dataclass(frozen=True)
class Picture:
    name: str  # of its file, without .png
    caption: str
    png: bytes

    @property
    def base64(self) -> str:
        return base64.b64encode(self.png).decode("ascii")


def of_outputs(scores: pd.DataFrame, part: str) -> list[Picture]:
    """ROC curves and reliability of the outputs. scores: of the files of the part."""
    reliability = (
        "Reliability: the share of fakes among files of like probability. On the line the probabilities mean what they "
        "say; larger dots, more files."
    )
    return [
        *_panels(f"roc_{part}", "ROC curves of the outputs.", scores, _roc),
        *_panels(f"reliability_{part}", reliability, scores, _reliability),
    ]


def _figure(columns: int = 1, height: float = 3.8, width: float = 4.6, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of axes side by side, each `width` by `height` inches."""
    from matplotlib.figure import Figure  # only who draws loads it

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    return figure, list(axes)


def _picture(name: str, caption: str, figure: Figure) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})  # the version would change the bytes
    return Picture(name, caption, file.getvalue())


def _style(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def _panels(name: str, caption: str, scores: pd.DataFrame, draw: Callable[[Axes, list[Line]], None]) -> list[Picture]:
    """Axes for each output that has enough of both classes on some subset; there is no picture where none has."""
    panels: dict[str, list[Line]] = {}
    for score, label in OUTPUTS.items():
        truth = label_values(scores, label)
        for subset, mask in subset_masks(scores).items():
            known = mask & ~np.isnan(truth) & scores[score].notna().to_numpy(bool)
            labels = truth[known].astype(np.int64)
            if min(np.sum(labels == 0), np.sum(labels == 1)) >= MIN_CLASS:
                values, share = scores.loc[known, score].to_numpy(np.float64), weights(labels, scores[known])
                panels.setdefault(score, []).append((subset, labels, values, share))
    if not panels:
        return []
    figure, axes = _figure(len(panels), 4.2)
    for ax, (score, lines) in zip(axes, panels.items(), strict=True):
        ax.set_title(SCORES[score], fontsize=10)
        draw(ax, lines)
    return [_picture(name, caption, figure)]


def _roc(ax: Axes, lines: list[Line]) -> None:
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="chance")
    for number, (subset, labels, values, share) in enumerate(lines):
        false, true, _ = roc_curve(labels, values, sample_weight=share)
        auc = roc_auc_score(labels, values, sample_weight=share)
        ax.plot(false, true, label=f"{subset}: balanced AUC {auc:.3f}", **_style(number))
    ax.set(xlabel="false positive rate (share of reals)", ylabel="true positive rate (share of fakes)")
    ax.legend(fontsize=8, loc="lower right")


def _reliability(ax: Axes, lines: list[Line]) -> None:
    """Share of fakes against the mean probability in ten equal bins, balanced; a dot's area is its files' weight."""
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="calibrated")
    for number, (subset, labels, values, share) in enumerate(lines):
        cell = np.minimum((values * BINS).astype(np.int64), BINS - 1)
        count = np.bincount(cell, share, minlength=BINS)
        full = count > 0
        mean, fakes = (np.bincount(cell, w * share, BINS)[full] / count[full] for w in (values, labels))
        ax.plot(mean, fakes, label=f"{subset} ({len(labels)} files)", **_style(number))
        ax.scatter(mean, fakes, s=10 + 190 * count[full] / count.max(), color=_style(number)["color"], alpha=0.5)
    ax.set(xlabel="mean probability of fake", ylabel="share of fakes", xlim=(0, 1), ylim=(-0.03, 1.03))
    ax.legend(fontsize=8, loc="upper left")


def sync_shifts(shifts: pd.DataFrame) -> list[Picture]:
    """What the sync stream finds of audio that was shifted on purpose."""
    figure, axes = _figure(2)
    for ax, y in zip(axes, ("recovered", "mean_error_frames"), strict=True):
        ax.plot(shifts["shift_frames"], shifts[y], marker="o", markersize=4, **_style(0))
        ax.fill_between(shifts["shift_frames"], shifts[f"{y}_low"], shifts[f"{y}_high"], color=COLOURS[0], alpha=0.15)
        ax.set_xlabel("shift of the audio (frames of 40 ms; > 0: later)")
    axes[0].set(ylim=(0, 1.03), ylabel="share recovered within ±1 frame")
    axes[1].set(ylabel="mean absolute error (frames of 40 ms)")
    axes[1].set_ylim(bottom=0)
    return [_picture("sync", "Offsets found of audio that was shifted on purpose.", figure)]


def robustness(table: pd.DataFrame) -> list[Picture]:
    """Balanced AUC against the severity of each treatment, beside the files as they are; none for an empty table."""
    names = [name for name in table["condition"].unique() if name != "clean"] if len(table) else []
    if not names:
        return []
    columns = min(3, len(names))
    figure, axes = _figure(columns, 3.4, 4.4, -(-len(names) // columns))
    shown = [key for key, rows in table.groupby(["subset", "score"], sort=False) if rows["auc"].notna().any()]
    for ax, name in zip(axes, names, strict=False):
        levels = table.loc[table["condition"] == name, "severity"].unique().tolist()
        for number, (subset, score) in enumerate(shown):
            rows = table[(table["subset"] == subset) & (table["score"] == score)]
            if (rows["condition"] == name).any():
                rows = pd.concat([rows[rows["condition"] == condition] for condition in ("clean", name)])
                place = [0 if r.condition == "clean" else 1 + levels.index(r.severity) for r in rows.itertuples()]
                style = _style(number)
                ax.plot(place, rows["auc"], marker="o", markersize=4, label=f"{subset}: {SCORES[score]}", **style)
                ax.fill_between(place, rows["auc_low"], rows["auc_high"], color=style["color"], alpha=0.1)
        ax.axhline(0.5, color="0.6", linewidth=1)
        ax.set_xticks(range(len(levels) + 1), ["as is", *(f"{level:g}" for level in levels)])
        unit = table.loc[table["condition"] == name, "unit"].iloc[0]
        ax.set(title=name, xlabel=str(unit), ylabel="balanced AUC", ylim=(0, 1.03))
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return [_picture("robustness", "Balanced AUC against the severity of each treatment.", figure)]
