"""Fine-tuning and fitting refuse logits that are not finite, by model, task, prompt and output position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_corpus import find_trained, made_corpus, make_setup

from fairspec_bench.mitigation import losses, passes, trainer
from fairspec_bench.mitigation.corpus import Corpus
from fairspec_bench.mitigation.fitted import GRID, fit_temperatures
from fairspec_bench.mitigation.passes import TrainingSetup, check_head
from fairspec_bench.mitigation.trainer import TrainingRecipe
from fairspec_bench.mitigation.weights import TaskLosses
from fairspec_bench.schemas.base import FairspecError

ONES = TaskLosses.start(torch.ones(3, dtype=torch.float64), ["a", "b", "c"])
PASSES: dict[str, Callable[[TrainingSetup], object]] = {
    "gradient": lambda work: trainer.gradient(work, range(len(work.corpus.train)), find_trained("s-cdf"), ONES),
    "held out": lambda work: trainer.held_out(work, losses.kl),
    "figures": trainer.figures_of,
    "training": lambda work: trainer.train(work, find_trained("uniform"), TrainingRecipe(steps=2)),
    "temperatures": fit_temperatures,
}
OWN = 1
"""An id that no made-up example has."""


def work_with(model: str) -> TrainingSetup:
    """A setup whose example 5, of task b, has at output position 2 an id that `model` has as NaN."""
    corpus = made_corpus()
    examples = [replace(each, key=f"k{number}") for number, each in enumerate(corpus.train)]
    ids = examples[5].output
    examples[5] = replace(examples[5], output=(ids[0], OWN, *ids[2:]))
    work = make_setup(Corpus(tuple(examples), tuple(examples), corpus.shares))
    hf = work.student if model == "drafter" else work.train.hf
    hf.lm_head.weight = torch.nn.Parameter(hf.lm_head.weight.detach().clone())
    with torch.no_grad():
        hf.get_input_embeddings().weight[OWN] = torch.nan
    return work


@pytest.mark.parametrize("model", ["drafter", "verifier"])
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("piece_bytes", [2**28, 1], ids=["whole", "pieces"])
def test_every_pass_refuses_either_model(
    name: str, model: str, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "PIECE_BYTES", piece_bytes)
    # 0 × NaN is NaN: Transformers' own attention weighs later tokens of a text by 0.
    with pytest.raises(FairspecError, match=f"^b: k5, output position [23]: the logits of the {model} are not finite"):
        PASSES[name](work_with(model))


def test_without_the_guard_a_temperature_would_be_fitted_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "finite", lambda peak: torch.ones_like(peak, dtype=torch.bool))
    assert fit_temperatures(work_with("drafter"))["b"] == GRID[0]


def test_a_head_that_gives_nan_is_not_called_post_processed() -> None:
    student = make_setup(made_corpus()).student
    with torch.no_grad():
        student.model.norm.weight[0] = torch.nan
    with pytest.raises(FairspecError, match=r"^d: the logits of its first ids are not finite"):
        check_head(student, "d")
