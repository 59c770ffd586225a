"""The report page as text: whole, self-contained, and right in every state of the evidence."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest
from evidence_samples import STATES, changed, evidence
from rich.console import Console

from avdetect.batch.tables import TerminalTable
from avdetect.report import svg, words
from avdetect.report.data import to_dict, to_row
from avdetect.report.page import first_shown, render_page
from avdetect.report.rows import MOST_TRACKS, Axis, Line, Row, _runs, rows
from avdetect.report.text import render
from avdetect.report.words import TONES, tone_css
from avdetect.types import Curve, Rate

VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []  # that a reader sees
        self.raw: dict[str, list[str]] = {"style": [], "script": []}
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.raw.get(self.open[-1] if self.open else "", self.words).append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@functools.cache
def page_of(state: str) -> tuple[str, Page]:
    text = render_page(STATES[state]())
    return text, Page(text)


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_a_whole_page_that_loads_nothing(state: str) -> None:
    text, page = page_of(state)
    assert text.startswith("<!doctype html>")
    assert page.open == []
    assert page.all("html")[0]["lang"] == "en"
    loaded = [a.get(name) or "" for _, a in page.tags for name in ("src", "href", "srcset", "xlink:href", "action")]
    assert {value.partition(":")[0] if value[:1] != "#" else "#" for value in loaded if value} <= {"data", "#"}
    assert not [tag for tag in ("link", "iframe") if page.all(tag)]
    assert not [loader for loader in ("url(", "@import") if loader in text]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a") if a["href"]} <= set(ids)
    assert len(text) <= 5_000_000
    obeys_its_own_policy(page)
    # Every picture is described, no number is NaN, no level of headings is left out.
    assert all(image.get("alt") for image in page.all("img"))
    for drawing in page.all("svg"):
        named = drawing.get("role") == "img" and drawing.get("aria-label")
        nested = "viewbox" in drawing or drawing.get("class") in ("picture", "handle")
        assert named or nested or drawing.get("aria-hidden") == "true", drawing
    values = [value or "" for _, a in page.tags for value in a.values() if not (value or "").startswith("data:")]
    assert [v for v in (page.text, *values) if re.search(r"\b(nan|inf|None%|undefined)\b", v)] == []
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(after <= before + 1 for before, after in pairwise(levels))


def obeys_its_own_policy(page: Page) -> None:
    (policy,) = [m["content"] or "" for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind in ("style", "script"):
        (text,) = page.raw[kind]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not [name for _, a in page.tags for name in a if name == "style" or name.startswith("on")]


SAID = {
    "fake": (
        *("Fake", "Sound late by 0.12 s", "Undecided from 0.45, fake from 0.54.", "avdetect score clip.mp4"),
        "5 in 100 reach this; of fakes, at most 31 in 100.",
    ),
    "no_sign": ("No sign found", "This bundle states no limits"),
    "undecided_with_segments": ("Undecided", "Moderate signs", "Read this first", "1.5 s to 4 s"),
    "abstain": ("Abstain", "There was nothing to judge", "No audio stream.", "No face."),
    "no_face": ("Not judged: no face.", "P(fake)"),
    "no_sound": ("Not judged: no audio stream.",),
    "silent": ("Not judged: no audio stream.", "high tones at the top"),
    "no_sync": ("Not judged: less than 1 s of a face with voice.",),
    "nothing_kept": ("No pictures of this file were kept.", "Nothing is known of the file's format."),
    "crowd": ("64 faces followed", "and 58 less suspicious ones", "24 less suspicious faces are left out"),
    "window": ("1:01.5 to 1:13.5", "avdetect score --start 61.5 --duration 12 clip.mp4"),
    "hour": ("1:00:00", "the mean of 18 s"),
    "nan": ("The model gave no usable probability.", "No usable score."),
}


@pytest.mark.parametrize("state", SAID)
def test_states_say_what_they_are(state: str) -> None:
    text = page_of(state)[1].text
    assert [sentence for sentence in SAID[state] if sentence not in text] == []


def test_a_hostile_name_is_text() -> None:
    text, page = page_of("hostile_name")
    assert len(page.all("script")) == 1
    assert not [evil for evil in ("<img onerror", "\x1b", "\u202e") if evil in text]
    assert "\\x1b[31m\\u202egpj.mp4\\udcff" in page.text
    text.encode()
    assert "someone" not in page_of("fake")[1].text  # only the name of the file, not whose folder it was in
    # Nor does what a model says end an element.
    evil = changed(STATES["no_face"](), missing={"visual": "</script><script>alert(1)</script>\u202e"})
    page = Page(render_page(evil))
    assert len(page.all("script")) == 1
    assert "alert(1)</script>\\u202e." in page.text


def test_the_command_gives_the_result_again() -> None:
    for path, start, asked, command in (
        ("in/-a b's.mp4", 0.0, None, "-- '-a b'\"'\"'s.mp4'"),
        ("clip.mp4", 2.48, None, "--start 2.48 clip.mp4"),
        ("clip.mp4", 12345.68, 0.5, "--start 12345.68 --duration 0.5 clip.mp4"),
    ):
        found = replace(changed(evidence(2.0, start=start, frames=2), path=path), asked_seconds=asked)
        page = render_page(found)
        assert f"<code>avdetect score {command}</code>" in unescape(page)
        assert page == render_page(found)


def test_marked_stretches_are_shaded_in_the_rows_of_their_stream() -> None:
    _, page = page_of("undecided_with_segments")
    bands = [a for a in page.all("rect") if str(a["class"]).startswith("band")]
    assert len([a for a in page.all("rect") if a["class"] == "segment"]) == 3
    shown = STATES["undecided_with_segments"]()
    streams = [row.stream for row in rows(shown)]
    assert len(bands) == sum(streams.count(segment.stream) for segment in shown.detection.segments)
    assert {a["x"] for a in bands} == {f"{round(100 * s / 6.2, 2)}%" for s in (1.0, 1.5, 4.0)}


def test_the_most_suspicious_track_has_the_first_colour() -> None:
    visual, *others = evidence(tracks=3).detection.streams
    turned = changed(evidence(tracks=3), streams=(replace(visual, curves=visual.curves[::-1]), *others))
    face = rows(turned)[0]
    assert face.legend[0][0] == face.lines[0].colour == 0
    assert face.legend[0][1].startswith("track 0,")


def drawn(axis: Axis, row: Row, values: list[tuple[float, float | None]]) -> tuple[str, str]:
    found = Line(0, _runs(axis, values))
    return svg.line(axis, row, found), svg.spread(axis, row, found)


def test_gaps_stay_gaps_the_last_second_is_cut_and_a_long_curve_is_means_between_its_extremes() -> None:
    axis, row = Axis.over(0, 6.2), Row("", "visual", 100, low=-1)
    points = [(0.5, 0.0), (1.5, 0.5), (2.5, None), (4.5, 1.0), (5.5, float("nan"))]
    assert drawn(axis, row, points)[0] == "M0.0 50.0L80.6 50.0L241.9 25.0L322.6 25.0M645.2 0.0L725.8 0.0L806.5 0.0"
    assert drawn(axis, row, [(6.5, 1.0)])[0] == "M967.7 0.0L983.9 0.0L1000.0 0.0"
    assert drawn(axis, row, [])[0] == ""
    points = [(s + 0.5, 20.0 if s % 2 else 40.0) for s in range(400)]
    mean, spread = drawn(Axis.over(0, 400), Row("", "visual", 100, high=100), points)
    assert mean.startswith("M0.0 70.0L2.5 70.0L")
    assert " 60.0" in spread
    assert " 80.0" in spread


def test_ticks_and_clock() -> None:
    for start, length, expected in (
        (0, 6.2, "0 s, 2 s, 4 s, 6 s"),
        (61.5, 12, "1:02, 1:04, 1:06, 1:08, 1:10, 1:12"),
        (0, 3600, "0 s, 10:00, 20:00, 30:00, 40:00, 50:00, 1:00:00"),
        (0, 0, "0 s, 0.02 s, 0.04 s"),
    ):
        ticks = ", ".join(tick.text for tick in svg.ticks(Axis.over(start, length)))
        assert ticks.replace(words.SPACE, " ") == expected
    said = {0: "0 s", 3.456: "3.46 s", 59.996: "1:00", 62.5: "1:02.5", 3723: "1:02:03", -0.5: "−0.5 s"}
    assert {seconds: words.clock(seconds).replace(words.SPACE, " ") for seconds in said} == said


def test_the_cursor_begins_at_the_worst_second_of_the_worse_cause() -> None:
    visual, audio, sync = evidence().detection.streams
    face, voice = Curve((0.5, 1.5, 2.5), (0.0, 3.0, 1.0), 1.0, 0), Curve((0.5, 6.5), (0.0, 3.0), 1.0)
    found = changed(evidence(), streams=(replace(visual, curves=(face,)), replace(audio, curves=(voice,)), sync))
    assert first_shown(found)[0] == 6.1  # the middle of what there is of that second
    assert first_shown(changed(found, video_fake=0.9))[0] == 1.5


def test_the_match_is_told_with_its_probability() -> None:
    found = evidence().detection
    assert found.sync
    found = replace(found, sync=replace(found.sync, offset_seconds=0.04, confidence=0.3))
    for probability, said, headline, tone in (
        (0.8, "strong signs", "Strong signs of a mismatch", "fake"),
        (0.5, "moderate signs", "Moderate signs of a mismatch", "undecided"),
        (0.2, "no sign found", "In step", "plain"),
    ):
        shown = replace(found, mismatch=probability)
        card = words.causes(shown)[2]
        assert (card.headline, card.tone, card.probability) == (headline, tone, probability)
        line = next(line for line in render(shown).plain.splitlines() if line.startswith("  match "))
        assert line.startswith(f"  match  {probability:.2f}  ")
        assert line.endswith(f"  {said}, offset +0.04 s (in step)")
        assert len(line) <= 80


def test_a_probability_and_the_threshold_that_it_misses_look_unlike_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0.54 and 0.54; 0.538 and 0.539; at the threshold it is called fake.
    digits = {0.3: 2, 0.5361: 3, 0.5384: 3, 0.53862: 4, 0.5388: 2, None: 2}
    assert {probability: words.digits_apart(probability, 0.5388) for probability in digits} == digits
    assert words.digits_apart(0.538795, 0.538799) == 4, "no more, though they look alike"
    close = changed(STATES["undecided_with_segments"](), fake=0.53862, fake_threshold=0.5388)
    said = "0.5386 (undecided from 0.4500, fake from 0.5388)"
    assert f"P(fake) = {said}" in render(close.detection).plain
    assert "P(fake)</span> <b>0.5386</b>" in render_page(close)
    out = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=out, width=100))
    table = TerminalTable()
    table.add(to_dict(close.detection))
    stands_out = changed(close, fake=0.1, reason="the voice stands out", path="quiet.mp4", warnings=())
    table.add(to_dict(stands_out.detection))
    table.close()
    assert " 0.5386 " in out.getvalue()
    assert "quiet.mp4: the voice stands out\n" in out.getvalue()
    assert f"shows them: {close.detection.path}\n" in out.getvalue(), "of the two only this one has a warning"


def luminance(colour: str) -> float:
    parts = [part / 255 for part in bytes.fromhex(colour[1:])]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast() -> None:
    css = tone_css() + files("avdetect.report").joinpath("page.css").read_text(encoding="utf-8")
    blocks = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", b)) for b in re.findall(r":root \{([^}]*)\}", css)]
    assert len(blocks) == 4, "light and dark, of tones and page"
    for theme in (0, 1):
        colours = blocks[theme] | blocks[theme + 2]
        texts = ("ink", "soft", "link", *TONES)
        assert [(t, p) for t in texts for p in ("page", "card") if contrast(colours[t], colours[p]) < 4.5] == []
        assert contrast(colours["warn"], colours["warn-page"]) >= 4.5
        shapes = ("edge", "wave", "t0", "t1", "t2", "t3", "t4", "t5")
        assert [s for s in shapes if contrast(colours[s], colours["page"]) < 3] == []
    assert ":root" not in css.partition("@media print")[2], "paper has the colours of light"
    dashes = re.findall(r"^\.t[1-5] \{ stroke: var\(--t\d\); stroke-dasharray: ([\d ]+); \}", css, re.M)
    assert len(set(dashes)) == MOST_TRACKS - 1, "lines differ by more than colour"


def test_rates_are_told_as_they_were_measured() -> None:
    for state, rate, said in (
        ("fake", Rate(0.9, 0.002, 0.15), "fewer than 1 in 100 reach this; of fakes, at most 15 in 100."),
        ("fake", Rate(0.99, 0.0, 0.15), "fewer than 1 in 100 reach this; of fakes, at most 15 in 100."),
        ("fake", Rate(0.8, 0.0514, 0.4962), "at most 6 in 100 reach this; of fakes, at most 50 in 100."),
        ("no_sign", Rate(0.4, 0.07, 0.857), "at most 7 in 100 reach this; of fakes, at least 14 in 100 score lower."),
        ("no_sign", Rate(0.1, 0.7, 0.95), "more than half reach this; of fakes, at least 5 in 100 score lower."),
        ("no_sign", Rate(0.0, 1.0, 1.0), "of real files of unseen sources, more than half reach this."),
    ):
        assert words.rarity(changed(STATES[state](), rates={"fake": rate}).detection).lower().endswith(said)


def test_a_whole_that_is_above_its_causes_is_explained() -> None:
    """The last has an output that is no noisy-or of its causes."""
    said = "P(fake) adds the causes up (noisy-or), so it is above each of them"
    for fake, causes, explained in (
        (0.444, (0.14, 0.05, 0.32), True),
        (0.95, (0.94, 0.1, None), False),
        (0.7, (0.14, 0.05, 0.32), False),
    ):
        face, voice, match = causes
        shown = changed(evidence(), fake=fake, video_fake=face, audio_fake=voice, mismatch=match)
        assert (said in render(shown.detection).plain, said in render_page(shown)) == (explained, explained)


def test_the_curve_of_a_face_ends_with_the_face() -> None:
    found = evidence()
    (track,) = found.detection.tracks
    shown = changed(found, tracks=(replace(track, start_seconds=0.4, end_seconds=5.2),))
    (line,) = rows(shown)[0].lines
    assert (line.runs[0][0].left, line.runs[-1][-1].right) == pytest.approx((0.2, 5.4))


def test_a_row_of_csv_says_what_was_scored_and_how_it_is_judged() -> None:
    shown = changed(STATES["fake"](), windows=((0.0, 12.0), (60.0, 72.5)), start_seconds=1.5, limit="No proof.")
    row = to_row(to_dict(shown.detection))
    assert (row["windows"], row["start_seconds"], row["limit"]) == ("0.0-12.0; 60.0-72.5", 1.5, "No proof.")
    assert row["fake_threshold"] == shown.detection.fake_threshold
