"""The pair that ships: its size, dtype and hash, that it answers unseen problems, and that its drafter is uneven."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from safetensors import safe_open

import fairspec_bench
from fairspec_bench.models.hub import locate
from fairspec_bench.schemas.report import Report
from fairspec_bench.testbed.pair import EMBEDDED

MEMBERS = {name: locate(f"embedded:{name}").folder for name in ("verifier", "drafter")}
LANGUAGES = ("en", "de", "ja", "te", "sw")


@pytest.mark.parametrize("member", MEMBERS)
def test_weights_are_those_of_the_recipe_in_bfloat16(member: str) -> None:
    folder = MEMBERS[member]
    facts = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    weights = folder / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == facts["weights_sha256"]
    with safe_open(weights, "pt") as file:
        assert {file.get_tensor(name).dtype.itemsize for name in file.keys()} == {2}  # noqa: SIM118
    assert facts["recipe"] == json.loads(json.dumps(asdict(getattr(EMBEDDED, member))))


def test_the_pair_is_small_and_shares_its_tokenizer() -> None:
    assert sum(path.stat().st_size for folder in MEMBERS.values() for path in folder.iterdir()) <= 12 * 10**6
    assert len({(folder / "tokenizer.json").read_bytes() for folder in MEMBERS.values()}) == 1


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    out: Path = tmp_path_factory.mktemp("run") / "pair"
    return fairspec_bench.run(
        "embedded:verifier",
        "embedded:drafter",
        ["embedded_math"],
        out,
        languages=LANGUAGES,
        limit=16,
        batch_size=16,
        race_rounds=0,
        cache=None,
    )


def test_no_answer_is_cut_and_most_unseen_problems_are_right(report: Report) -> None:
    (suite,) = report.suites
    for task in suite.tasks:
        assert task.measures["truncated"].value == 0
        fitness = task.measures["verifier_fitness"].value
        assert fitness is not None
        assert fitness >= 0.7, f"{task.task}: docs/results/embedded-pair.md has the figures over more problems"


def test_acceptance_is_uneven_between_languages(report: Report) -> None:
    (suite,) = report.suites
    acceptance = [task.measures["acceptance"].value for task in suite.tasks]
    known = [value for value in acceptance if value is not None]
    assert len(known) == len(LANGUAGES)
    assert max(known) - min(known) >= 0.2
