"""How much each task's loss counts, each way one entry in `WEIGHTS`.

Knows the losses seen so far, by task, from batches *before* the one being weighed: weights are constants to the
gradient. → [m] float, not negative. A task absent from a batch keeps what it had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 0.1
DRO_RATE = 0.1


class Seen(NamedTuple):
    """By task, [m]: `mean`, the running mean of its loss D̂_T; `total`, the sum of its batch means so far."""

    mean: Tensor
    total: Tensor

    def after(self, batch: Tensor, decay: float) -> Seen:
        """With one more batch's means [m], NaN for a task that it lacks."""
        there = ~batch.isnan()
        mean = torch.where(there, decay * self.mean + (1 - decay) * batch, self.mean)
        return Seen(mean, self.total + batch.nan_to_num(0.0))


Weigh = Callable[[Seen], Tensor]


def excess_raw(seen: Seen) -> Tensor:
    """(2/m)(D̂_T − min D̂): g is then ∇U without the term in ∇D_min, s-CDF as in 2510.02128 (reconstructed)."""
    return 2 / len(seen.mean) * (seen.mean - seen.mean.min())


def excess(seen: Seen) -> Tensor:
    """The same direction with weights of sum 1: usable across pairs, but g does not fade as the gaps close.

    All gaps 0, or one task alone: all weights 0.
    """
    raw = seen.mean - seen.mean.min()
    return raw / raw.sum() if raw.sum() > 0 else torch.zeros_like(raw)


def excess_floor(seen: Seen) -> Tensor:
    """`excess` with a tenth spread evenly, so that the best task is not forgotten."""
    return (1 - FLOOR) * excess(seen) + FLOOR / len(seen.mean)


def equal(seen: Seen) -> Tensor:
    """1/m each."""
    return torch.full_like(seen.mean, 1 / len(seen.mean))


def group_dro(seen: Seen) -> Tensor:
    """∝ exp(η Σ loss): exponentiated ascent on the worst task (Sagawa et al., 1911.08731), one batch behind."""
    return torch.softmax(DRO_RATE * seen.total, dim=0)


WEIGHTS: Mapping[str, Weigh] = {
    "excess": excess,
    "excess_raw": excess_raw,
    "excess_floor": excess_floor,
    "equal": equal,
    "group_dro": group_dro,
}
