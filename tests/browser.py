"""A headless Chromium for tests of pages, driven by playwright."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

#: WebGL by software.
FLAGS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: apt install chromium)")


@contextmanager
def chromium():
    """A browser, gone afterwards."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install '.[dev]'")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@contextmanager
def shown(browser, path, width=1200, height=800, scheme="light", media="screen"):
    """A page that is loaded, without a network; whatever it complains of, or asks for, is a failure."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, is_mobile=width < 600, color_scheme=scheme, offline=True
    )
    page, told = context.new_page(), []
    page.emulate_media(media=media)
    page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or told.append(request.url))
    page.goto(path.absolute().as_uri())
    yield page
    assert told == [], told  # a helper: pytest does not tell what differs
    context.close()
