"""Names that a submitter may choose, on every page they reach: shown as text, and nothing else.

The names are those of `conftest.HOSTILE`: markup, a script address, a change of writing direction, an attribute.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import NARROW, pages, visit
from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

# What the names would have made if any had been taken for more than text.
MADE = "img, iframe, object, embed, script:not([src]), [onerror], [onload], [onfocus], [href^='javascript:' i]"


def test_hostile_names_are_text_on_every_page(browser: Browser, hostile_site: Path) -> None:
    shown = []
    with visit(browser, hostile_site, width=NARROW) as opened:
        for path in pages(hostile_site):
            page = opened.open(path)
            page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
            assert page.locator(MADE).count() == 0, path
            assert opened.overflow() == "", path
            text = page.locator("body").inner_text()
            assert not any(0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in text + page.title()), path
            shown += [path] if "<img src=x onerror=alert(1)>" in text else []
            page.evaluate("document.querySelectorAll('a, [tabindex]').forEach(e => e.focus())")
        assert opened.complaints == []
    assert len(shown) > 1, "the names are nowhere to be seen"


def test_hostile_names_stay_text_in_what_the_script_makes(browser: Browser, hostile_site: Path) -> None:
    """The toolbar repeats captions and headings, and the filter finds the names as they are written."""
    found = 0
    with visit(browser, hostile_site) as opened:
        for path in pages(hostile_site):
            page = opened.open(path)
            for filters in page.locator(".tools input[type=search]").all():
                filters.fill("<img onerror=alert(1)>")
            found += page.locator("table[data-interactive] tbody tr:visible").count()
            page.evaluate("document.querySelectorAll('.sort, .tools-columns input').forEach(e => e.click())")
            assert page.locator(MADE).count() == 0, path
        assert opened.complaints == []
    assert found, "no table with the names can be filtered"
