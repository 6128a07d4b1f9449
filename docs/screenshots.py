"""Screenshots of the report for the documentation, made by hand: ``python docs/screenshots.py``."""

import argparse
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from macattr import rank_methods, write_report
from ram_models import ram_swinir_tiny, sample

IMAGES = Path(__file__).parent / "images"
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
    """Rank, report, and look at it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's program")
    parser.add_argument("--report", type=Path, help="a page that is there already; default: of a new ranking")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.report is None:
            options.report = Path(folder) / "report.html"
            model = ram_swinir_tiny()
            rankings = rank_methods(model, sample()[:8], ["mac", "drift", "attribution_patching"], n_steps=6)
            files = {name: f"demo/{name}/importance.nc" for name in rankings}
            write_report(rankings, options.report, model=model, files=files)
        shoot(options.report, options.chromium)


if __name__ == "__main__":
    main()
