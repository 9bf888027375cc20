"""Every page as a browser, a screen reader, a telephone, a printer and the HTML standard take it.

Knows no page by name: what is tested is what the site's folder holds. Failures name the page and the element.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from browsing import NARROW, PAPER, SCHEMES, WIDE, kinds, pages, visit
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

RULES: dict[
    str, Any
] = {  # of the accessibility checker; preloading would fetch the style sheet, which the page's policy forbids
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
    "resultTypes": ["violations"],
    "preload": False,
}

# What the HTML checker cannot know: properties newer than its list, that a page read as a file has an origin, hashes.
# What the policy does block, the browser says.
BEYOND_IT = (
    r".*CSS: .*(paint-order|text-size-adjust|print-color-adjust).*"
    r"|Resource violates Content Security Policy .*external (stylesheet|script) “[a-z./]+” blocked .*"
    r"|Inline style violates Content Security Policy .*nonce/hash.*"
)


# Words of a plot that its edges, or the page's, cut off by more than a letter's side bearing.
CUT = """() => [...document.querySelectorAll("svg.plot")].flatMap((plot) => {
  const edge = plot.getBoundingClientRect();
  const out = (r) => r.width && (r.left < edge.left - 3 || r.right > edge.right + 3);
  return [...plot.querySelectorAll("text")].filter((t) => out(t.getBoundingClientRect())).map((t) => t.textContent);
})"""


@pytest.mark.parametrize("width", [320, 390, WIDE, 1920])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_kind_of_page_overflows_or_cuts_the_words_of_a_plot(
    browser: Browser, site: Path, scheme: str, width: int
) -> None:
    found = []
    with visit(browser, site, scheme=scheme, width=width) as opened:
        for path in kinds(site):
            page = opened.open(path)
            found += [f"{path}: {line}" for line in [opened.overflow(), *page.evaluate(CUT)] if line]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_page_complains_asks_outside_or_overflows(browser: Browser, site: Path, scheme: str, width: int) -> None:
    found = []
    with visit(browser, site, scheme=scheme, width=width) as opened:
        for path in pages(site):
            opened.open(path)
            wide = [opened.overflow()]
            unfold(opened.page)
            wide.append(opened.overflow())
            found += [f"{path}: {line}" for line in [*opened.complaints, *filter(None, wide)]]
            opened.complaints.clear()
    assert not found, "\n".join(found)


def test_no_page_breaks_a_rule_of_accessibility_light_or_dark(browser: Browser, site: Path, axe: str) -> None:
    """In the dark only colours can differ."""
    found = []
    with visit(browser, site) as opened:
        for path in pages(site):
            page = opened.open(path)
            page.emulate_media(color_scheme="light")
            found += faults(page, path, axe)
            page.emulate_media(color_scheme="dark")
            found += faults(page, f"{path} in the dark", axe, {**RULES, "runOnly": ["color-contrast"]})
    assert not found, "\n".join(found)


def test_each_kind_of_page_is_accessible_on_a_telephone(browser: Browser, site: Path, axe: str) -> None:
    with visit(browser, site, width=NARROW) as opened:
        found = [fault for path in kinds(site) for fault in faults(opened.open(path), path, axe)]
    assert not found, "\n".join(found)


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")


def faults(page: Page, path: str, axe: str, rules: dict[str, Any] = RULES) -> list[str]:
    """What the accessibility checker objects to with everything unfolded: rule, element and why, a line each."""
    unfold(page)
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe)
    violations = page.evaluate("rules => axe.run(rules).then(each => each.violations)", rules)
    return [
        f"{path}: {fault['id']}: {node['html'][:160]}: {' '.join(node['failureSummary'].split())}"
        for fault in violations
        for node in fault["nodes"][:3]
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_printed_page_fits_the_paper_without_tools_and_without_the_dark(
    browser: Browser, site: Path, scheme: str
) -> None:
    with visit(browser, site, scheme=scheme, width=PAPER) as opened:
        opened.page.emulate_media(media="print")
        for path in kinds(site):
            page = opened.open(path)
            assert opened.overflow() == "", path
            assert page.locator(".tools:visible").count() == 0, path
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert paper in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"), path
            assert len(page.pdf(format="A4")) > 10_000, path


def test_every_page_and_the_style_are_valid(site: Path, hostile_site: Path, checker: tuple[str, ...]) -> None:
    """By the Nu HTML checker, warnings included: HTML, inline SVG, ARIA, and the style sheet."""
    files = [folder / path for folder in (site, hostile_site) for path in pages(folder)]
    styles = sorted(site.glob("*.css"))
    command = [*checker, "--also-check-css", "--format", "json", "--filterpattern", BEYOND_IT]
    run = subprocess.run(
        [*command, *map(str, files + styles)], capture_output=True, text=True, check=False, timeout=120
    )
    found: dict[str, list[str]] = {}
    for message in json.loads(run.stderr)["messages"]:
        fault = f"{message['message']} {' '.join(message.get('extract', '').split())[:120]}"
        found.setdefault(fault, []).append(Path(message["url"]).name)
    assert not found, "\n".join(f"{fault} ({len(where)}: {where[0]} …)" for fault, where in found.items())
