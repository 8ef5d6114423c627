"""A real browser that looks at a page, and what the page did in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.patience import PATIENCE_S

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; ``BUNDLE_TEST_BROWSER`` names another than the one in the path.

    A new one for every module: as long as Playwright runs, there is an event loop in this thread, and tests that want
    one of their own could not have it.
    """
    program = os.environ.get("BUNDLE_TEST_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("there is no Chromium to look at pages with; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program)
        expect.set_options(timeout=1000 * PATIENCE_S)
        yield started
        started.close()


@dataclass
class Conduct:
    """What a page did besides showing itself.

    Attributes:
        requests: Addresses it asked for, its own among them.
        complaints: What it wrote on the console, and errors that nobody caught.
        dialogs: What it asked the reader.
    """

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@contextmanager
def opened(
    browser: Browser,
    file: Path,
    *,
    locale: str = "en-US",
    scheme: Literal["light", "dark"] = "light",
    width: int = 1200,
    fragment: str = "",
) -> Iterator[Page]:
    """Open a file until the block is left; it must have asked for nothing but itself and complained of nothing."""
    conduct = Conduct()
    # Without smooth scrolling: what is clicked does not move meanwhile.
    context = browser.new_context(
        locale=locale, color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": 900}
    )
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.on("request", lambda request: conduct.requests.append(request.url))
    page.on("console", lambda message: conduct.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: conduct.complaints.append(str(error)))
    page.on("dialog", lambda dialog: conduct.dialogs.append(dialog.message))
    try:
        page.goto(f"{file.as_uri()}#{fragment}" if fragment else file.as_uri())
        yield page
        assert conduct == Conduct(requests=[file.as_uri()])
    finally:
        context.close()


def faults(page: Page) -> list[str]:
    """What axe-core finds on a page that keeps people from using it."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def sticking_out(page: Page) -> list[str]:
    """What is wider than its box, and tables of which one sees only a part."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll(".card :not(svg *, .unseen, thead *)")].filter((one) =>
            one.checkVisibility() && one.clientWidth > 1 && one.scrollWidth > one.clientWidth + 1 &&
            (one.matches(".wide") || getComputedStyle(one).overflowX === "visible")
        ).map((one) => `${one.scrollWidth} of ${one.clientWidth}: ${one.outerHTML.slice(0, 200)}`)"""
    )
    return found
