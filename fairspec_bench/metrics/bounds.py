"""Inequalities that hold for any pair of models, each with the figure it bounds: a violated one is a measurement error.

They hold at temperature 1 on the full softmax with the same contexts and weights on both sides; greedy alpha need not
satisfy the first three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SLACK = 1e-6


@dataclass(frozen=True)
class Bound:
    """`figure` must not be below `low` nor above `high` (None: no such side)."""

    name: str
    figure: float
    low: float | None = None
    high: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it does, within float32 rounding."""
        above = self.low is None or self.figure >= self.low - SLACK
        return above and (self.high is None or self.figure <= self.high + SLACK)


def overlap_bounds(overlap: float, misfit: float) -> tuple[Bound, ...]:
    """Mean overlap (1 − E TV) from mean KL, or from mean cross-entropy, weaker: Pinsker; Bretagnolle–Huber, twice.

    Jensen carries the per-context inequalities to means, as their right sides are convex in KL.
    """
    return (
        Bound("Pinsker", overlap, 1 - math.sqrt(misfit / 2)),
        Bound("Bretagnolle–Huber", overlap, 1 - math.sqrt(-math.expm1(-misfit))),
        Bound("Bretagnolle–Huber, exponential", overlap, math.exp(-misfit) / 2),
    )


def block_efficiency_bound(block_efficiency: float, acceptance: float, gamma: int, contexts: float) -> Bound:
    """(γ+1) / (1 + γ(1 − ᾱ) + (γ+1)/N) for any output of N contexts (mean per prompt) and mean acceptance ᾱ."""
    low = (gamma + 1) / (1 + gamma * (1 - acceptance) + (gamma + 1) / contexts)
    return Bound("block efficiency of any output", block_efficiency, low)


def truth_bounds(overlap: float, mean_sum: float, mean_difference: float) -> Bound:
    """1 − E[r_p + r_q] ≤ overlap ≤ 1 − E|r_p − r_q|, r each model's TV to a true distribution that is *known*."""
    return Bound("distance to the truth", overlap, 1 - mean_sum, 1 - mean_difference)


def bounds(
    *,
    overlap: float | None = None,
    misfit: float | None = None,
    block_efficiency: float | None = None,
    acceptance: float | None = None,
    gamma: int | None = None,
    contexts: float | None = None,
    truth: tuple[float, float] | None = None,
) -> tuple[Bound, ...]:
    """Every bound that the figures given allow; `truth` is (E[r_p + r_q], E|r_p − r_q|), known only in a testbed."""
    found: list[Bound] = []
    if overlap is not None and misfit is not None:
        found.extend(overlap_bounds(overlap, misfit))
    if block_efficiency is not None and acceptance is not None and gamma is not None and contexts:
        found.append(block_efficiency_bound(block_efficiency, acceptance, gamma, contexts))
    if overlap is not None and truth is not None:
        found.append(truth_bounds(overlap, *truth))
    return tuple(found)
