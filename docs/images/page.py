"""Take the picture of a page for the README.

python docs/images/page.py outputs/RUN/report.html docs/images/report.png --lang en
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1120, 880


def main() -> None:
    """Open the page in Chromium and write what is seen of its beginning."""
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--lang", choices=("en", "zh"), default="en")
    parser.add_argument("--height", type=int, default=HEIGHT)
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        locale = "zh-CN" if given.lang == "zh" else "en-GB"
        page = browser.new_page(viewport={"width": WIDTH, "height": given.height}, locale=locale)
        page.goto(given.page.resolve().as_uri())
        page.screenshot(path=given.picture)
        browser.close()


if __name__ == "__main__":
    main()
