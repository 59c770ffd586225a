"""README's picture of a report: the sample scored, its page photographed by a Chromium that is installed.

    python tools/screenshot.py [--chromium /usr/bin/chromium] [--out tools/screenshot.png]

Needs playwright (extra dev).
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

import avdetect
from avdetect.extras import script_imports
from avdetect.report.page import render_page
from avdetect.report.recorder import Recorder

with script_imports("screenshot", "dev"):
    from PIL import Image
    from playwright.sync_api import sync_playwright

SAMPLE = Path(avdetect.__file__).parent / "weights" / "sample" / "sample.mp4"
WIDTH, HEIGHT = 1200, 1480  # pixels: down to the rows of the time axis


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    arguments = parser.parse_args()
    detector, recorder = avdetect.load_detector(device="cpu"), Recorder()
    evidence = recorder.evidence(detector, detector.score(SAMPLE, observer=recorder))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "report.html"
        page_file.write_text(render_page(evidence), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(page_file.as_uri())
        picture = page.screenshot()
        browser.close()
    # 256 colours: half the bytes, and nobody sees it.
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(256).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
