"""How much each task's loss counts, each way one entry in `WEIGHTS`.

A weight function reads each task's losses in batches *before* the one being weighed, so that weights are constants to
the gradient, and returns [m] weights, none negative. A task absent from a batch keeps its running mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 0.1
DRO_RATE = 0.1


class TaskLosses(NamedTuple):
    """By task, [m]: `mean`, the running mean of its loss D̂_T; `total`, the sum of its batch means so far."""

    mean: Tensor
    total: Tensor

    def after(self, batch: Tensor, decay: float) -> TaskLosses:
        """With one more batch's means [m], NaN for a task that it lacks."""
        there = ~batch.isnan()
        mean = torch.where(there, decay * self.mean + (1 - decay) * batch, self.mean)
        return TaskLosses(mean, self.total + batch.nan_to_num(0.0))


WeightFunction = Callable[[TaskLosses], Tensor]


def excess_raw(losses: TaskLosses) -> Tensor:
    """(2/m)(D̂_T − min D̂): g is then ∇U without the term in ∇D_min, s-CDF as in 2510.02128 (reconstructed)."""
    return 2 / len(losses.mean) * (losses.mean - losses.mean.min())


def excess(losses: TaskLosses) -> Tensor:
    """The same direction with weights of sum 1: usable across pairs, but g does not fade as the gaps close.

    All gaps 0, or one task alone: all weights 0.
    """
    raw = losses.mean - losses.mean.min()
    return raw / raw.sum() if raw.sum() > 0 else torch.zeros_like(raw)


def excess_floor(losses: TaskLosses) -> Tensor:
    """`excess` with a tenth spread evenly, so that the best task is not forgotten."""
    return (1 - FLOOR) * excess(losses) + FLOOR / len(losses.mean)


def equal(losses: TaskLosses) -> Tensor:
    """1/m each."""
    return torch.full_like(losses.mean, 1 / len(losses.mean))


def group_dro(losses: TaskLosses) -> Tensor:
    """∝ exp(η Σ loss): exponentiated ascent on the worst task (Sagawa et al., 1911.08731), one batch behind."""
    return torch.softmax(DRO_RATE * losses.total, dim=0)


WEIGHTS: Mapping[str, WeightFunction] = {
    "excess": excess,
    "excess_raw": excess_raw,
    "excess_floor": excess_floor,
    "equal": equal,
    "group_dro": group_dro,
}
