"""Acceptance on table models: exact distribution, exact acceptance, and planted bugs that the same checks reject."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from fairspec_bench.engine import acceptance
from fairspec_bench.engine.acceptance import accept_greedy, accept_sampled, draw, point_mass
from fairspec_bench.engine.rng import Purpose, exponential, keys, uniform
from fairspec_bench.engine.sampling import log_probs
from fairspec_bench.schemas.config import SamplingParams

VOCAB, GAMMA, DRAWS = 12, 2, 250_000
RULES = {
    "T=1": SamplingParams(temperature=1.0),
    "T=.7": SamplingParams(temperature=0.7),
    "top-k": SamplingParams(temperature=1.0, top_k=5),
    "top-p": SamplingParams(temperature=1.0, top_p=0.8),
}
Claim = Callable[[Tensor], Tensor]


def honest(log_q: Tensor) -> Tensor:
    return log_q


def chi2_pvalue(counts: Tensor, probabilities: Tensor) -> float:
    """Pearson's test; cells expected below 5 are pooled; a count where none can be is p = 0."""
    expected = probabilities.double() * counts.sum()
    if bool((counts[expected == 0] > 0).any()):
        return 0.0
    rare = expected < 5
    if bool(rare.any()):
        counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts, expected = counts[expected > 0], expected[expected > 0]
    return float(stats.chisquare(counts.numpy(), expected.numpy() * counts.sum().item() / expected.sum().item()).pvalue)


def joint_law_pvalue(sampling: SamplingParams, seed: int = 0, claim: Claim = honest) -> tuple[float, float]:
    """First three tokens of Markov tables by speculative sampling against the verifier's: χ² p and acceptance's |z|."""
    generator = torch.Generator().manual_seed(5)
    p_logits = torch.randn(VOCAB, VOCAB, generator=generator) * 1.5
    log_p = log_probs(p_logits, sampling)
    log_q = log_probs(p_logits + torch.randn(VOCAB, VOCAB, generator=generator), sampling)
    alpha = torch.minimum(log_p, log_q).exp().sum(-1).double()
    out = torch.zeros(DRAWS, 3 + GAMMA + 1, dtype=torch.long)
    done = torch.zeros(DRAWS, dtype=torch.long)
    expected = variance = accepted = 0.0
    while bool((live := done < 3).any()):
        rows = live.nonzero().squeeze(1)
        current = torch.where(done[rows] > 0, out[rows, (done[rows] - 1).clamp_min(0)], 0)
        position = done[rows, None] + torch.arange(GAMMA + 1)
        stream = rows[:, None].expand_as(position)
        drafts: list[Tensor] = []
        last = current
        for i in range(GAMMA):
            last = draw(log_q[last], exponential(keys(seed, rows, position[:, i], Purpose.DRAFT), VOCAB))
            drafts.append(last)
        draft = torch.stack(drafts, dim=1)
        contexts = torch.cat([current[:, None], draft], dim=1)
        result = accept_sampled(
            draft,
            claim(log_q[contexts[:, :-1]]),
            log_p[contexts],
            uniform(keys(seed, stream[:, :-1], position[:, :-1], Purpose.ACCEPT)),
            lambda a, rows=rows, at=position: exponential(
                keys(seed, rows, at.gather(1, a[:, None]).squeeze(1), Purpose.TARGET), VOCAB
            ),
        )
        tokens = torch.cat([draft, result.token[:, None]], dim=1)
        tokens.scatter_(1, result.accepted[:, None], result.token[:, None])
        out[rows[:, None], position] = tokens
        done[rows] += result.accepted + 1
        tested = torch.arange(GAMMA) <= result.accepted[:, None]
        a = alpha[contexts[:, :-1]][tested]
        expected += float(a.sum())
        variance += float((a * (1 - a)).sum())
        accepted += float(result.accepted.sum())
    p = log_p.exp().double()
    joint = p[0][:, None, None] * p[:, :, None] * p[None]
    cells = (out[:, 0] * VOCAB + out[:, 1]) * VOCAB + out[:, 2]
    counts = torch.bincount(cells, minlength=VOCAB**3).double()
    return chi2_pvalue(counts, joint.flatten()), abs(accepted - expected) / variance**0.5


@pytest.mark.parametrize("name", RULES)
def test_joint_law_is_the_verifiers(name: str) -> None:
    pvalue, z = joint_law_pvalue(RULES[name])
    assert pvalue > 0.001
    assert z < 3.3


def _redraw_from_p(monkeypatch: pytest.MonkeyPatch) -> Claim:
    monkeypatch.setattr(acceptance, "residual", lambda log_p, log_q, accepted: acceptance._row(log_p, accepted))
    return honest


def _bonus_from_residual(monkeypatch: pytest.MonkeyPatch) -> Claim:
    right = acceptance.residual
    monkeypatch.setattr(acceptance, "residual", lambda p, q, a: right(p[:, :-1], q, a.clamp_max(GAMMA - 1)))
    return honest


def _ratio_forgotten(monkeypatch: pytest.MonkeyPatch) -> Claim:
    monkeypatch.setattr(
        acceptance,
        "accepts",
        lambda draft, log_q, log_p, coins, text: coins.log() < acceptance._at(log_p[:, :-1], draft),
    )
    return honest


def _q_at_another_temperature(monkeypatch: pytest.MonkeyPatch) -> Claim:
    return lambda log_q: (log_q / 1.5).log_softmax(-1)


