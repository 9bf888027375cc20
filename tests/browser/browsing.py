"""A page opened in Chromium with everything it complains of written down.

Knows how to start the browser, what a page may ask for, and how wide a page may be. Knows nothing of what is on it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, sync_playwright

WIDE, NARROW, PAPER = 1280, 360, 718  # CSS pixels; the last is A4 less margins of 1 cm
SCHEMES = ("light", "dark")

# The element that sticks out furthest past the right edge, and is not in a box that scrolls by itself.
OFFENDER = """() => {
  const limit = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= limit) return "";
  const box = (e) => (getComputedStyle(e).position === "absolute" ? e.offsetParent : e.parentElement);
  const scrolls = (e) => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(box(e)));
  const wide = [...document.body.querySelectorAll("*")].filter((e) => !scrolls(box(e)));
  const worst = wide.reduce((a, b) => (b.getBoundingClientRect().right > a.getBoundingClientRect().right ? b : a));
  const right = Math.round(worst.getBoundingClientRect().right);
  return `${worst.outerHTML.slice(0, 120)} ends at ${right} px of ${limit}`;
}"""


class NoBrowser(Exception):
    """There is no Chromium; the message says what to do."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of `FAIRSPEC_CHROMIUM` or of the PATH, headless. Raises `NoBrowser`."""
    path = os.environ.get("FAIRSPEC_CHROMIUM") or shutil.which("chromium")
    if not path or not Path(path).is_file():
        raise NoBrowser("no Chromium: install it (Debian: apt-get install chromium) or name one in FAIRSPEC_CHROMIUM.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page and all that went wrong on it since it was opened, a line each."""

    page: Page
    site: Path
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", self._request)
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("dialog", self._dialog)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.site.as_uri()}/", "data:")):
            self.complaints.append(f"request: {request.url}")

    def _dialog(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str, fragment: str = "") -> Page:
        """Load a file of the site anew, with `#fragment` where one is given."""
        self.page.goto("about:blank")
        self.page.goto((self.site / path).as_uri() + (f"#{fragment}" if fragment else ""))
        return self.page

    def overflow(self) -> str:
        """What makes the page wider than its window; empty if nothing does."""
        return str(self.page.evaluate(OFFENDER))


@contextmanager
def visit(
    browser: Browser, site: Path, *, scheme: str = "light", width: int = WIDE, scripts: bool = True
) -> Iterator[Visit]:
    """A fresh tab that shares nothing with another and has no network."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        java_script_enabled=scripts,
        offline=True,
    )
    yield Visit(context.new_page(), site.resolve())
    context.close()


def pages(site: Path) -> Sequence[str]:
    """Every page of a site, by its path in it."""
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))


def kinds(site: Path) -> Sequence[str]:
    """The biggest page of each kind: each page at the top, and one of each folder."""
    found = {path.split("/")[0]: path for path in sorted(pages(site), key=lambda path: (site / path).stat().st_size)}
    return sorted(found.values())
