"""What CI and the workflows run exists: make targets, scripts, files, actions at a pinned commit."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".ci" / "run", *WORKFLOWS]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([\w-]+):(?!=)", MAKEFILE, re.MULTILINE))
ASKED = re.compile(r"^(?:.*(?:`|: )|\s*)make ([a-z][\w-]*)", re.MULTILINE)


def test_there_are_targets_and_every_one_is_phony() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == TARGETS
    assert {"demo", "test", "test-slow", "lint"} <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    assert set(ASKED.findall(page.read_text(encoding="utf-8"))) <= TARGETS


def test_make_targets_are_found_in_prose_and_commands() -> None:
    assert ASKED.findall("make lint\n  - run: make test PYTHON=python\nRun `make vllm`; they make sense.\n") == [
        "lint",
        "test",
        "vllm",
    ]


def test_ci_runs_every_test_of_the_suite_once() -> None:
    """`make test` deselects what the targets named here run."""
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    order = re.findall(r"^make ([\w-]+)$", run, re.MULTILINE)
    assert order == ["lint", "demo-quick", "test", "test-slow", "vllm", "servers", "browser"]
    assert "FAIRSPEC_REQUIRE_DATA=1" in run
    options = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "-m 'not slow and not browser and not vllm and not servers'" in options
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False).returncode == 0


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_least_rights_and_pinned_actions(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            if uses := step.get("uses"):
                assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", uses)
                assert not uses.startswith("actions/checkout") or step["with"]["persist-credentials"] is False


def test_every_path_that_has_an_owner_exists() -> None:
    lines = (ROOT / ".github" / "CODEOWNERS").read_text(encoding="utf-8").splitlines()
    owned = [line.split() for line in lines if line and not line.startswith("#")]
    assert {path for path, _ in owned} >= {"/.github/", "/tasks/tracks/", "/submissions/_audits/"}
    assert all((ROOT / path.strip("/")).exists() and owner.startswith("@") for path, owner in owned)


def test_a_pull_request_to_the_code_is_linted_and_tested_on_every_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/code.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    commands = [step["run"].split()[1] for step in job["steps"] if "run" in step]
    assert commands == ["lint", "test"]
    assert job["strategy"]["matrix"]["python"][0] == "3.11"
