"""The pictures of the report: PNG files by matplotlib, the same bytes for the same numbers.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; lines also differ in their dashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from avdetect.evaluation.columns import MIN_CLASS, label_values
from avdetect.evaluation.metrics import weights
from avdetect.evaluation.views import ANSWERS, SCORES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
DPI = 110
BINS = 10  # of the reliability diagram, as for the ECE


def figure(columns: int = 1, height: float = 3.8, width: float = 4.6, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of axes side by side, each `width` by `height` inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    return fig, list(axes)


def save(fig: Figure, path: Path) -> None:
    """Write a PNG without the date and the version, which would change its bytes."""
    fig.savefig(path, dpi=DPI, metadata={"Software": None})


def style(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


Curve = tuple[str, str, np.ndarray, np.ndarray, np.ndarray]


def curves(scores: pd.DataFrame, subsets: Mapping[str, np.ndarray]) -> list[Curve]:
    """(score, subset, labels, probabilities, weights) of every output on every subset with enough of both classes."""
    found = []
    for score, label in ANSWERS.items():
        truth = label_values(scores, label)
        for subset, mask in subsets.items():
            known = mask & ~np.isnan(truth) & scores[score].notna().to_numpy(bool)
            labels = truth[known].astype(np.int64)
            if min(np.sum(labels == 0), np.sum(labels == 1)) >= MIN_CLASS:
                values, share = scores.loc[known, score].to_numpy(np.float64), weights(labels, scores[known])
                found.append((score, subset, labels, values, share))
    return found


def panels(scores: pd.DataFrame, subsets: Mapping[str, np.ndarray], height: float = 4.2) -> Any:
    """Yields (axes, its curves) for each output that has any; None when there is none."""
    by_score: dict[str, list[Any]] = {}
    for curve in curves(scores, subsets):
        by_score.setdefault(curve[0], []).append(curve)
    if not by_score:
        return None, []
    fig, axes = figure(len(by_score), height)
    for ax, score in zip(axes, by_score, strict=True):
        ax.set_title(SCORES[score], fontsize=10)
    return fig, list(zip(axes, by_score.values(), strict=True))


def roc(scores: pd.DataFrame, subsets: Mapping[str, np.ndarray]) -> Figure | None:
    """ROC curves of the outputs."""
    from sklearn.metrics import roc_auc_score, roc_curve

    fig, found = panels(scores, subsets)
    for ax, lines in found:
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="chance")
        for number, (_, subset, labels, values, share) in enumerate(lines):
            false, true, _ = roc_curve(labels, values, sample_weight=share)
            auc = roc_auc_score(labels, values, sample_weight=share)
            ax.plot(false, true, label=f"{subset}: balanced AUC {auc:.3f}", **style(number))
        ax.set(xlabel="false positive rate (share of reals)", ylabel="true positive rate (share of fakes)")
        ax.legend(fontsize=8, loc="lower right")
    return fig


def reliability(scores: pd.DataFrame, subsets: Mapping[str, np.ndarray]) -> Figure | None:
    """Share of fakes against the mean probability in ten equal bins, balanced; a dot's area is its files' weight."""
    fig, found = panels(scores, subsets)
    for ax, lines in found:
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="calibrated")
        for number, (_, subset, labels, values, share) in enumerate(lines):
            cell = np.minimum((values * BINS).astype(np.int64), BINS - 1)
            count = np.bincount(cell, share, minlength=BINS)
            full = count > 0
            mean, fakes = (np.bincount(cell, w * share, BINS)[full] / count[full] for w in (values, labels))
            ax.plot(mean, fakes, label=f"{subset} ({len(labels)} files)", **style(number))
            ax.scatter(mean, fakes, s=10 + 190 * count[full] / count.max(), color=style(number)["color"], alpha=0.5)
        ax.set(xlabel="mean probability of fake", ylabel="share of fakes", xlim=(0, 1), ylim=(-0.03, 1.03))
        ax.legend(fontsize=8, loc="upper left")
    return fig


def forest(
    rows: Sequence[tuple[str, Mapping[str, Any], int]], metric: str = "auc", label: str = "balanced AUC, 95 % interval"
) -> Figure | None:
    """A dot and its interval for each (name, row, colour), from above in their order; the line is chance."""
    rows = [row for row in rows if np.isfinite(row[1][metric])]
    if not rows:
        return None
    fig, (ax,) = figure(1, 1.1 + 0.27 * len(rows), 8.2)
    for place, (_, row, colour) in enumerate(rows):
        ax.plot(row[metric], place, "o" if colour == 0 else "D", color=COLOURS[colour], markersize=5)
        ax.plot([row[f"{metric}_low"], row[f"{metric}_high"]], [place, place], color=COLOURS[colour], linewidth=1.5)
    ax.axvline(0.5, color="0.6", linewidth=1)
    ax.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8)
    ax.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5), xlim=(min(0.4, min(r[metric] for _, r, _ in rows) - 0.05), 1.01))
    return fig


def line(ax: Axes, table: pd.DataFrame, x: str, y: str) -> None:
    """`y` against `x`, with its 95 % bounds as a band."""
    ax.plot(table[x], table[y], marker="o", markersize=4, **style(0))
    ax.fill_between(table[x], table[f"{y}_low"], table[f"{y}_high"], color=COLOURS[0], alpha=0.15)


def sync_shifts(shifts: pd.DataFrame) -> Figure | None:
    """What the sync stream finds of audio that was shifted on purpose."""
    if shifts.empty:
        return None
    fig, axes = figure(2)
    line(axes[0], shifts, "shift_frames", "recovered")
    axes[0].set(ylim=(0, 1.03), ylabel="share recovered within ±1 frame")
    line(axes[1], shifts, "shift_frames", "mean_error_frames")
    axes[1].set(ylabel="mean absolute error (frames of 40 ms)")
    axes[1].set_ylim(bottom=0)
    for ax in axes:
        ax.set_xlabel("shift of the audio (frames of 40 ms; > 0: later)")
    return fig


def robustness(table: pd.DataFrame) -> Figure | None:
    """Balanced AUC against the severity of each treatment, beside the files as they are."""
    clean = table[table["condition"] == "clean"] if len(table) else table
    conditions = [name for name in table["condition"].unique() if name != "clean"] if len(table) else []
    if not conditions:
        return None
    columns = min(3, len(conditions))
    fig, axes = figure(columns, 3.4, 4.4, -(-len(conditions) // columns))
    shown = [key for key, rows in table.groupby(["subset", "score"], sort=False) if rows["auc"].notna().any()]
    for ax, name in zip(axes, conditions, strict=False):
        treated = table[table["condition"] == name]
        levels = list(treated["severity"].unique())
        for number, (subset, score) in enumerate(shown):
            rows = pd.concat([part[(part["subset"] == subset) & (part["score"] == score)] for part in (clean, treated)])
            rows = rows.assign(
                place=[0 if r.condition == "clean" else 1 + levels.index(r.severity) for r in rows.itertuples()]
            )
            if (rows["condition"] == name).any():
                line = rows["place"], rows["auc"]
                ax.plot(*line, marker="o", markersize=4, label=f"{subset}: {SCORES[score]}", **style(number))
                ax.fill_between(line[0], rows["auc_low"], rows["auc_high"], color=style(number)["color"], alpha=0.1)
        ax.axhline(0.5, color="0.6", linewidth=1)
        ax.set_xticks(range(len(levels) + 1), ["as is", *(f"{level:g}" for level in levels)])
        ax.set(title=name, xlabel=str(treated["unit"].iloc[0]), ylabel="balanced AUC", ylim=(0, 1.03))
    for ax in axes[len(conditions) :]:
        ax.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return fig
