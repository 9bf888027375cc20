"""The acceptance test of speculative decoding as pure functions on tensors; all randomness is passed in.

Named as in Leviathan et al. 2023 (arXiv 2211.17192): p is the verifier's distribution, q the drafter's.
Shapes: B rows, γ drafts, V tokens; log p [B, γ+1, V] and log q [B, γ, V] float32 under the sampling parameters; γ may
be 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from fairspec_bench.engine.sampling import NEVER


class AcceptResult(NamedTuple):
    """`accepted` [B]: how many drafts are accepted (0…γ); `token` [B]: the verifier's own token after them."""

    accepted: Tensor
    token: Tensor


def leading(hits: Tensor) -> Tensor:
    """The length of the leading run of hits: bool [B, γ] → int64 [B]."""
    return hits.long().cumprod(1).sum(1)


def draw(log_weights: Tensor, noise: Tensor) -> Tensor:
    """One exact draw per row, weights [..., V]: argmax(log w − log E) with `noise` E ~ Exp(1) [..., V]."""
    return (log_weights - noise.log()).argmax(-1)


def point_mass(draft: Tensor, size: int) -> Tensor:
    """log q of a drafter that proposes `draft` [B, γ] with certainty: float32 [B, γ, size]."""
    log_q = torch.full((*draft.shape, size), NEVER, device=draft.device)
    return log_q.scatter_(-1, draft[..., None], 0.0)


def accepts(draft: Tensor, log_q: Tensor, log_p: Tensor, coins: Tensor, reference: Tensor) -> Tensor:
    """Whether each draft x ~ q is accepted, given coins u uniform on [0, 1): all [B, γ] → bool [B, γ].

    Without a reference id (−1): u < p(x)/q(x), strictly, so that p(x) = 0 is rejected even by a coin of 0. Where the
    verifier's token y is given: by Bayes' rule x was accepted with probability beta = min(1, q(y)/p(y)) if x = y, else
    not.
    """
    p, q = _at(log_p[:, :-1], draft), _at(log_q, draft)
    return torch.where(reference < 0, coins.log() < p - q, (draft == reference) & (coins.log() < q - p))


def residual(log_p: Tensor, log_q: Tensor, accepted: Tensor) -> Tensor:
    """log of max(0, p − q) at the first rejected draft, unnormalised: [B, V].

    Where all drafts are accepted q is 0: the bonus token is drawn from p. Where p = q to the last bit nothing is left
    and p is the limit.
    """
    p = _row(log_p, accepted).exp()
    q = _row(pad(log_q, (0, 0, 0, 1), value=NEVER), accepted).exp()
    rest = (p - q).clamp_min(0)
    return torch.where(rest.sum(-1, keepdim=True) > 0, rest, p).log()


def accept_greedy(draft: Tensor, target: Tensor) -> AcceptResult:
    """Token match: drafts [B, γ] against the verifier's argmax ids [B, γ+1]."""
    accepted = leading(draft == target[:, :-1])
    return AcceptResult(accepted, target.gather(1, accepted[:, None]).squeeze(1))


def accept_sampled(
    draft: Tensor,
    log_q: Tensor,
    log_p: Tensor,
    coins: Tensor,
    noise: Callable[[Tensor], Tensor],
    reference: Tensor | None = None,
) -> AcceptResult:
    """Speculative sampling, Leviathan et al., Algorithm 1: accepted tokens and the next one are distributed as p.

    `noise(accepted)` gives Exp(1) numbers [B, V] for the position after the accepted drafts. With `reference` [B, γ]
    the verifier's tokens are given, and acceptance is drawn on that condition.
    """
    given = torch.full_like(draft, -1) if reference is None else reference
    accepted = leading(accepts(draft, log_q, log_p, coins, given))
    return AcceptResult(accepted, draw(residual(log_p, log_q, accepted), noise(accepted)))


def _at(log_probs: Tensor, ids: Tensor) -> Tensor:
    return log_probs.gather(-1, ids[..., None]).squeeze(-1)


def _row(log_probs: Tensor, index: Tensor) -> Tensor:
    return log_probs.gather(1, index[:, None, None].expand(-1, 1, log_probs.shape[-1])).squeeze(1)
