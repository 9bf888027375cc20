"""How much each task's loss counts, each way one entry in `WEIGHTS`.

A weight function reads each task's losses in batches *before* the one being weighed, so that weights are constants to
the gradient, and returns [m] weights, none negative but in `excess_full`. A task absent from a batch keeps its running
mean. Gaps are taken within a suite: suites differ in level by more than languages do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 0.1


class TaskLosses(NamedTuple):
    """By task, [m]: `mean`, the running mean of its loss D̂_T; `ascent`, η times the sum of its batch means so far.

    `suite` numbers each task's suite, int64 [m].
    """

    mean: Tensor
    ascent: Tensor
    suite: Tensor

    @classmethod
    def start(cls, mean: Tensor, tasks: Sequence[str]) -> TaskLosses:
        """Of tasks named `suite/language`, or by anything without a slash: then all are of one suite."""
        names = [task.rpartition("/")[0] for task in tasks]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return cls(mean, torch.zeros_like(mean), torch.tensor([numbers[name] for name in names]))

    def after(self, batch: Tensor, decay: float, rate: float) -> TaskLosses:
        """With one more batch's means [m], NaN for a task that it lacks; `rate` is η."""
        there = ~batch.isnan()
        mean = torch.where(there, decay * self.mean + (1 - decay) * batch, self.mean)
        return TaskLosses(mean, self.ascent + rate * batch.nan_to_num(0.0), self.suite)

    def suites(self) -> list[Tensor]:
        """A mask [m] of the tasks of each suite."""
        return [self.suite == number for number in self.suite.unique()]

    def gaps(self) -> Tensor:
        """D̂_T − min D̂ of its suite, [m]."""
        least = torch.full_like(self.mean, torch.inf).scatter_reduce(0, self.suite, self.mean, "amin")
        return self.mean - least[self.suite]


WeightFunction = Callable[[TaskLosses], Tensor]


def excess_raw(losses: TaskLosses) -> Tensor:
    """(2/m)(D̂_T − min D̂): g is then ∇U without the term in ∇D_min, s-CDF as in 2510.02128 (reconstructed)."""
    return 2 / len(losses.mean) * losses.gaps()


def excess(losses: TaskLosses) -> Tensor:
    """The same direction with weights of sum 1: usable across pairs, but g does not fade as the gaps close.

    Of several suites each has the same sum. A suite whose gaps are all 0, or of one task alone: weights 0.
    """
    gaps, suites = losses.gaps(), losses.suites()
    weights = torch.zeros_like(gaps)
    for mine in suites:
        if gaps[mine].sum() > 0:
            weights[mine] = gaps[mine] / gaps[mine].sum() / len(suites)
    return weights


def excess_full(losses: TaskLosses) -> Tensor:
    """`excess` with the term in ∇D_min kept, so that g is along ∇U: the best task's weight is −Σ of the others'.

    It pushes the best task's loss *up*: what dropping the term avoids.
    """
    weights, gaps = excess(losses), losses.gaps()
    for mine in losses.suites():
        best = mine.nonzero()[gaps[mine].argmin(), 0]
        weights[best] = -weights[mine].sum()
    return weights


def excess_floor(losses: TaskLosses) -> Tensor:
    """`excess` with a tenth spread evenly, so that the best task is not forgotten."""
    return (1 - FLOOR) * excess(losses) + FLOOR / len(losses.mean)


def equal(losses: TaskLosses) -> Tensor:
    """1/m each."""
    return torch.full_like(losses.mean, 1 / len(losses.mean))


def group_dro(losses: TaskLosses) -> Tensor:
    """∝ exp(η Σ loss): exponentiated ascent on the worst task (Sagawa et al., 1911.08731), one batch behind.

    η is the recipe's `ascent`.
    """
    return torch.softmax(losses.ascent, dim=0)


WEIGHTS: Mapping[str, WeightFunction] = {
    "excess": excess,
    "excess_raw": excess_raw,
    "excess_floor": excess_floor,
    "excess_full": excess_full,
    "equal": equal,
    "group_dro": group_dro,
}
