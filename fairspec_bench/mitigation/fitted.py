"""Mitigation without training: a drafter temperature for each task, an n-gram model for each task.

A fit is one entry in `FITS`: a function that writes, beside the drafter's weights or instead of them, the
`fairspec_drafter.json` by which the engine loads the drafter. Nothing else depends on which fit it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fairspec_bench.engine.drafters import ngram
from fairspec_bench.engine.drafters.base import FILE
from fairspec_bench.engine.drafters.model import ModelFile
from fairspec_bench.mitigation.losses import overlap
from fairspec_bench.mitigation.passes import TrainingSetup, at_contexts, passes
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.io import write_record

GRID = (1.0, *(round(0.5 * 1.05**step, 4) for step in range(29)))
"""Temperatures tried: 1, and .5 to about 1.96 in steps of 5 %."""


@torch.no_grad()
def fit_temperatures(setup: TrainingSetup) -> dict[str, float]:
    """For each task the temperature of q, of `GRID`, with the greatest mean overlap on the training examples.

    It changes sampling alone: greedy drafts are the same argmax. Mentioned in arXiv 2510.02128.
    """
    corpus, found = setup.corpus, {}
    setup.student.eval()
    for task in corpus.tasks:
        sums = torch.zeros(len(GRID), dtype=torch.float64)
        for part in passes(corpus.train, corpus.by_task[task]):
            sums += at_contexts(setup, setup.train, part, _overlaps).double().sum(0).cpu()
        found[task] = GRID[int(sums.argmax())]
    return found


def _overlaps(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """Overlap under each temperature, [C, len(GRID)]."""
    return torch.stack([overlap(log_p, (log_q / temperature).log_softmax(-1)) for temperature in GRID], dim=-1)


def write_temperatures(setup: TrainingSetup, verifier: Model, out: Path) -> None:
    """The temperatures in the format of the engine, beside unchanged weights."""
    write_record(out / FILE, ModelFile(kind="model", temperatures=fit_temperatures(setup)))


def write_ngram(setup: TrainingSetup, verifier: Model, out: Path) -> None:
    """n-gram tables counted on the training examples, after arXiv 2605.30580 (reconstructed)."""
    examples = ((example.task, example.prompt, example.output) for example in setup.corpus.train)
    ngram.fit(examples, verifier.vocab_size, vocabulary=verifier.vocabulary).save(out)


FitFunction = Callable[[TrainingSetup, Model, Path], None]
"""(setup, verifier, folder): reads the corpus and both models, writes the drafter's files into the folder."""

FITS: Mapping[str, FitFunction] = {"temperature": write_temperatures, "ngram": write_ngram}
