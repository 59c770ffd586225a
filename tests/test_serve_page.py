"""The page of `avdetect serve` in a real browser: a video is dropped, followed, read, cancelled, deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import serve_scorers
from serve_running import SAMPLE, Running, running

from avdetect.extras import how_to_install
from avdetect.serve.worker import score_upload

pytest.importorskip("playwright", reason=how_to_install("dev"))
from playwright.sync_api import Browser, Page, expect

expect.set_options(timeout=20_000)
TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which nothing may go wrong: no error, and no request to another host."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    made, wrong, hosts = context.new_page(), [], set()
    made.set_default_timeout(20_000)
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda said: "Content Security Policy" in said.text and wrong.append(said.text))
    made.on("request", lambda request: hosts.add(request.url.split("/")[2].split(":")[0]))
    yield made
    width = made.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert wrong == []
    assert hosts <= {"127.0.0.1"}
    assert width <= 390, "the page is wider than a phone"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "data", serve_scorers.by_text, processes=True, max_upload_bytes=1024**2) as made:
        yield made


def choose(page: Page, text: str, name: str = "clip.mp4") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "video/mp4", "buffer": text.encode()})


def drop(page: Page, name: str, text: str) -> None:
    """Drop a file on the page, as a mouse would."""
    data = page.evaluate_handle(
        "([name, text]) => { const d = new DataTransfer();"
        "d.items.add(new File([text], name, {type: 'video/mp4'})); return d; }",
        [name, text],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})


def test_a_dropped_video_is_followed_to_its_verdict_and_report(page: Page, server: Running) -> None:
    page.goto(f"{server.url}/#%E0%A4%A")  # a broken address opens the page all the same
    expect(page.locator("#drop")).to_be_visible()
    drop(page, "holiday.mp4", "slow")
    expect(page.locator("h1", has_text="holiday.mp4")).to_be_visible()
    expect(page.locator("#stages [aria-current]")).to_have_text("Scoring")
    expect(page.locator("#announce")).to_have_text("Scoring")
    expect(page.locator("#job-now")).to_contain_text("% of the video")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile(r"[1-9]\d"))
    expect(page.locator("#verdict .word")).to_have_text("Fake")
    report = page.frame_locator("#report")
    expect(report.locator("h1")).to_have_text("holiday.mp4")
    expect(report.locator("#click")).to_have_text("script ran")
    id = page.url.partition("#")[2]
    assert server.job(id)["status"] == "done"
    page.reload()  # the address keeps it
    expect(page.locator("#verdict .word")).to_have_text("Fake")


def test_a_report_cannot_call_the_server(browser: Browser, server: Running) -> None:
    id = server.submit("0.9")
    server.ended(id)
    page = browser.new_page()
    page.goto(f"{server.url}/v1/jobs/{id}/report")
    assert page.evaluate("self.origin") == "null"
    assert page.evaluate("fetch('/v1/jobs').then(() => 'read', () => 'refused')") == "refused"
    page.close()


def test_a_broken_file_and_a_large_one_say_why(page: Page, server: Running) -> None:
    page.goto(server.url)
    expect(page.locator("#limits")).to_contain_text("Up to 1 MiB")
    choose(page, "x" * 1_100_000, "large.mp4")
    expect(page.locator("#start-problem")).to_contain_text("large.mp4 is larger (1 MiB) than this server takes")
    assert server.http.get("/v1/jobs").json()["jobs"] == []
    page.evaluate("server.max_upload_bytes = 1e12")  # as if the page did not know
    choose(page, "x" * 1_100_000, "large.mp4")
    expect(page.locator("#start-problem")).to_contain_text("The file is larger than this server takes (1 MiB)")
    choose(page, "bad", "broken.mp4")
    expect(page.locator("#job-problem")).to_contain_text("'broken.mp4' cannot be read")
    expect(page.locator("#verdict")).to_be_hidden()


def test_cancelled_deleted_and_two_at_once(page: Page, server: Running) -> None:
    page.goto(server.url)
    choose(page, "hang", "first.mp4")
    expect(page.locator("#stages [aria-current]")).to_have_text("Scoring")
    page.get_by_role("link", name="Another video").click()
    choose(page, "0.1", "second.mp4")
    expect(page.locator("#job-now")).to_have_text("Waiting: it is next")
    page.get_by_role("link", name="Another video").click()
    expect(page.locator("#jobs li")).to_have_count(2)
    expect(page.locator("#jobs li").nth(1)).to_contain_text("scoring 50 %")
    page.get_by_role("link", name="first.mp4").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#job-now")).to_have_text("Cancelled. The video is deleted.")
    page.go_back()
    expect(page.locator("#jobs li").nth(0)).to_contain_text("no sign found")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Delete first.mp4").click()
    expect(page.locator("#jobs li")).to_have_count(2)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete first.mp4").click()
    expect(page.locator("#jobs li")).to_have_count(1)


def test_it_works_with_the_keyboard_alone_and_after_a_restart(page: Page, tmp_path: Path) -> None:
    with running(tmp_path / "data", serve_scorers.by_text) as server:
        server.ended(server.submit("0.9", "typed.mp4"))
    with running(tmp_path / "data", serve_scorers.by_text) as server:
        page.goto(server.url)
        expect(page.locator("#jobs li")).to_contain_text("fake")
        reached = []
        for _ in range(8):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert {"file", "typed.mp4"} <= set(reached)  # the browser opens its dialogue on Enter
        page.get_by_role("link", name="typed.mp4").focus()
        page.keyboard.press("Enter")
        expect(page.frame_locator("#report").locator("h1")).to_have_text("typed.mp4")


def test_a_real_clip_and_report_on_a_server_with_a_token(page: Page, tmp_path: Path) -> None:
    with running(tmp_path / "data", score_upload, token=TOKEN) as server:
        page.goto(server.url)
        page.get_by_label("Token of this server").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not this server's token.")
        page.get_by_label("Token of this server").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("Up to")).to_be_visible()  # the script of the page has begun
        page.set_input_files("#file", SAMPLE)
        expect(page.locator("#verdict .word")).to_have_text("Fake", timeout=300_000)
        expect(page.locator("#verdict .reason")).to_have_text("The voice shows strong signs of manipulation.")
        expect(page.locator("#verdict .limit")).to_contain_text("A score is not proof")
        report = page.frame_locator("#report")
        expect(report.locator("body")).to_contain_text("sample.mp4")
        before, ruler = report.locator("#now").text_content(), report.locator("#ruler")
        box = ruler.bounding_box()
        assert box is not None
        ruler.click(position={"x": 0.8 * box["width"], "y": box["height"] / 2})  # the time axis, inside the sandbox
        expect(report.locator("#now")).not_to_have_text(before or "")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Token of this server")).to_be_visible()
