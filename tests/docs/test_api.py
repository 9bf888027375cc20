"""The reference of the public API: every docstring says what is returned and raised, and the pages build."""

from __future__ import annotations

import html
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fairspec_bench

ROOT = Path(__file__).parents[2]
FUNCTIONS = [name for name in fairspec_bench.__all__ if inspect.isfunction(getattr(fairspec_bench, name))]
GIVES = ("A ", "An ", "Every ", "The ", "What ")
"""How a docstring begins that names what is returned; one that tells what is done says it after an arrow."""
REFUSE_NOTHING = {"doctor", "list_methods", "list_suites", "report_frame"}


@pytest.mark.parametrize("name", fairspec_bench.__all__)
def test_every_public_name_is_described(name: str) -> None:
    said = inspect.getdoc(getattr(fairspec_bench, name)) or ""
    first = said.split("\n", 1)[0]
    assert len(first) > 20
    assert first[0].isupper()
    assert said.rstrip().endswith(".")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_says_what_it_gives_and_what_it_raises(name: str) -> None:
    function = getattr(fairspec_bench, name)
    said = inspect.getdoc(function) or ""
    assert inspect.signature(function).return_annotation not in (inspect.Signature.empty, "None")
    assert "→" in said or said.startswith(GIVES), said
    assert ("Raises" in said) is (name not in REFUSE_NOTHING), said


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make api` does; pdoc's warnings are errors there."""
    out = tmp_path_factory.mktemp("api")
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "api.py", out], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    return out


@pytest.mark.slow
def test_the_pages_have_every_public_name_and_what_it_says(pages: Path) -> None:
    page = (pages / "fairspec_bench.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.DOTALL))
    assert set(fairspec_bench.__all__) <= set(sections)
    for name in FUNCTIONS:
        said = inspect.getdoc(getattr(fairspec_bench, name)) or ""
        assert _words(said.split("\n", 1)[0]) in _words(_plain(sections[name])), name


@pytest.mark.slow
def test_what_the_functions_take_and_give_has_a_page(pages: Path) -> None:
    page = (pages / "fairspec_bench.html").read_text(encoding="utf-8")
    signatures = re.findall(r'<div class="attr function">(.*?)</div>', page, re.DOTALL)
    assert len(signatures) >= len(FUNCTIONS)
    for signature in signatures:
        unlinked = _plain(re.sub(r"<a href.*?</a>", "", signature, flags=re.DOTALL))
        assert "fairspec_bench." not in unlinked, unlinked
    for target in re.findall(r'<a href="(?!https?:)([\w./-]+\.html)', page):
        assert (pages / target).is_file(), target


def _plain(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", markup))


def _words(text: str) -> str:
    """Letters and digits: Markdown's marks and typography differ between the docstring and the page."""
    return re.sub(r"[^a-z0-9]+", "", text.lower())
