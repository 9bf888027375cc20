"""Documents are correct: every link resolves, and every name in the code that they mention exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if "results" not in path.relative_to(ROOT / "docs" if path.is_relative_to(ROOT / "docs") else ROOT).parts[:-1]
)
FENCED = re.compile(r"^(```+).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?\)")
HEADING = re.compile(r"^#{1,6} (.+?)\s*#*$", re.MULTILINE)
PLACE = re.compile(r"`(fairspec_bench/[\w/]+\.py):([\w.]+)`")
FILE = re.compile(r"`((?:fairspec_bench|tests|tasks|leaderboard|docs)/[\w./-]+)`")
"""`path.py:name`, a function, class, method or constant; and a file or folder of the checkout, in backticks."""
PLACEHOLDERS = re.compile(r"\b(NAME|SLUG)\b")


def text_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings as GitHub makes them: repeated ones are numbered."""
    seen: dict[str, int] = {}
    found = set()
    for heading in HEADING.findall(text_of(page)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", ""))
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        count = seen.get(name, 0)
        seen[name] = count + 1
        found.add(f"{name}-{count}" if count else name)
    return frozenset(found)


def fault(page: Path, link: str) -> str | None:
    """Why a link within the checkout leads nowhere, `None` if it does not."""
    if re.match(r"[a-z]+:", link):
        return None
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return f"{link}: no such file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target):
        return f"{link}: no such heading; there are {', '.join(sorted(anchors(target)))}"
    return None


@cache
def names(path: str) -> frozenset[str]:
    """What a module defines: functions, classes, constants, and `Class.name` of a class's own."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        for name in _defined(node):
            found.add(name)
            if isinstance(node, ast.ClassDef):
                found |= {f"{name}.{inner}" for each in node.body for inner in _defined(each)}
    return frozenset(found)


def _defined(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign(targets=targets):
            return [each.id for each in ast.walk(ast.Module(list(targets), [])) if isinstance(each, ast.Name)]
    return []


def test_there_are_pages() -> None:
    assert {"README.md", "docs/METRICS.md", "docs/GLOSSARY.md", "docs/howto/drafter.md"} <= set(PAGES)
    assert not any(page.startswith("docs/results/") for page in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    path = ROOT / page
    assert [wrong for link in LINK.findall(text_of(path)) if (wrong := fault(path, link))] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_place_in_the_code_exists(page: str) -> None:
    text = text_of(ROOT / page)
    named = PLACE.findall(text)
    lost = [f"{path}:{name}" for path, name in named if not (ROOT / path).is_file() or name not in names(path)]
    lost += [path for path in FILE.findall(text) if not PLACEHOLDERS.search(path) and not (ROOT / path).exists()]
    if page.startswith("docs/tutorials/"):  # a walk makes files of its own, and its commands name them
        typed = "".join(block[0] for block in FENCED.finditer((ROOT / page).read_text(encoding="utf-8")))
        lost = [path for path in lost if path not in typed]
    assert lost == []


def test_the_two_paths_through_the_code_name_it_at_every_step() -> None:
    """A prompt from suite to report, a drafter from command line to loop: ten steps each (CONTRIBUTING.md)."""
    _, text = text_of(ROOT / "CONTRIBUTING.md").split("## Two paths through the code\n")
    _, *lists = re.split(r"^\*\*.+\*\*$", text, flags=re.MULTILINE)
    assert len(lists) == 2
    for steps in lists:
        found = re.split(r"^\d+\. ", steps, flags=re.MULTILINE)[1:]
        assert len(found) == 10
        assert [step for step in found if not PLACE.search(step)] == []


def test_what_leads_nowhere_is_seen(tmp_path: Path) -> None:
    page = ROOT / "docs" / "METRICS.md"
    assert (
        fault(page, "METRICS.md#per-task") is fault(page, "#per-task") is fault(page, "../README.md#file-map") is None
    )
    assert fault(page, "#no-such-heading") is not None
    assert fault(page, "NOWHERE.md") is not None
    assert fault(page, "../../outside.md") is not None
    assert {"uncut", "ExpectedBlocks"} <= names("fairspec_bench/metrics/acceptance.py")
    assert "TrainingRecipe.factor" in names("fairspec_bench/mitigation/trainer.py")
    assert "METHODS" in names("fairspec_bench/mitigation/methods.py")
    assert LINK.findall("a [b [c]](d.md#e) and ![f](g.png)") == ["d.md#e", "g.png"]
