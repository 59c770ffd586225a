"""A probability and the threshold that it misses never look alike, wherever they are shown."""

from __future__ import annotations

import io
from dataclasses import replace

import evidence_samples
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from avdetect.batch.tables import TerminalTable
from avdetect.report import plot
from avdetect.report.data import to_dict
from avdetect.report.evidence import Evidence
from avdetect.report.page import render_page
from avdetect.report.text import render
from avdetect.report.words import digits_apart


@pytest.mark.parametrize(
    ("probability", "threshold", "digits"),
    [
        (0.30, 0.54, 2),
        (0.5361, 0.5388, 3),  # 0.54 and 0.54
        (0.5384, 0.5388, 3),  # 0.538 and 0.539
        (0.53862, 0.5388, 4),
        (0.538795, 0.538799, 4),  # no more, though they look alike
        (0.5388, 0.5388, 2),  # at the threshold is called fake
        (0.5412, 0.5388, 2),
        (None, 0.5388, 2),
        (0.5, None, 2),
    ],
)
def test_as_many_digits_as_tell_them_apart(probability: float | None, threshold: float | None, digits: int) -> None:
    assert digits_apart(probability, threshold) == digits


@pytest.fixture
def close() -> Evidence:
    whole = evidence_samples.undecided_with_segments()
    return replace(whole, detection=replace(whole.detection, fake=0.53862, fake_threshold=0.5388))


def test_they_are_told_apart_everywhere(close: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "0.5386 (undecided from 0.4500, fake from 0.5388)"
    assert f"P(fake) = {said}" in render(close.detection).plain
    page = render_page(close)
    assert "P(fake)</span> <b>0.5386</b>" in page
    assert "Undecided from 0.4500, fake from 0.5388." in page
    figure = Figure()
    plot._headline(figure, close.detection)
    assert f"P(fake) = {said}" in figure.texts[0].get_text()
    out = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=out, width=100))
    table = TerminalTable()
    table.add(to_dict(close.detection))
    table.close()
    assert " 0.5386 " in out.getvalue()
