"""Sampling through `decode` and a real model: the distribution of tokens, and that of acceptances."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from tiny_models import family, noised, prompts, stock
from torch import Tensor

from fairspec_bench.engine import acceptance
from fairspec_bench.engine.batch import Batch
from fairspec_bench.engine.drafters import base
from fairspec_bench.engine.drafters import model as model_drafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.ngram import NgramDrafter, fit
from fairspec_bench.engine.queue import ReferenceIds
from fairspec_bench.engine.rng import Purpose
from fairspec_bench.engine.sampling import log_probs
from fairspec_bench.engine.speculative import Request, decode
from fairspec_bench.models.model import Model, wrap
from fairspec_bench.schemas.config import Backend, SamplingParams

SMALL, CAP, ROWS, FEWER = 6, 201, 1_000, 300
PLAIN = SamplingParams(temperature=1.0)
SEEDS = 32


@cache
def short_sighted() -> tuple[Model, ModelDrafter]:
    """One layer that sees two tokens: what comes next depends on them alone, so all positions have one distribution."""
    shape = {
        "vocab_size": SMALL,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "eos_token_id": None,
        "max_position_embeddings": 256,
    }
    hf = family("mistral", **shape)
    hf.config.sliding_window = 2
    verifier = wrap(hf, "short-sighted")
    return verifier, ModelDrafter(noised(verifier, 0.5), verifier)


@cache
def conditional(sampling: SamplingParams) -> Tensor:
    """p(c | a, b) float64 [a, b, c] from plain passes over all pairs."""
    hf = stock(short_sighted()[0])
    pairs = torch.cartesian_prod(torch.arange(SMALL), torch.arange(SMALL))
    with torch.no_grad():
        logits = hf(pairs).logits[:, -1]
    return log_probs(logits, sampling).exp().double().reshape(SMALL, SMALL, SMALL)


@cache
def tempered() -> ModelDrafter:
    """Every other row drafted far too hot, the rest too cold."""
    verifier, drafter = short_sighted()
    return ModelDrafter(drafter.model, verifier, temperatures={"g/even": 3.0, "odd": 0.4})


@cache
def tables() -> NgramDrafter:
    """Counted on texts of another seed, and of too low an order."""
    verifier, _ = short_sighted()
    asked = [Request(str(i), (i % SMALL, i // SMALL % SMALL), 60, 10_000 + i) for i in range(100)]
    made = decode(verifier, None, asked, sampling=PLAIN, gamma=0, batch_size=100, seed=1)
    return NgramDrafter(fit([(("even", "odd")[int(row.key) % 2], (), row.ids) for row in made], SMALL, 2), verifier)


def of_size(size: int) -> ModelDrafter:
    """The drafter with an embedding of another size and the same tokenizer; ids that it gains are its favourites."""
    verifier, drafter = short_sighted()
    hf = copy.deepcopy(drafter.model.hf)
    hf.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        hf.get_output_embeddings().weight[SMALL:] = 1.5 * hf.get_output_embeddings().weight[: max(0, size - SMALL)]
    return ModelDrafter(wrap(hf, "padded", vocabulary="same"), replace(verifier, vocabulary="same"))


@cache
def wider() -> ModelDrafter:
    return of_size(SMALL + 3)


@cache
def narrower() -> ModelDrafter:
    return of_size(SMALL - 2)


DRAFTERS = {
    "model": lambda: short_sighted()[1],
    "tempered": tempered,
    "ngram": tables,
    "wider": wider,
    "narrower": narrower,
}


def transitions_pvalue(sampling: SamplingParams, rows: int, name: str = "model", backend: Backend = "eager") -> float:
    """χ² of (two tokens before, token) over all contexts of `rows` samples of 200 tokens after the first; γ = 3."""
    verifier, drafter = short_sighted()[0], DRAFTERS[name]()
    if backend != "eager":
        verifier = replace(verifier, backend=backend)
    groups = ("g/even", "g/odd")
    asked = [Request(str(i), (i % SMALL, i // SMALL % SMALL), CAP, i, None, groups[i % 2]) for i in range(rows)]
    counts = torch.zeros(SMALL**3, dtype=torch.float64)
    for done in decode(verifier, drafter, asked, sampling=sampling, gamma=3, batch_size=1_000, seed=11):
        ids = torch.tensor([*asked[int(done.key)].ids[-1:], *done.ids])
        cells = (ids[:-2] * SMALL + ids[1:-1]) * SMALL + ids[2:]
        counts += torch.bincount(cells, minlength=SMALL**3)
    counts = counts.reshape(-1, SMALL)
    p = conditional(sampling).reshape(-1, SMALL)
    assert counts.sum() == rows * (CAP - 1)
    if bool((counts[p == 0] > 0).any()):
        return 0.0
    expected = counts.sum(1, keepdim=True) * p
    kept = expected > 5
    chi2 = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    freedom = (kept.sum(1) - 1).clamp_min(0).sum()
    return float(stats.chi2.sf(chi2.item(), freedom.item()))


@pytest.mark.parametrize(
    "sampling", [PLAIN, pytest.param(SamplingParams(temperature=0.7, top_k=5, top_p=0.9), marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", DRAFTERS)
def test_tokens_follow_the_verifiers_law(name: str, sampling: SamplingParams) -> None:
    assert transitions_pvalue(sampling, ROWS if name == "model" else FEWER, name) > 0.001


@pytest.mark.parametrize("backend", ["graph", pytest.param("compile", marks=pytest.mark.slow)])
def test_tokens_follow_it_on_every_backend(backend: Backend) -> None:
    sampling = SamplingParams(temperature=0.7, top_k=5, top_p=0.9)
    assert transitions_pvalue(sampling, FEWER, "tempered", backend) > 0.001


def _redraw_from_p(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "residual", lambda log_p, log_q, accepted: acceptance._row(log_p, accepted))


def _coin_is_the_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """All purposes share one number: the exponential of each id is the same for draft and residual."""
    monkeypatch.setattr(base, "Purpose", SimpleNamespace(DRAFT=Purpose.TARGET))


def _surplus_keeps_its_mass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft is one of the verifier's ids, but the q that is tested is normalised over all of the drafter's."""
    drafted = model_drafter._drafted

    def planted(batch: Batch, last: Tensor, logits: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        token, _, slot = drafted(batch, last, logits, temperature)
        return token, log_probs(logits / temperature, batch.sampling)[..., : batch.vocab_size], slot

    monkeypatch.setattr(model_drafter, "_drafted", planted)


def _q_is_not_the_law_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft comes from a warmer distribution than the log q that is tested."""
    monkeypatch.setattr(base, "draw", lambda log_q, noise: acceptance.draw(log_q / 2, noise))


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (_redraw_from_p, "model"),
        (_coin_is_the_drafts, "model"),
        (_q_is_not_the_law_drawn_from, "tempered"),
        (_q_is_not_the_law_drawn_from, "ngram"),
        (_surplus_keeps_its_mass, "wider"),
    ],
)
def test_a_planted_bug_breaks_the_law(plant: Callable, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short_sighted(), DRAFTERS[name]()
    plant(monkeypatch)
    assert transitions_pvalue(PLAIN, FEWER, name) < 1e-6


# --------------------------------------------------------------------------- acceptance


@cache
def pair() -> tuple[Model, ModelDrafter]:
    verifier = wrap(family("llama", eos_token_id=None), "llama")
    return verifier, ModelDrafter(noised(verifier, 0.15), verifier)


def excess(
    sampling: SamplingParams, seed: int, chance: Callable, text: ReferenceIds | None = None
) -> tuple[float, float]:
    """accepted − Σ chance over the tested contexts of live decoding, and its variance Σ chance(1 − chance)."""
    verifier, drafter = pair()
    ids = prompts(8, 7, 7)
    asked = [Request(str(i), tuple(x), 40, i) for i, x in enumerate(ids)]
    decoding = decode(verifier, drafter, asked, sampling=sampling, gamma=3, batch_size=8, seed=seed, reference=text)
    rows = sorted(decoding, key=lambda row: int(row.key))
    assert text is None or all(row.ids == text[row.key] for row in rows)
    chances = chance(sampling, torch.tensor([[*prompt, *row.ids] for prompt, row in zip(ids, rows, strict=True)]), 7)
    total = variance = 0.0
    for row, known in zip(rows, chances, strict=True):
        first = 0
        for block in row.blocks:
            tested = known[first : first + min(block.emitted, 3)]
            total += block.accepted - float(tested.sum())
            variance += float((tested * (1 - tested)).sum())
            first += block.emitted
    return total, variance


@torch.no_grad()
def alpha(sampling: SamplingParams, tokens: Tensor, prompt: int) -> Tensor:
    """Σ min(p, q) at output positions 2…N, from plain passes over finished texts [B, S]."""
    verifier, drafter = pair()
    p, q = (log_probs(model.hf(tokens).logits[:, prompt:-1], sampling).exp() for model in (verifier, drafter.model))
    return torch.minimum(p, q).sum(-1).double()


@torch.no_grad()
def beta(sampling: SamplingParams, tokens: Tensor, prompt: int) -> Tensor:
    """min(1, q(y)/p(y)) there, in float64."""
    verifier, drafter = pair()
    y = tokens[:, prompt + 1 :, None]
    p, q = (
        model.hf(tokens).logits[:, prompt:-1].double().softmax(-1).gather(2, y).squeeze(2)
        for model in (verifier, drafter.model)
    )
    return (q / p).clamp_max(1)


def acceptance_pvalues(sampling: SamplingParams, seeds: int) -> tuple[float, float]:
    """Is the standardised sum N(0, 1)? p of its mean and of its sum of squares over seeds."""
    runs = [excess(sampling, seed, alpha) for seed in range(seeds)]
    z = torch.tensor([total / variance**0.5 for total, variance in runs], dtype=torch.float64)
    mean = 2 * stats.norm.sf(abs(z.sum().item()) / seeds**0.5)
    spread = float((z**2).sum())
    return mean, 2 * min(stats.chi2.cdf(spread, seeds), stats.chi2.sf(spread, seeds))


def test_acceptance_sum_is_standard_normal() -> None:
    mean, spread = acceptance_pvalues(PLAIN, SEEDS)
    assert mean > 0.001
    assert spread > 0.001


def test_a_planted_bug_shifts_the_acceptance_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        acceptance,
        "accepts",
        lambda draft, log_q, log_p, coins, text: coins.log() < acceptance._at(log_p[:, :-1], draft),
    )
    assert acceptance_pvalues(PLAIN, 4)[0] < 1e-6


def test_committed_text_is_accepted_at_the_rate_beta() -> None:
    """Committing reference ids with sampling: the text is kept and the acceptances sum to Σ beta."""
    asked = [Request(str(i), tuple(x), 40, i) for i, x in enumerate(prompts(8, 7, 7))]
    made = decode(pair()[0], None, asked, sampling=PLAIN, gamma=0, batch_size=8, seed=0)
    text = {row.key: row.ids for row in made}
    total, variance = map(sum, zip(*(excess(PLAIN, seed, beta, text) for seed in range(12)), strict=True))
    assert abs(total) / variance**0.5 < 3.3
