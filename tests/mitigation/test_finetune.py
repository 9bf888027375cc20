"""A drafter fine-tuned end to end: the folder, its card, resuming after a kill, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_pair import contents
from transformers import AutoModelForCausalLM, AutoTokenizer

from fairspec_bench.engine.drafters.registry import load_drafter
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.mitigation.finetune import FineTuneOptions, FineTuneProgress, finetune
from fairspec_bench.mitigation.methods import METHODS, Fitted
from fairspec_bench.mitigation.trainer import TrainingRecipe
from fairspec_bench.models.model import load_model
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.options import RunOptions, model_spec
from fairspec_bench.scoring import prepare
from fairspec_bench.scoring.run import run

RECIPE = TrainingRecipe(steps=4, rate=3e-3, per_task=1, evaluate=2)


@pytest.fixture(scope="module")
def options(pair: tuple[Path, Path]) -> FineTuneOptions:
    verifier, drafter = (model_spec(str(folder)) for folder in pair)
    return FineTuneOptions(
        verifier, drafter, "s-cdf", ("embedded_math",), RECIPE, languages=("en", "te"), limit=5, max_new_tokens=12
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_folder_that_can_be_scored(
    method: str, options: FineTuneOptions, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fine-tuned"
    result = finetune(replace(options, method=method), out, cache=cache)
    verifier = load_model(options.verifier.source)
    assert result.verifier_sha256_after == result.plan.verifier_sha256 == verifier.weights_sha256
    run_options = RunOptions(
        options.verifier,
        drafter_spec(str(out)),
        ("embedded_math",),
        ("en", "te"),
        limit=2,
        max_new_tokens=8,
        race_rounds=0,
    )
    report = run(prepare.prepare(run_options), tmp_path / "run", cache=cache)
    assert all(task.measures["misfit"].value is not None for task in report.suites[0].tasks)
    made = "fitted" if isinstance(METHODS[method], Fitted) else "fine-tuned"
    assert f"{made} by {method}" in (out / "README.md").read_text(encoding="utf-8")
    if method != "ngram":
        assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.float32
        assert AutoTokenizer.from_pretrained(out)("1").input_ids


def test_a_finished_folder_is_left_as_it_is_and_another_plan_refused(
    options: FineTuneOptions, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fine-tuned"
    first = finetune(options, out, cache=cache)
    before = contents(out)
    assert finetune(options, out, cache=cache) == first
    assert contents(out) == before
    other = replace(options, recipe=RECIPE.model_copy(update={"seed": 3}))
    with pytest.raises(
        FairspecError, match=r"another fine-tuning \(recipe.seed: 0 there, 3 here\).*Choose another --out"
    ):
        finetune(other, out, cache=cache)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FairspecError, match="not empty, and not a fine-tuning folder"):
        finetune(options, tmp_path / "mine", cache=cache)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


class Killed(Exception):
    pass


def test_killed_anywhere_it_resumes_to_the_same_weights(options: FineTuneOptions, cache: Path, tmp_path: Path) -> None:
    recipe = TrainingRecipe(steps=25, rate=3e-3, per_task=1, evaluate=10)
    options = replace(options, recipe=recipe)
    straight = finetune(options, tmp_path / "straight", cache=cache)
    for stage, place in (("references", 3), ("training", 1), ("training", 12), ("training", 21)):

        def on_progress(progress: FineTuneProgress, stage: str = stage, place: int = place) -> None:
            if (progress.stage, progress.done) == (stage, place):
                raise Killed

        with pytest.raises(Killed):
            finetune(options, tmp_path / "killed", cache=tmp_path / "cache", on_progress=on_progress)
    again = finetune(options, tmp_path / "killed", cache=tmp_path / "cache")
    assert again.history == straight.history
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "killed")]
    assert weights[0] == weights[1]


def test_the_drafter_of_a_temperature_folder_has_its_temperatures(
    options: FineTuneOptions, cache: Path, tmp_path: Path
) -> None:
    finetune(replace(options, method="temperature"), tmp_path / "warm", cache=cache)
    kept = json.loads((tmp_path / "warm" / "fairspec_drafter.json").read_text())["temperatures"]
    assert set(kept) == {"embedded_math/en", "embedded_math/te"}
    drafter = load_drafter("model", str(tmp_path / "warm"), None, load_model(options.verifier.source))
    assert drafter.temperatures == kept  # type: ignore[attr-defined]


def test_what_a_large_pair_needs_changes_nothing_but_memory(
    options: FineTuneOptions, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations made again, logits in pieces: the same drafter. Passes in bfloat16: nearly the same."""
    plain = finetune(options, tmp_path / "plain", cache=cache)
    half = finetune(replace(options, dtype="bfloat16"), tmp_path / "half", cache=cache)
    monkeypatch.setattr("fairspec_bench.mitigation.finetune.CHECKPOINTED", 0)
    monkeypatch.setattr("fairspec_bench.mitigation.passes.PIECE_BYTES", 4 * 300 * 5)
    thrifty = finetune(options, tmp_path / "thrifty", cache=cache)
    assert plain.after is not None
    for other, off in ((thrifty, 1e-4), (half, 0.1)):
        assert other.after is not None
        assert other.after.misfit == pytest.approx(plain.after.misfit, rel=off)
        assert other.after.misfit != other.before.misfit


def test_adapters_are_trained_resumed_and_merged(options: FineTuneOptions, cache: Path, tmp_path: Path) -> None:
    options = replace(options, lora_rank=2, recipe=TrainingRecipe(steps=20, rate=1e-2, per_task=2, evaluate=5))
    result = finetune(options, tmp_path / "straight", cache=cache)
    assert result.best_step > 0

    def on_progress(progress: FineTuneProgress) -> None:
        if (progress.stage, progress.done) == ("training", 13):
            raise Killed

    with pytest.raises(Killed):
        finetune(options, tmp_path / "killed", cache=cache, on_progress=on_progress)
    finetune(options, tmp_path / "killed", cache=cache)
    base = AutoModelForCausalLM.from_pretrained(options.drafter.source).state_dict()
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
        ({"limit": 1}, "no training example"),
    ],
)
def test_what_cannot_be_is_one_line(
    change: dict[str, object], says: str, options: FineTuneOptions, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(FairspecError, match=says):
        finetune(replace(options, **change), tmp_path / "out", cache=cache)  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "mitigation.json").exists()
