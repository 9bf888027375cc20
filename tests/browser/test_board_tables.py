"""The tables of the real pages are such that `site.js` can work on them: every one can be sorted by every column."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import kinds, pages, visit
from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.browser

INTERACTIVE = "table[data-interactive]"

# How many columns may be hidden: all but the first and the one that names the row.
FREE = "document.querySelectorAll('table[data-interactive] tbody tr:first-child > td:not(:first-child)').length"


def values(table: Locator, column: int) -> list[float | None]:
    """The figures of a column, from above, as the page gives them to the script."""
    cells = table.locator(f"tbody tr > :nth-child({column + 1})")
    return [None if v is None else float(v) for v in cells.evaluate_all("e => e.map(c => c.dataset.value ?? null)")]


def test_every_table_that_asks_for_it_gets_its_tools_and_sorts(browser: Browser, site: Path) -> None:
    tables = 0
    with visit(browser, site) as opened:
        for path in kinds(site):
            page = opened.open(path)
            page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
            assert page.locator(".tools").count() == page.locator(INTERACTIVE).count(), path
            assert page.locator(".tools-columns input").count() == page.evaluate(FREE), path
            for table in page.locator(INTERACTIVE).all():
                tables += 1
                rows = table.locator("tbody tr").count()
                for head in table.locator("th[data-sort=number]").all():
                    column = int(head.evaluate("e => e.cellIndex"))
                    before = values(table, column)
                    assert any(v is not None for v in before) or "–" in head_column(table, column), (path, column)
                    head.get_by_role("button").click()
                    way, after = head.get_attribute("aria-sort"), values(table, column)
                    known = [v for v in after if v is not None]
                    assert known == sorted(known, reverse=way == "descending"), (path, column)
                    assert after == known + [None] * (rows - len(known)), (path, column)
        assert opened.complaints == []
    assert tables, "no page has a table that can be sorted"


def head_column(table: Locator, column: int) -> str:
    return " ".join(table.locator(f"tbody tr > :nth-child({column + 1})").all_inner_texts())


def test_a_table_says_how_it_is_presorted_and_is(browser: Browser, site: Path) -> None:
    """Without JavaScript: rows in the order that their `aria-sort` tells, and no control that would do nothing."""
    told = 0
    with visit(browser, site, scripts=False) as opened:
        for path in pages(site):
            page = opened.open(path)
            # A term's explanation opens without a script: that button works.
            assert page.locator(".tools, button:not([popovertarget]), input, select").count() == 0, path
            assert page.locator("tbody tr[hidden], th[hidden], td[hidden]").count() == 0, path
            for head in page.locator(f"{INTERACTIVE} th[aria-sort][data-sort=number]").all():
                told += 1
                table = page.locator(INTERACTIVE).filter(has=head)
                found = [v for v in values(table, int(head.evaluate("e => e.cellIndex"))) if v is not None]
                assert found == sorted(found, reverse=head.get_attribute("aria-sort") == "descending"), path
    assert told, "no table tells how it is sorted"


def test_a_board_is_chosen_by_language_kind_audit_and_race_in_the_address(browser: Browser, site: Path) -> None:
    with visit(browser, site) as opened:
        page = opened.open("tracks/embedded.html", "s1-acceptance.lang=te&s1-acceptance.audited=1")
        table, tools = page.locator("#s1-acceptance"), page.locator(".tools").first
        assert tools.get_by_role("combobox", name="Language").input_value() == "te"
        assert table.locator("tbody tr:visible").count() == 1
        tools.get_by_role("checkbox", name="audited").uncheck()
        told = [float(each.split()[-1]) for each in table.locator(".in-language").all_inner_texts()]
        assert len(told) == table.locator("tbody tr").count() > 2
        assert told == sorted(told, reverse=True)
        tools.get_by_role("checkbox", name="raced").check()
        assert 0 < table.locator("tbody tr:visible").count() < len(told)
        page.wait_for_timeout(300)
        assert page.url.endswith("#s1-acceptance.lang=te&s1-acceptance.raced=1")
        tools.get_by_role("searchbox").fill("no such words")
        assert tools.get_by_role("status").inner_text() == "No row fits. Reset shows all."
        tools.get_by_role("button", name="Reset").click()
        assert table.locator(".in-language").count() == 0
        assert table.locator("tbody tr:visible").count() == len(told)
        page = opened.open(
            "tracks/embedded.html", "s1-acceptance.lang=xx&s1-acceptance.kind=%3Cb%3E&s1-acceptance.raced=2"
        )
        assert page.locator("#s1-acceptance tbody tr:visible").count() == len(told)
        assert opened.complaints == []


def test_a_figure_is_taken_along_as_svg_png_and_csv(browser: Browser, site: Path, tmp_path: Path) -> None:
    with visit(browser, site) as opened:
        page = opened.open("submissions/baseline.html")
        figure = page.locator("figure").first
        begins = {"SVG": b"<svg", "PNG": b"\x89PNG", "CSV": b'"Language","Value"'}
        for kind, start in begins.items():
            with page.expect_download() as taken:
                figure.get_by_role("button", name=kind).click()
            taken.value.save_as(tmp_path / kind)
            assert taken.value.suggested_filename.endswith(f".{kind.lower()}")
            assert (tmp_path / kind).read_bytes().startswith(start), kind
        assert opened.complaints == []
