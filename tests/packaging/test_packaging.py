"""What the repository says of itself: citation, changelog, metadata; and that commands start without heavy modules."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
HEAVY = ("torch", "transformers", "lm_eval", "datasets", "pandas", "numpy", "scipy", "pyarrow", "rich.table")
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    """The fields that CFF 1.2.0 requires, and those that a reader needs."""
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= CITATION.keys()
    assert (str(CITATION["version"]), CITATION["license"]) == (PROJECT["version"], PROJECT["license"])
    (paper,) = CITATION["references"]
    assert (paper["type"], paper["title"]) == ("article", "The Disparate Impacts of Speculative Decoding")
    assert [author["family-names"] for author in paper["authors"]] == [
        "Sandler", "Üstün", "Romanelli", "Hooker", "Fioretto",
    ]  # fmt: skip
    assert paper["identifiers"][0]["value"] == "arXiv:2510.02128"
    assert paper["url"].endswith("/2510.02128")


def test_the_changelog_is_one() -> None:
    """Keep a Changelog: newest version first, what came in it by kind, no kind empty or twice."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.startswith("# Changelog\n")
    versions = re.split(r"^## ", text, flags=re.M)[1:]
    heads = [part.partition("\n")[0] for part in versions]
    assert heads[0] == "[Unreleased]" or heads[0].startswith(f"[{PROJECT['version']}] - ")
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", head) for head in heads[1:])
    for part in versions:
        kinds = re.split(r"^### ", part, flags=re.M)[1:]
        names = [kind.partition("\n")[0] for kind in kinds]
        assert names == [kind for kind in KINDS if kind in names]
        assert all(re.match(r"\n- \S", kind.partition("\n")[2]) for kind in kinds)


def test_the_metadata_is_whole() -> None:
    assert {"Typing :: Typed"} <= set(PROJECT["classifiers"])
    assert PROJECT["readme"] == "README.md"
    assert PROJECT["license-files"] == ["LICENSE"]


def test_every_dependency_that_is_imported_is_asked_for() -> None:
    """What the package imports itself is in `dependencies` or an extra: nothing rests on what others bring along."""
    asked = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]
    named = {re.split(r"[<>=!\[; ]", each)[0].lower().replace("-", "_") for each in asked}
    found: set[str] = set()
    for path in (ROOT / "fairspec_bench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    # pydantic pins pydantic_core, and documents its error type there.
    called = {"yaml": "pyyaml", "markdown_it": "markdown_it_py", "pydantic_core": "pydantic"}
    own = {called.get(name, name) for name in found - set(sys.stdlib_module_names) - {"fairspec_bench"}}
    assert sorted(own - named) == []


@pytest.mark.parametrize("command", ["", "run", "report", "site build", "submit check", "tasks", "doctor"])
def test_help_of_a_command_loads_nothing_heavy(command: str) -> None:
    asked = [*command.split(), "--help"]
    code = (
        "import sys\nfrom fairspec_bench.cli.main import main\n"
        f"try:\n    main({asked})\nexcept SystemExit as left:\n    assert not left.code\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    loaded = set(done.stderr.splitlines())
    assert "fairspec_bench.cli.main" in loaded
    assert not loaded & set(HEAVY)
