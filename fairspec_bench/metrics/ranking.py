"""Rank ranges of several drafters on the same references.

Ranks are by mean acceptance over languages alone, never by unfairness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairspec_bench.metrics.bootstrap import LEVEL, Array
from fairspec_bench.metrics.catalogue import measures
from fairspec_bench.metrics.measure import linear
from fairspec_bench.metrics.run_data import Sheets
from fairspec_bench.metrics.unfairness import SURE
from fairspec_bench.schemas.base import FairspecError

REPLICATES = 1_000
PAIRS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Standing:
    """One drafter's mean acceptance over the languages of a suite, and the ranks `low` to `high` that it may have."""

    mean: float
    low: int
    high: int


def standings(drafters: Mapping[str, Sheets], gamma: int, *, seed: int = 0) -> dict[str, Standing]:
    """The rank ranges of drafters scored on one suite: [1 + significantly better, n − significantly worse].

    One is significantly better where the simultaneous 95 % interval of the paired difference of means excludes 0: max-t
    over all pairs, from Gaussian multipliers on the clusters' influences. Drafters that lack a language are not ranked.
    Raises `FairspecError` where two of them were scored on other prompts.
    """
    means, influences, acceptance = dict[str, float](), list[Array](), measures(gamma)["acceptance"]
    for slug, sheets in drafters.items():
        found = [linear(acceptance, sheet) for sheet in sheets.prompts.values()]
        if not found or any(one is None for one in found):
            continue
        values = [one.value for one in found if one is not None]
        means[slug] = float(np.mean(values))
        influences.append(_influence(sheets, [one.influence for one in found if one is not None]))
    if not means:
        return {}
    if len({len(each) for each in influences}) > 1:
        raise FairspecError("standings: the drafters were scored on different prompts. Compare within one track.")
    better, worse = _beaten(np.array(list(means.values())), np.stack(influences, axis=1), seed)
    count = len(means)
    return {
        slug: Standing(mean, 1 + int(better[place]), count - int(worse[place]))
        for place, (slug, mean) in enumerate(means.items())
    }


def _influence(sheets: Sheets, found: Sequence[Array]) -> Array:
    """Each cluster's influence on the mean over tasks, the strata one under the other."""
    totals = [np.zeros(size) for size in sheets.parts.sizes]
    for task, one in zip(sheets.prompts, found, strict=True):
        totals[sheets.parts.stratum[task]] += one / len(found)
    return np.concatenate(totals)


def _beaten(means: Array, influences: Array, seed: int) -> tuple[Array, Array]:
    """By how many each drafter is significantly surpassed, and how many it surpasses, `[n]` each."""
    clusters, count = influences.shape
    if clusters < 2 or count < 2:
        return np.zeros(count), np.zeros(count)
    centred = influences - influences.mean(axis=0)
    gram = centred.T @ centred * clusters / (clusters - 1)
    error = np.sqrt(np.maximum(np.add.outer(np.diag(gram), np.diag(gram)) - 2 * gram, 0.0))
    apart = np.subtract.outer(means, means)
    known = error > SURE
    scale = np.divide(1.0, error, out=np.zeros_like(error), where=known).astype(np.float32)
    generator = np.random.default_rng(seed)
    largest = np.empty(REPLICATES)
    step = max(1, PAIRS_AT_ONCE // count**2)
    for start in range(0, REPLICATES, step):
        drawn = (generator.standard_normal((min(step, REPLICATES - start), clusters)) @ centred).astype(np.float32)
        pairs = np.abs(drawn[:, :, None] - drawn[:, None, :])
        largest[start : start + len(drawn)] = (pairs * scale).max(axis=(1, 2))
    apart_enough = np.where(known, np.abs(apart) * scale > np.quantile(largest, LEVEL), np.abs(apart) > SURE)
    return (apart_enough & (apart < 0)).sum(axis=1), (apart_enough & (apart > 0)).sum(axis=1)
