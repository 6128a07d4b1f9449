"""Screenshots of the report of ``make demo`` for the documentation, made by hand: ``python docs/screenshots.py``."""

import argparse
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
VIEWS = {"report.png": (1280, 1180, "light"), "report-phone.png": (390, 1500, "dark")}
"""Width, height and colour scheme."""


def shoot(page_file: Path, chromium: str) -> None:
    """Write all views of a page, in 128 colours."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (width, height, scheme) in VIEWS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(page_file.resolve().as_uri())
            page.screenshot(path=IMAGES / name)
            Image.open(IMAGES / name).convert("RGB").quantize(128).save(IMAGES / name, optimize=True)
        browser.close()


def main() -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="program of the browser")
    parser.add_argument("--report", type=Path, default=ROOT / "demo" / "report.html", help="page; default: the demo's")
    options = parser.parse_args()
    if not options.report.is_file():
        parser.error(f"{options.report} is missing: run `make demo` first")
    shoot(options.report, options.chromium)


if __name__ == "__main__":
    main()