@pytest.mark.parametrize("plant", [_redraw_from_p, _bonus_from_residual, _ratio_forgotten, _q_at_another_temperature])
def test_a_planted_bug_fails_the_law(plant: Callable[..., Claim], monkeypatch: pytest.MonkeyPatch) -> None:
    pvalue, _ = joint_law_pvalue(RULES["T=1"], claim=plant(monkeypatch))
    assert pvalue < 1e-6


@pytest.mark.parametrize("plant", [_ratio_forgotten, _q_at_another_temperature])
def test_a_planted_bug_fails_the_acceptance_sum(plant: Callable[..., Claim], monkeypatch: pytest.MonkeyPatch) -> None:
    _, z = joint_law_pvalue(RULES["T=1"], claim=plant(monkeypatch))
    assert z > 5


def coarse_law_pvalue() -> float:
    """p and q in quarters, coins in quarters: P(u < r) is exact, so a comparison that is not strict shows."""
    p, q = torch.tensor([0.0, 0.25, 0.25, 0.5]), torch.tensor([0.25, 0.5, 0.25, 0.0])
    count = 200_000
    stream = torch.arange(count)
    one = torch.ones(count, dtype=torch.long)
    draft = draw(q.log(), exponential(keys(0, stream, one, Purpose.DRAFT), 4))[:, None]
    coins = (uniform(keys(0, stream, one, Purpose.ACCEPT)) * 4).floor()[:, None] / 4
    noise = exponential(keys(0, stream, one, Purpose.TARGET), 4)
    result = accept_sampled(
        draft, q.log().expand(count, 1, 4), p.log().expand(count, 2, 4), coins, lambda accepted: noise
    )
    first = torch.where(result.accepted > 0, draft[:, 0], result.token)
    return chi2_pvalue(torch.bincount(first, minlength=4).double(), p)


def test_the_test_is_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    assert coarse_law_pvalue() > 0.001
    monkeypatch.setattr(
        acceptance,
        "accepts",
        lambda draft, log_q, log_p, coins, text: (
            coins.log() <= acceptance._at(log_p[:, :-1], draft) - acceptance._at(log_q, draft)
        ),
    )
    assert coarse_law_pvalue() == 0


def test_point_mass_drafter_keeps_the_law() -> None:
    count, log_p = 200_000, torch.randn(VOCAB, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    stream, one = torch.arange(count), torch.ones(count, dtype=torch.long)
    draft = torch.full((count, 1), int(log_p.argmax()))
    noise = exponential(keys(0, stream, one, Purpose.TARGET), VOCAB)
    result = accept_sampled(
        draft,
        point_mass(draft, VOCAB),
        log_p.expand(count, 2, VOCAB),
        uniform(keys(0, stream, one, Purpose.ACCEPT))[:, None],
        lambda accepted: noise,
    )
    first = torch.where(result.accepted > 0, draft[:, 0], result.token)
    assert chi2_pvalue(torch.bincount(first, minlength=VOCAB).double(), log_p.exp()) > 0.001


def ones(accepted: Tensor) -> Tensor:
    return torch.ones(len(accepted), 4, dtype=torch.float64)


def test_equal_models_accept_everything_and_leave_p() -> None:
    log_p = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    draft = torch.zeros(3, 2, dtype=torch.long)
    coins = torch.full((3, 2), 1 - 2.0**-53, dtype=torch.float64)
    result = accept_sampled(draft, log_p[:, :2], log_p, coins, ones)
    assert result.accepted.tolist() == [2, 2, 2]
    assert torch.equal(result.token, log_p[:, 2].argmax(-1))
    nothing_left = acceptance.residual(log_p, log_p[:, :2], torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(nothing_left, log_p[:, 0])


def test_disjoint_supports_reject_even_a_zero_coin() -> None:
    log_p = point_mass(torch.tensor([[3, 3]]), 4)
    result = accept_sampled(torch.tensor([[1]]), point_mass(torch.tensor([[1]]), 4), log_p, torch.zeros(1, 1), ones)
    assert (result.accepted.item(), result.token.item()) == (0, 3)


def test_no_drafts_is_a_plain_draw() -> None:
    log_p = torch.tensor([[[0.1, 0.2, 0.3, 0.4]]]).log()
    result = accept_sampled(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0, 4), log_p, torch.zeros(1, 0), ones)
    assert (result.accepted.item(), result.token.item()) == (0, 3)


def test_greedy_counts_the_leading_matches() -> None:
    draft = torch.tensor([[1, 2, 3], [1, 9, 3], [9, 2, 3]])
    result = accept_greedy(draft, torch.tensor([[1, 2, 3, 4]]).expand(3, 4))
    assert result.accepted.tolist() == [3, 1, 0]
    assert result.token.tolist() == [4, 2, 1]


def test_known_text_accepts_with_probability_beta() -> None:
    """Given its own token y, a draft y stands with probability min(1, q(y)/p(y)); any other never."""
    count = 200_000
    p, q = torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0.2, 0.5, 0.3])
    coins = uniform(keys(0, torch.arange(count), torch.ones(count, dtype=torch.long), Purpose.ACCEPT))[:, None]
    for token, beta in enumerate([0.4, 1.0, 1.0]):
        draft = torch.full((count, 1), token)
        hits = acceptance.accepts(draft, q.log().expand(count, 1, 3), p.log().expand(count, 2, 3), coins, draft)
        assert abs(hits.double().mean().item() - beta) < 0.005
        other = acceptance.accepts(draft, q.log().expand(count, 1, 3), p.log().expand(count, 2, 3), coins, draft ^ 1)
        assert not other.any()
