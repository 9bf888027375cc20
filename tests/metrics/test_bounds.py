"""The inequalities on random distributions and texts, and that a broken measurement breaks them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fairspec_bench.metrics.acceptance import expected_blocks
from fairspec_bench.metrics.bounds import bounds


def random_laws(generator: np.random.Generator, contexts: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    logits = sharpness * generator.standard_normal((2, contexts, 12))
    laws = np.exp(logits - logits.max(axis=-1, keepdims=True))
    first, second = laws / laws.sum(axis=-1, keepdims=True)
    return first, second


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 3.0, 8.0])
def test_overlap_bounds_hold_for_random_distributions(sharpness: float) -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        p, q = random_laws(generator, 20, sharpness)
        overlap = float(np.minimum(p, q).sum(axis=-1).mean())
        kl = float((p * np.log(p / q)).sum(axis=-1).mean())
        cross_entropy = float(-(p * np.log(q)).sum(axis=-1).mean())
        by_kl, by_ce = bounds(overlap=overlap, misfit=kl), bounds(overlap=overlap, misfit=cross_entropy)
        assert all(bound.holds for bound in (*by_kl, *by_ce))
        assert by_kl[0].low == pytest.approx(1 - math.sqrt(kl / 2))
        for strong, weak in zip(by_kl, by_ce, strict=True):
            assert strong.low is not None
            assert weak.low is not None
            assert strong.low >= weak.low
        exponential, strong = by_kl[2].low, by_kl[1].low
        assert exponential is not None
        assert strong is not None
        assert strong >= exponential - 1e-12


def test_overlap_bounds_are_tight_enough_to_catch_a_halved_overlap() -> None:
    p, q = random_laws(np.random.default_rng(0), 500, 0.3)
    overlap = float(np.minimum(p, q).sum(axis=-1).mean())
    kl = float((p * np.log(p / q)).sum(axis=-1).mean())
    assert not all(bound.holds for bound in bounds(overlap=overlap / 2, misfit=kl))


def test_truth_bounds() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        p, q = random_laws(generator, 10, 2.0)
        truth, _ = random_laws(generator, 10, 2.0)
        r_p, r_q = (np.abs(each - truth).sum(axis=-1) / 2 for each in (p, q))
        overlap = float(np.minimum(p, q).sum(axis=-1).mean())
        sides = (float((r_p + r_q).mean()), float(np.abs(r_p - r_q).mean()))
        (bound,) = bounds(overlap=overlap, truth=sides)
        assert bound.holds


@pytest.mark.parametrize("gamma", [1, 2, 4, 8])
def test_block_efficiency_bound_holds_for_any_text(gamma: int) -> None:
    """Bursty, steady and certain texts, prompts pooled: the i.i.d. formula would fail here, this one must not."""
    generator = np.random.default_rng(gamma)
    below_iid = 0
    for _ in range(100):
        prompts = []
        for _ in range(3):
            length = int(generator.integers(1, 80))
            run = np.repeat(generator.random(length), generator.integers(1, 9))[:length]
            prompts.append(np.round(run) if generator.random() < 0.5 else run)
        blocks = expected_blocks(prompts, gamma).blocks.sum()
        contexts = sum(map(len, prompts))
        mean = float(np.concatenate(prompts).mean())
        (bound,) = bounds(block_efficiency=contexts / blocks, acceptance=mean, gamma=gamma, contexts=contexts / 3)
        assert bound.holds
        below_iid += contexts / blocks < sum(mean**power for power in range(gamma + 1))
    assert below_iid > 0


def test_block_efficiency_bound_catches_blocks_counted_twice() -> None:
    blocks = expected_blocks([[0.9] * 200], 4).blocks.sum()
    (bound,) = bounds(block_efficiency=200 / (2 * blocks), acceptance=0.9, gamma=4, contexts=200)
    assert not bound.holds


def test_only_what_is_given_is_bounded() -> None:
    assert bounds() == ()
    assert bounds(overlap=0.5) == ()
