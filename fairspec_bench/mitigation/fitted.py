"""Remedies without training: a drafter temperature for each task, an n-gram model for each task.

Knows distributions of both models, the corpus, and the drafter's file that the engine reads. A fit is one entry in
`FITS`: it writes what the folder needs beside (or instead of) weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fairspec_bench.engine import ngram
from fairspec_bench.engine.drafters import ModelFile
from fairspec_bench.engine.drafting import FILE
from fairspec_bench.engine.model import Model
from fairspec_bench.mitigation.losses import overlap
from fairspec_bench.mitigation.passes import Trainee, at_contexts, passes
from fairspec_bench.records import write_record

GRID = (1.0, *(round(0.5 * 1.05**step, 4) for step in range(29)))
"""Temperatures tried: 1, and .5 to about 1.96 in steps of 5 %."""


@torch.no_grad()
def fit_temperatures(trainee: Trainee) -> dict[str, float]:
    """For each task the temperature of q, of `GRID`, with the greatest mean overlap on the training texts.

    It changes sampling alone: greedy drafts are the same argmax. A remedy that arXiv 2510.02128 names.
    """
    corpus, found = trainee.corpus, {}
    trainee.student.eval()
    for task in corpus.tasks:
        sums = torch.zeros(len(GRID), dtype=torch.float64)
        for part in passes(corpus.train, corpus.by_task[task]):
            sums += at_contexts(trainee, trainee.train, part, _overlaps).double().sum(0).cpu()
        found[task] = GRID[int(sums.argmax())]
    return found


def _overlaps(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """Overlap under each temperature, [C, len(GRID)]."""
    return torch.stack([overlap(log_p, (log_q / heat).log_softmax(-1)) for heat in GRID], dim=-1)


def write_temperatures(trainee: Trainee, verifier: Model, out: Path) -> None:
    """The temperatures as the engine reads them, beside unchanged weights."""
    write_record(out / FILE, ModelFile(kind="model", temperatures=fit_temperatures(trainee)))


def write_ngram(trainee: Trainee, verifier: Model, out: Path) -> None:
    """n-gram tables counted on the training texts, after arXiv 2605.30580 (reconstructed)."""
    texts = ((text.task, text.prompt, text.output) for text in trainee.corpus.train)
    ngram.fit(texts, verifier.vocab_size, vocabulary=verifier.vocabulary).save(out)


FITS: Mapping[str, Callable[[Trainee, Model, Path], None]] = {"temperature": write_temperatures, "ngram": write_ngram}
