"""The report page as text: whole, self-contained, and right in every state of the evidence."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest
from evidence_samples import STATES, evidence

from avdetect.report import axis, cursor, words
from avdetect.report.curves import MOST_TRACKS, line, spread, waveform
from avdetect.report.drawing import Scale, TimeAxis
from avdetect.report.page import render_page
from avdetect.report.words import TONES, tone_css
from avdetect.types import Curve

VOID = {"meta", "img", "input", "br"}
MEGABYTE = 1_000_000


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

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]].append(data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@functools.cache
def html_of(state: str) -> str:
    return render_page(STATES[state]())


@functools.cache
def page_of(state: str) -> Page:
    return Page(html_of(state))


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_a_whole_page_that_loads_nothing(state: str) -> None:
    text, page = html_of(state), page_of(state)
    assert text.startswith("<!doctype html>")
    assert page.open == []
    assert page.all("html")[0]["lang"] == "en"
    loaded = [a.get(name) or "" for _, a in page.tags for name in ("src", "href", "srcset", "xlink:href", "action")]
    assert {value.partition(":")[0] if value[:1] != "#" else "#" for value in loaded if value} <= {"data", "#"}
    assert not page.all("link")
    assert not page.all("iframe")
    assert "url(" not in text
    assert "@import" not in text
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a") if a["href"]} <= set(ids)


@pytest.mark.parametrize("state", STATES)
def test_every_state_obeys_its_own_policy(state: str) -> None:
    page = page_of(state)
    (policy,) = [m["content"] or "" for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    (style,), (data, script) = page.raw["style"], page.raw["script"]
    for kind, text in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert set(json.loads(data)) == {"start", "end", "at", "step", "seconds"}
    assert not [name for _, a in page.tags for name in a if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("state", STATES)
def test_every_picture_is_described_and_no_number_is_nan(state: str) -> None:
    page = page_of(state)
    assert all(image.get("alt") for image in page.all("img"))
    for svg in page.all("svg"):
        named = svg.get("role") == "img" and svg.get("aria-label")
        nested = "viewbox" in svg or svg.get("class") in ("picture", "handle")
        assert named or nested or svg.get("aria-hidden") == "true", svg
    values = [value or "" for _, a in page.tags for value in a.values() if not (value or "").startswith("data:")]
    assert [
        v for v in (page.text, *values, page.raw["script"][0]) if re.search(r"\b(nan|inf|None%|undefined)\b", v)
    ] == []
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize(
    ("state", "sentences"),
    [
        (
            "fake",
            [
                "Fake",
                "Sound late by 0.12 s",
                "Undecided from 0.45, fake from 0.54.",
                "Of real files of unseen sources, 5 in 100 reach this; of fakes, 31 in 100.",
            ],
        ),
        ("no_sign", ["No sign found", "This bundle states no limits", "None was found"]),
        (
            "undecided_with_segments",
            ["Undecided", "Moderate signs", "Read this first", "1.5 s to 4 s"],
        ),
        ("abstain", ["Abstain", "There was nothing to judge", "No audio stream.", "No face."]),
        ("no_face", ["Not judged: no face.", "P(fake)"]),
        ("no_sound", ["Not judged: no audio stream."]),
        ("no_sync", ["Not judged: less than 1 s of a face with voice."]),
        ("no_frames", ["No pictures of this file were kept."]),
        ("nothing_kept", ["Nothing is known of the file's format."]),
        ("crowd", ["30 faces followed", "and 24 more", "of 2 less suspicious tracks are left out", "track 29"]),
        ("window", ["1:01.5 to 1:13.5", "avdetect score --start 61.5 --duration 12 clip.mp4"]),
        ("hour", ["1:00:00", "the mean of 18 s"]),
        ("nan", ["The model gave no usable probability.", "No usable score."]),
    ],
)
def test_states_say_what_they_are(state: str, sentences: list[str]) -> None:
    text = page_of(state).text
    assert [s for s in sentences if s not in text] == []


def test_what_blurring_shows_and_does_not_is_said() -> None:
    text = page_of("fake").text
    assert "It is no map of the manipulated area and no proof" in text
    assert "No blurred patch lowers it" in text
    unblurred = replace(evidence(), moments=tuple(replace(m, overlay=None) for m in evidence().moments))
    assert "blurred" not in Page(render_page(unblurred)).text


def test_the_table_of_a_film_ends() -> None:
    page = Page(render_page(evidence(12.0, tracks=64, frames=2)))
    assert len(page.all("tr")) == 1 + 40
    assert "24 less suspicious faces are left out" in page.text


def test_a_hostile_name_is_text() -> None:
    text, page = html_of("hostile_name"), page_of("hostile_name")
    assert len(page.all("script")) == 2
    assert "<img onerror" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[31m\\u202egpj.mp4\\udcff" in page.text
    text.encode()
    assert "someone" not in page_of("fake").text  # only the name of the file, not whose folder it was in


def test_no_text_ends_the_script_element() -> None:
    whole = STATES["no_face"]()
    reason = "</script><script>alert(1)</script>\u202e"
    evil = replace(whole, detection=replace(whole.detection, missing={"visual": reason}))
    page = Page(render_page(evil))
    assert len(page.all("script")) == 2
    told = json.loads(page.raw["script"][0])["seconds"]["0"][1]
    assert "</script>" in told
    assert told.endswith("\\u202e.")


def test_a_command_that_a_shell_reads_as_it_stands() -> None:
    whole = evidence(frames=2)
    odd = replace(whole, detection=replace(whole.detection, path="in/-a b's.mp4"))
    assert "avdetect score -- '-a b'\"'\"'s.mp4'" in unescape(render_page(odd))


@pytest.mark.parametrize(
    ("start", "asked", "options"),
    [(0.0, 2.0, "--duration 2 "), (2.48, None, "--start 2.48 "), (12345.68, 0.5, "--start 12345.68 --duration 0.5 ")],
)
def test_the_command_names_the_window_that_was_asked_for(start: float, asked: float | None, options: str) -> None:
    page = render_page(replace(evidence(2.0, start=start, frames=2), asked_seconds=asked))
    assert f"<code>avdetect score {options}clip.mp4</code>" in unescape(page)


def test_a_minute_is_small_and_an_hour_bounded() -> None:
    assert len(html_of("minute").encode()) <= 5 * MEGABYTE
    assert len(html_of("hour").encode()) <= 5 * MEGABYTE


def test_the_same_evidence_gives_the_same_bytes() -> None:
    assert render_page(STATES["undecided_with_segments"]()) == html_of("undecided_with_segments")


def test_marked_stretches_stand_in_every_row() -> None:
    rows = axis.rows(STATES["undecided_with_segments"]())
    page = page_of("undecided_with_segments")
    drawn = [a for a in page.all("rect") if str(a["class"]).startswith("band")]
    assert len([a for a in page.all("rect") if str(a["class"]).startswith("segment")]) == 3
    assert len(drawn) == 3 * (len([row for row in rows if not row.absent]) - 1)
    assert {a["x"] for a in drawn} == {f"{round(100 * s / 6.2, 2)}%" for s in (1.0, 1.5, 4.0)}


def test_the_most_suspicious_track_is_the_first_and_drawn_last() -> None:
    whole = evidence(tracks=3)
    (visual, *others) = whole.detection.streams
    turned = replace(
        whole, detection=replace(whole.detection, streams=(replace(visual, curves=visual.curves[::-1]), *others))
    )
    row = axis.rows(turned)[1]
    assert row.legend[0].text.startswith("track 0,")
    assert row.paths[-1].css == "track t0"


def test_without_its_picture_the_voice_is_a_line_on_the_page() -> None:
    row = axis.rows(replace(evidence(), sound=None))[2]
    assert (row.title, row.image, row.paths[-1].css) == ("Voice", None, "track t0")
    assert "spectrogram" not in row.note
    assert [r.title for r in axis.rows(replace(evidence(), sound=None))].count("Waveform") == 0


def test_gaps_stay_gaps_and_the_last_second_is_cut() -> None:
    time, scale = TimeAxis.over(0, 6.2), Scale(-1, 1)
    points = [(0.5, 0.0), (1.5, 0.5), (2.5, None), (4.5, 1.0), (6.5, float("nan"))]
    assert line(time, scale, points, "").d == "M0.0 50.0L80.6 50.0L241.9 25.0L322.6 25.0M645.2 0.0L725.8 0.0L806.5 0.0"
    assert line(time, scale, [(6.5, 1.0)], "").d == "M967.7 0.0L983.9 0.0L1000.0 0.0"
    assert line(time, scale, [], "").d == ""


def test_a_long_curve_is_drawn_as_means_between_its_extremes() -> None:
    time, scale = TimeAxis.over(0, 400), Scale(0, 100)
    points = [(s + 0.5, 20.0 if s % 2 else 40.0) for s in range(400)]
    assert line(time, scale, points, "").d.startswith("M0.0 70.0L2.5 70.0L")
    assert " 60.0" in spread(time, scale, points, "").d
    assert " 80.0" in spread(time, scale, points, "").d
    assert spread(TimeAxis.over(0, 60), scale, points, "").d == ""


def test_many_peaks_become_fewer_and_none_is_lost() -> None:
    drawn = waveform(((0.0, 0.0),) * 3999 + ((-1.0, 1.0),)).d
    assert drawn.count("H") <= 2000
    assert " 2.0H" in drawn
    assert " 98.6H" in drawn


@pytest.mark.parametrize(
    ("start", "length", "ticks"),
    [
        (0, 6.2, ["0 s", "2 s", "4 s", "6 s"]),
        (61.5, 12, ["1:02", "1:04", "1:06", "1:08", "1:10", "1:12"]),
        (0, 0.2, ["0 s", "0.05 s", "0.1 s", "0.15 s", "0.2 s"]),
        (0, 3600, ["0 s", "10:00", "20:00", "30:00", "40:00", "50:00", "1:00:00"]),
        (0, 0, ["0 s", "0.02 s", "0.04 s"]),
    ],
)
def test_ticks(start: float, length: float, ticks: list[str]) -> None:
    assert [tick.text.replace(words.SPACE, " ") for tick in TimeAxis.over(start, length).ticks()] == ticks


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (3.456, "3.46 s"),
        (59.996, "1:00"),
        (62.5, "1:02.5"),
        (3723, "1:02:03"),
        (-0.5, "−0.5 s"),
        (None, "–"),
    ],
)
def test_clock(seconds: float, text: str) -> None:
    assert words.clock(seconds).replace(words.SPACE, " ") == text


def test_readings_are_those_of_the_second() -> None:
    whole = STATES["undecided_with_segments"]()
    found = cursor.readings(whole)
    assert list(found) == list(range(7))
    assert found[0][0] == "nothing"
    assert found[1][0].replace(words.SPACE, " ") == "face, track 0: 1 s to 2 s; voice: 1.5 s to 4 s"
    face = whole.detection.streams[0].curves[0].probabilities[1]
    assert f"track 0: {words.number(face)}" in found[1][1]
    assert found[3][1] == "no score"
    assert found[3][3] == "not measured"


def test_the_cursor_begins_at_the_worst_second_of_the_worse_part() -> None:
    whole = evidence()
    face = Curve((0.5, 1.5, 2.5), (0.0, 3.0, 1.0), 1.0, 0)
    voice = Curve((0.5, 6.5), (0.0, 3.0), 1.0)
    visual, audio, sync = whole.detection.streams
    streams = (replace(visual, curves=(face,)), replace(audio, curves=(voice,)), sync)
    found = replace(whole.detection, streams=streams)
    assert cursor.first(replace(whole, detection=found))[0] == 6.1  # the middle of what there is of that second
    assert cursor.first(replace(whole, detection=replace(found, video_fake=0.9)))[0] == 1.5


@pytest.mark.parametrize("frames", [0, 1, 3, 120])
def test_the_strip_spans_the_file(frames: int) -> None:
    chosen = cursor.strip(evidence(frames=frames))
    assert len(chosen) == min(frames, cursor.STRIP_CELLS)
    assert [frame.seconds for frame in chosen.values()] == sorted(frame.seconds for frame in chosen.values())


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def themes() -> list[dict[str, str]]:
    css = tone_css() + files("avdetect.report").joinpath("page.css").read_text(encoding="utf-8")
    blocks = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", b)) for b in re.findall(r":root \{([^}]*)\}", css)]
    assert len(blocks) == 4, "light and dark, of tones and page"
    return [blocks[0] | blocks[2], blocks[1] | blocks[3]]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast(theme: int) -> None:
    colours = themes()[theme]
    texts = ("ink", "soft", "link", *TONES)
    low = [(t, p) for t in texts for p in ("page", "card") if contrast(colours[t], colours[p]) < 4.5]
    assert low == []
    assert contrast(colours["warn"], colours["warn-page"]) >= 4.5
    shapes = ("edge", "wave", "t0", "t1", "t2", "t3", "t4", "t5")
    assert [s for s in shapes if contrast(colours[s], colours["page"]) < 3] == []


def test_paper_has_the_colours_of_light() -> None:
    css = tone_css() + files("avdetect.report").joinpath("page.css").read_text(encoding="utf-8")
    assert (
        re.findall(r"@media ([^{]*prefers-color-scheme: dark)", css) == ["screen and (prefers-color-scheme: dark"] * 2
    )
    assert ":root" not in css.partition("@media print")[2]


def test_lines_differ_by_more_than_colour() -> None:
    css = files("avdetect.report").joinpath("page.css").read_text(encoding="utf-8")
    dashes = re.findall(r"^\.t[1-5] \{ stroke: var\(--t\d\); stroke-dasharray: ([\d ]+); \}", css, re.M)
    assert len(set(dashes)) == MOST_TRACKS - 1
