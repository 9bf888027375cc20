"""A drafter mended end to end: the folder, its card, going on after a kill, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_pair import contents
from transformers import AutoModelForCausalLM, AutoTokenizer

from fairspec_bench.engine.drafters import load_drafter
from fairspec_bench.engine.model import load_model
from fairspec_bench.mitigation.methods import METHODS
from fairspec_bench.mitigation.trainer import Recipe
from fairspec_bench.records import FairspecError
from fairspec_bench.score import prepare
from fairspec_bench.score.prepare import model_ask
from fairspec_bench.score.run import run
from fairspec_bench.studies.mend import Ask, Watched, mend

RECIPE = Recipe(steps=4, rate=3e-3, per_task=1, evaluate=2)


@pytest.fixture(scope="module")
def ask(pair: tuple[Path, Path]) -> Ask:
    verifier, drafter = (model_ask(str(folder)) for folder in pair)
    return Ask(verifier, drafter, "s-cdf", ("embedded_math",), RECIPE, languages=("en", "te"), limit=5, cap=12)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_folder_that_can_be_scored(method: str, ask: Ask, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "mended"
    result = mend(replace(ask, method=method), out, cache=cache)
    verifier = load_model(ask.verifier.source)
    assert result.verifier_sha256_after == result.asked.verifier_sha256 == verifier.weights_sha256
    asked = prepare.Ask(
        ask.verifier, prepare.drafter_ask(str(out)), ("embedded_math",), ("en", "te"), limit=2, cap=8, race_rounds=0
    )
    report = run(prepare.prepare(asked), tmp_path / "run", cache=cache)
    assert all(task.measures["misfit"].value is not None for task in report.suites[0].tasks)
    assert f"mended by {method}" in (out / "README.md").read_text(encoding="utf-8")
    if method != "ngram":
        assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.float32
        assert AutoTokenizer.from_pretrained(out)("1").input_ids


def test_a_finished_folder_is_left_as_it_is_and_another_mending_refused(ask: Ask, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "mended"
    first = mend(ask, out, cache=cache)
    before = contents(out)
    assert mend(ask, out, cache=cache) == first
    assert contents(out) == before
    other = replace(ask, recipe=RECIPE.model_copy(update={"seed": 3}))
    with pytest.raises(FairspecError, match=r"holds another mending \(recipe is .*Choose another --out"):
        mend(other, out, cache=cache)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FairspecError, match="not empty and no mended drafter"):
        mend(ask, tmp_path / "mine", cache=cache)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


class Killed(Exception):
    pass


def test_killed_anywhere_it_goes_on_to_the_same_weights(ask: Ask, cache: Path, tmp_path: Path) -> None:
    recipe = Recipe(steps=25, rate=3e-3, per_task=1, evaluate=10)
    ask = replace(ask, recipe=recipe)
    straight = mend(ask, tmp_path / "straight", cache=cache)
    for stage, place in (("texts", 3), ("training", 1), ("training", 12), ("training", 21)):

        def watch(seen: Watched, stage: str = stage, place: int = place) -> None:
            if (seen.stage, seen.done) == (stage, place):
                raise Killed

        with pytest.raises(Killed):
            mend(ask, tmp_path / "killed", cache=tmp_path / "cache", watch=watch)
    again = mend(ask, tmp_path / "killed", cache=tmp_path / "cache")
    assert again.history == straight.history
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "killed")]
    assert weights[0] == weights[1]


def test_the_drafter_of_a_temperature_folder_has_its_temperatures(ask: Ask, cache: Path, tmp_path: Path) -> None:
    mend(replace(ask, method="temperature"), tmp_path / "warm", cache=cache)
    kept = json.loads((tmp_path / "warm" / "fairspec_drafter.json").read_text())["temperatures"]
    assert set(kept) == {"embedded_math/en", "embedded_math/te"}
    drafter = load_drafter("model", str(tmp_path / "warm"), None, load_model(ask.verifier.source))
    assert drafter.temperatures == kept  # type: ignore[attr-defined]


def test_what_a_large_pair_needs_changes_nothing_but_memory(
    ask: Ask, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations made again, logits in pieces: the same drafter. Passes in bfloat16: nearly the same."""
    plain = mend(ask, tmp_path / "plain", cache=cache)
    half = mend(replace(ask, dtype="bfloat16"), tmp_path / "half", cache=cache)
    monkeypatch.setattr("fairspec_bench.studies.mend.CHECKPOINTED", 0)
    monkeypatch.setattr("fairspec_bench.mitigation.passes.PIECE_BYTES", 4 * 300 * 5)
    thrifty = mend(ask, tmp_path / "thrifty", cache=cache)
    assert plain.after is not None
    for other, off in ((thrifty, 1e-4), (half, 0.1)):
        assert other.after is not None
        assert other.after.misfit == pytest.approx(plain.after.misfit, rel=off)
        assert other.after.misfit != other.before.misfit


def test_adapters_are_trained_resumed_and_merged(ask: Ask, cache: Path, tmp_path: Path) -> None:
    ask = replace(ask, lora_rank=2, recipe=Recipe(steps=20, rate=1e-2, per_task=2, evaluate=5))
    result = mend(ask, tmp_path / "straight", cache=cache)
    assert result.best_step > 0

    def watch(seen: Watched) -> None:
        if (seen.stage, seen.done) == ("training", 13):
            raise Killed

    with pytest.raises(Killed):
        mend(ask, tmp_path / "killed", cache=cache, watch=watch)
    mend(ask, tmp_path / "killed", cache=cache)
    base = AutoModelForCausalLM.from_pretrained(ask.drafter.source).state_dict()
    straight, killed = (
        AutoModelForCausalLM.from_pretrained(tmp_path / one).state_dict() for one in ("straight", "killed")
    )
    assert straight.keys() == base.keys()
    assert all(torch.equal(straight[name], killed[name]) for name in base)
    moved = {name for name in base if not torch.equal(straight[name], base[name])}
    assert moved
    assert all("proj" in name for name in moved)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "wish"}, "--method wish: unknown"),
        ({"prompts": ("nowhere",)}, "--prompts nowhere: no such folder"),
        ({"dtype": "float16"}, "gradients would vanish"),
        ({"limit": 1}, "no training text"),
    ],
)
def test_what_cannot_be_is_one_line(
    change: dict[str, object], says: str, ask: Ask, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(FairspecError, match=says):
        mend(replace(ask, **change), tmp_path / "out", cache=cache)  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "mitigation.json").exists()
