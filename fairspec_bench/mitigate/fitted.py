"""A drafter temperature for each task, fitted to the corpus without training; arXiv 2510.02128 names it as a remedy.

Knows distributions of both models and one number a task. It changes sampling alone: greedy drafts are the same argmax.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fairspec_bench.mitigate.losses import overlap
from fairspec_bench.mitigate.passes import Trainee, at_contexts, passes

GRID = (1.0, *(round(0.5 * 1.05**step, 4) for step in range(29)))
"""Temperatures tried: 1, and .5 to about 1.96 in steps of 5 %."""


@torch.no_grad()
def fit_temperatures(trainee: Trainee) -> dict[str, float]:
    """For each task the temperature of q, of `GRID`, with the greatest mean overlap on the training texts."""
    corpus, found = trainee.corpus, {}
    for task in corpus.tasks:
        sums = torch.zeros(len(GRID), dtype=torch.float64)
        for part in passes(corpus.train, corpus.by_task[task]):
            sums += at_contexts(trainee, trainee.train, part, _overlaps).double().sum(0).cpu()
        found[task] = GRID[int(sums.argmax())]
    return found


def _overlaps(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """Overlap under each temperature, [C, len(GRID)]."""
    return torch.stack([overlap(log_p, (log_q / heat).log_softmax(-1)) for heat in GRID], dim=-1)


FITS: dict[str, object] = {}
