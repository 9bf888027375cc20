"""Sampling parameters against a slow float64 version, ties included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fairspec_bench.engine.sampling import fit_vocabulary, log_probs
from fairspec_bench.schemas.config import SamplingParams


def slow(logits: np.ndarray, sampling: SamplingParams) -> np.ndarray:
    scores = logits.astype(np.float64) / sampling.temperature
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    if sampling.top_k:
        order = [i for i in order if scores[i] >= scores[order[min(sampling.top_k, len(order)) - 1]]]
    p = {i: np.exp(scores[i]) for i in order}
    total, kept, mass = sum(p.values()), [], 0.0
    for i in order:
        if mass >= sampling.top_p:
            break
        kept.append(i)
        mass += p[i] / total
    out = np.zeros(len(scores))
    out[kept] = [p[i] for i in kept]
    return out / out.sum()


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.7),
        SamplingParams(temperature=1.0, top_k=5),
        SamplingParams(temperature=1.0, top_p=0.8),
        SamplingParams(temperature=1.3, top_k=9, top_p=0.7),
        SamplingParams(temperature=1.0, top_k=500),
    ],
)
def test_against_the_slow_version(sampling: SamplingParams) -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)) * 2
    got = log_probs(logits, sampling)
    assert got.dtype == torch.float32
    want = np.stack([slow(row, sampling) for row in logits.numpy()])
    np.testing.assert_allclose(got.exp().numpy(), want, atol=2e-6)
    assert ((got == -torch.inf).numpy() == (want == 0)).all()


def test_ties() -> None:
    logits = torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0])
    assert log_probs(logits, SamplingParams(temperature=1.0, top_k=2)).isfinite().tolist() == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert log_probs(logits, SamplingParams(temperature=1.0, top_p=0.3)).isfinite().tolist() == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert int(logits.argmax()) == 1


def test_greedy_is_no_distribution() -> None:
    with pytest.raises(ValueError, match="argmax"):
        log_probs(torch.zeros(3), SamplingParams())


def test_bfloat16_logits_give_float32() -> None:
    got = log_probs(torch.randn(4, 9).bfloat16(), SamplingParams(temperature=1.0))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(4))


def test_fit_vocabulary() -> None:
    logits = torch.arange(6.0).reshape(2, 3)
    assert fit_vocabulary(logits, 2).tolist() == [[0, 1], [3, 4]]
    assert fit_vocabulary(logits, 4)[:, 3].tolist() == [-torch.inf] * 2
    assert torch.equal(fit_vocabulary(logits, 3), logits)
