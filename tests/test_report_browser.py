"""The report page in a real browser: the cursor, no overflow, and not a single request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from evidence_samples import STATES

from avdetect.report.page import render_page

WIDE, NARROW = (1280, 900), (390, 844)


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page of a state from disk. At the end nothing may have been asked for, or complained about."""
    asked: list[str] = []
    said: list[str] = []
    contexts = []

    def visit(state: str, size: tuple[int, int] = WIDE, **options: Any) -> Any:
        path = tmp_path / f"{state}.html"
        path.write_text(render_page(STATES[state]()), encoding="utf-8", newline="")
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, reduced_motion="reduce", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        asked.remove(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith("data:")] == []
    assert said == []


def shown(page: Any, selector: str) -> str:
    """What stands there, with plain spaces."""
    return page.inner_text(selector).replace("\u00a0", " ")


def frame_seconds(page: Any) -> float:
    """Of the frame that is shown large; it is the picture that the page holds for that time."""
    seconds = page.get_attribute("#frame-large", "data-seconds")
    source = page.get_attribute(f"img.frame[data-seconds='{seconds}']", "src")
    assert page.get_attribute("#frame-large", "src") == source
    return float(seconds)


def click_at(page: Any, part: float, selector: str = "#axis .plot >> nth=0") -> None:
    """Click where `part` (0..1) of the time axis is."""
    row = page.locator(selector)
    row.scroll_into_view_if_needed()
    box, rows = page.locator("#ruler").bounding_box(), row.bounding_box()
    page.mouse.click(box["x"] + part * box["width"], rows["y"] + rows["height"] / 2)


def test_a_click_shows_the_nearest_frame(visit: Callable[..., Any]) -> None:
    page = visit("undecided_with_segments")
    click_at(page, 1.7 / 6.2, "#axis .plot >> nth=2")
    assert frame_seconds(page) == pytest.approx(1.7, abs=0.1)
    assert shown(page, "#now") == "1.7 s"
    assert page.evaluate("document.activeElement.id") == "ruler"
    assert page.get_attribute("#axis line.cursor >> nth=1", "x1").startswith("27.")
    plot = page.locator("#axis .plot >> nth=2")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 20)
    assert shown(page, "#now") == "4.65 s", "hovering looks"
    page.mouse.move(2, 2)
    assert shown(page, "#now") == "1.7 s", "and leaving returns"
    page = visit("fake", NARROW, has_touch=True, is_mobile=True)
    plot = page.locator("#axis .plot >> nth=1")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + box["height"] - 10)
    assert frame_seconds(page) == pytest.approx(3.1, abs=0.2), "so does a finger"


def test_the_keys_move_the_cursor(visit: Callable[..., Any]) -> None:
    page = visit("fake")
    ruler = page.locator("#ruler")
    assert ruler.get_attribute("role") == "slider"
    ruler.focus()
    for key, now, frame in (
        *(("Home", "0 s", 0.097), ("ArrowRight", "0.19 s", 0.291), ("ArrowRight", "0.39 s", 0.484)),
        *(("ArrowLeft", "0.19 s", 0.291), ("End", "6.2 s", 6.103), ("ArrowRight", "6.2 s", 6.103)),
    ):
        page.keyboard.press(key)
        assert shown(page, "#now") == now
        assert frame_seconds(page) == pytest.approx(frame, abs=0.1)
    assert ruler.get_attribute("aria-valuenow") == "6.20"
    assert ruler.get_attribute("aria-valuetext") == "6.2\u00a0s"


def test_segments_moments_and_lips_lead_to_their_time(visit: Callable[..., Any]) -> None:
    page = visit("undecided_with_segments")
    targets = {".segments button >> nth=1": 1.5, ".thumb >> nth=2": 2.4, "#mouths button": 2.5, ".mouths img": 2.5}
    for selector, seconds in targets.items():
        page.click(selector)
        assert float(page.get_attribute("#ruler", "aria-valuenow")) == pytest.approx(seconds, abs=0.02)
        assert frame_seconds(page) == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("state", STATES)
def test_nothing_overflows_on_a_telephone(visit: Callable[..., Any], state: str) -> None:
    page = visit(state, NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0]
    # Nothing sticks out that its parent does not scroll or cut.
    outside = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg') && "
        "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    if state == "narrow_frames":
        assert page.locator(".strip").bounding_box()["height"] < 300


@pytest.mark.parametrize("state", ["window", "instant", "abstain"])
def test_without_scripts_the_page_reads_the_same(visit: Callable[..., Any], state: str) -> None:
    """What stands there before the script runs is what the script shows at the same time."""
    scripted, written = visit(state), visit(state, java_script_enabled=False)
    assert [shown(scripted, s) for s in ("#now", "#frame-time")] == [shown(written, s) for s in ("#now", "#frame-time")]
    assert written.locator("#frame-large").is_visible()
    assert not written.locator(".script-only").is_visible()
    assert written.locator("button:enabled, [role=slider]").count() == 0


def test_dark_is_dark_and_paper_is_light(visit: Callable[..., Any]) -> None:
    page = visit("fake", color_scheme="dark")
    background = "getComputedStyle(document.querySelector('.card')).backgroundColor"
    assert page.evaluate(background) == "rgb(25, 29, 34)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
