"""A suite's version says what it asks: a changed prompt without a new version is seen, and what to do is said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from suite_versions import asked, fault, read_ledger

from fairspec_bench.suites.listing import list_suites, tasks_folder
from fairspec_bench.suites.sources import registry
from fairspec_bench.suites.sources.base import Data

SUITES = {info.name: info for info in list_suites()}


@pytest.mark.parametrize("name", SUITES)
def test_a_version_asks_what_it_always_asked(name: str) -> None:
    if wrong := fault(SUITES[name], asked(SUITES[name]), read_ledger()):
        pytest.fail(wrong, pytrace=False)


def test_versions_that_were_asked_are_kept() -> None:
    """Runs of the past name them; and no two versions of a suite ask the same."""
    for name, versions in read_ledger().items():
        assert name in SUITES
        assert len({str(hashes) for hashes in versions.values()}) == len(versions)
        assert all(re.fullmatch("[0-9a-f]{64}", sha) for hashes in versions.values() for sha in hashes.values())


CHANGES: dict[str, tuple[str, Callable[[str], str], str]] = {
    "the template": ("mgsm/fairspec_mgsm_ja.yaml", lambda text: text.replace("{{question}}", " {{question}}"), "ja"),
    "a stop string": ("mgsm/fairspec_mgsm_en.yaml", lambda text: text.replace("until: [", 'until: ["x", '), "en"),
    "max_new_tokens": ("mgsm/fairspec_mgsm_bn.yaml", lambda text: text.replace("2048", "1024"), "bn, de, en"),
    "the data": ("mgsm/_group.yaml", lambda text: re.sub(r"( sw: )\w{4}", r"\g<1>0000", text), "sw"),
    "the exemplars": ("mgsm.base", lambda text: text.replace("num_fewshot: 8", "num_fewshot: 7"), "bn, de, en"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_seen(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tasks_folder(), tmp_path / "tasks")
    name, change, languages = CHANGES[what]
    path = tmp_path / "tasks" / name
    before = path.read_text(encoding="utf-8")
    path.write_text(change(before), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != before
    for module in ("fairspec_bench.suites.listing", "fairspec_bench.suites.suite", "suite_versions"):
        monkeypatch.setattr(f"{module}.tasks_folder", lambda: tmp_path / "tasks")
    info = next(each for each in list_suites() if each.name == "mgsm")
    said = fault(info, asked(info), read_ledger())
    assert said is not None
    assert said.startswith(f"prompts of mgsm changed ({languages}")
    assert said.endswith(
        f": raise its version from {info.version} to {int(float(info.version)) + 1}.0 in tasks/mgsm.base and "
        "tasks/mgsm/_group.yaml, then run python tests/support/suite_versions.py."
    )


def test_a_built_in_question_that_changed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built-in suites have no published data: their questions are part of what is hashed."""
    whole = registry.load

    def changed(suite: str, language: str) -> Data:
        found = whole(suite, language)
        last = replace(found.test[-1], question=found.test[-1].question + " ")
        return replace(found, test=(*found.test[:-1], last)) if language == "th" else found

    monkeypatch.setattr(registry, "load", changed)
    said = fault(SUITES["embedded_story"], asked(SUITES["embedded_story"]), read_ledger())
    assert said is not None
    assert said.startswith("prompts of embedded_story changed (th): raise")


def test_a_version_without_hashes_says_how_to_write_them() -> None:
    info = replace(SUITES["mgsm"], version="9.0")
    assert fault(info, {}, read_ledger()) == (
        "mgsm 9.0 is not in tasks/versions.json: run python tests/support/suite_versions.py."
    )
