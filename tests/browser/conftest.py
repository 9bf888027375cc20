"""What the browser tests share: one Chromium, the site built once, and the checkers of `tools.sh`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browsing import NoBrowser, chromium
from playwright.sync_api import Browser
from table_page import ROWS, table, write_page

from fairspec_bench.site.board import Entry
from fairspec_bench.site.build import build_site

ROOT = Path(__file__).resolve().parents[2]

import board_sample  # noqa: E402
from site_sample import report, run_folder  # noqa: E402

TOOLS = ROOT / "build" / "browser-tools" / "node_modules"
HOSTILE = "<img src=x onerror=alert(1)> javascript:alert(2) \u202egnp.exe\u2066 ' onfocus=alert(3)"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; a machine without it fails the test and says what to do."""
    try:
        with chromium() as started:
            yield started
    except NoBrowser as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of page: committed runs, and a board of submissions ranked, audited, fine-tuned, raced and refused."""
    runs = [path.parent for path in sorted((ROOT / "docs" / "results").glob("ntrex-*/run.json"))]
    audited = board_sample.entry("audited", 6, raced=True)
    assert audited.verified is not None
    first, *others = board_sample.many(3)
    entries = [
        replace(first, folder=ROOT / "submissions" / "plain"),
        *others,
        replace(audited, audit=board_sample.audit(audited.verified)),
        Entry("refused", None, ("run/report.json: acceptance of sw is .9, its lines say .8.",)),
    ]
    out = tmp_path_factory.mktemp("board") / "site"
    build_site(runs[:1], out, tracks=[board_sample.track(baseline="baseline")], entries=entries)
    return out


@pytest.fixture(scope="session")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site whose every text that a submitter may choose attacks the page."""
    parent = tmp_path_factory.mktemp("hostile")
    run = run_folder(parent, HOSTILE, report(HOSTILE, HOSTILE))
    words = {"name": HOSTILE, "description": HOSTILE, "authors": [HOSTILE], "contact": HOSTILE, "url": HOSTILE}
    drafter = {"repo": HOSTILE, "revision": HOSTILE, "training_data": HOSTILE, "method": HOSTILE, "files": {}}
    made = [board_sample.entry(f"e-{n}", n, submission=words, drafter=drafter, raced=True) for n in range(2)]
    assert made[0].verified is not None
    audit = board_sample.audit(made[0].verified, auditor=HOSTILE, rule=HOSTILE, machine=HOSTILE, date=HOSTILE)
    entries = [replace(made[0], audit=audit), made[1], Entry(HOSTILE, None, (HOSTILE,))]
    build_site([run], parent / "site", tracks=[board_sample.track()], entries=entries)
    return parent / "site"


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with two tables of a few rows, the second below the fold."""
    return write_page(tmp_path_factory.mktemp("trees"), table(ROWS), "<br>" * 60, table(ROWS, "more"))


@pytest.fixture(scope="session")
def axe() -> str:
    """The accessibility checker's script."""
    return _tool("axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def checker() -> tuple[str, ...]:
    """The command of the Nu HTML checker."""
    java = shutil.which("java")
    if not java:
        pytest.fail(
            "no Java for the HTML checker: install it (Debian: apt-get install default-jre-headless).", pytrace=False
        )
    return (java, "-jar", str(_tool("vnu-jar/build/dist/vnu.jar")))


def _tool(path: str) -> Path:
    if not (TOOLS / path).is_file():
        pytest.fail(
            f"{path} is missing: run 'make browser', or 'tests/browser/tools.sh build/browser-tools'.", pytrace=False
        )
    return TOOLS / path
