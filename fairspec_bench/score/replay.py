"""A drafter scored on finished texts by teacher-forced passes: no decoding, and every γ at once.

Knows the logits of both models at every context of the verifier's own continuation, and the sums that METRICS asks of
them. Takes no ratios and forms no blocks: `measure` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairspec_bench.engine.accept import point_mass
from fairspec_bench.engine.drafters import Drafter
from fairspec_bench.engine.loop import as_request
from fairspec_bench.engine.model import Model
from fairspec_bench.engine.rule import NEVER, fit_vocabulary, log_probs
from fairspec_bench.records import Encoded, Replay, Rule, Trace
from fairspec_bench.score.reference import pair

WORKING_COPIES = 16
"""About how many float32 tensors of the logits' shape are alive at once while contexts are scored."""


def replay(
    verifier: Model,
    drafter: Drafter,
    encoded: Sequence[Encoded],
    traces: Sequence[Trace],
    *,
    rule: Rule,
    seed: int,
    batch_size: int,
    shard: str,
    memory_bytes: int = 2**30,
) -> Iterator[Replay]:
    """Score the drafter on every context of every trace, in the prompts' order.

    Prompts of similar output length share a batch. Logits are made in pieces such that the work on them stays within
    about `memory_bytes`, beside weights and caches. Raises `FairspecError` if traces and prompts do not match.
    """
    pairs = pair(encoded, traces)
    by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index][1].ids))
    replays: dict[int, Replay] = {}
    for first in range(0, len(pairs), batch_size):
        indices = by_length[first : first + batch_size]
        scored = _score_batch(verifier, drafter, [pairs[index] for index in indices], rule, seed, memory_bytes)
        replays |= {
            index: _record(contexts, drafter, pairs[index][1], rule, shard)
            for index, contexts in zip(indices, scored, strict=True)
        }
    for index in range(len(pairs)):
        yield replays[index]


class Contexts(NamedTuple):
    """Figures of C contexts, each [C], as METRICS defines them; those that need a proper q are NaN without one."""

    draft: Tensor
    alpha: Tensor
    beta: Tensor
    overlap: Tensor
    kl: Tensor
    verifier_entropy: Tensor


def score_contexts(logits: Tensor, text: Tensor, rule: Rule, draft: Tensor) -> Contexts:
    """A drafter that proposes `draft` [C] with certainty, against verifier logits [C, V] and its tokens `text` [C]."""
    none = torch.full(text.shape, torch.nan, device=text.device)
    entropy = _entropy(logits.float().log_softmax(-1))
    hit = (draft == text).float()
    if rule.greedy:
        return Contexts(draft, hit, hit, none, none, entropy)
    log_q = point_mass(draft[:, None], logits.shape[-1]).squeeze(1)
    alpha, beta = _acceptance(log_probs(logits, rule), log_q, text)
    return Contexts(draft, alpha, beta, none, none, entropy)


def score_contexts_proper(logits: Tensor, q_logits: Tensor, text: Tensor, rule: Rule, drafter: Drafter) -> Contexts:
    """A drafter with logits of its own, `q_logits` [C, V]: alpha and beta under the rule, the rest at temperature 1.

    The drafter's own temperature belongs to q throughout. Ids that only pad the verifier's embedding count for nothing
    in the KL.
    """
    q_logits = fit_vocabulary(q_logits, logits.shape[-1])
    plain = Rule(temperature=1.0)
    log_p, log_q = log_probs(logits, plain), log_probs(q_logits, drafter.rule(plain))
    p = log_p.exp()
    overlap = torch.minimum(p, log_q.exp()).sum(-1)
    kl = torch.where((p > 0) & (log_q > NEVER), p * (log_p - log_q), 0.0).sum(-1)
    draft = q_logits.argmax(-1)
    if rule.greedy:
        alpha = beta = (draft == text).float()
    else:
        alpha, beta = _acceptance(log_probs(logits, rule), log_probs(q_logits, drafter.rule(rule)), text)
    return Contexts(draft, alpha, beta, overlap, kl, _entropy(log_p))


def _acceptance(log_p: Tensor, log_q: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = Σ min(p, q) and beta = min(1, q(y)/p(y)): [C, V] and y [C] → [C] each."""
    alpha = torch.minimum(log_p, log_q).exp().sum(-1)
    p, q = (log.gather(-1, text[:, None]).squeeze(-1) for log in (log_p, log_q))
    return alpha, torch.where(q > NEVER, (q - p).clamp_max(0), NEVER).exp()


def _entropy(log_p: Tensor) -> Tensor:
    return -torch.where(log_p > NEVER, log_p.exp() * log_p, 0.0).sum(-1)


def _score_batch(
    verifier: Model,
    drafter: Drafter,
    pairs: Sequence[tuple[Encoded, Trace]],
    rule: Rule,
    seed: int,
    memory_bytes: int,
) -> list[Contexts]:
    """One teacher-forced pass over a batch; → the contexts of each text."""
    device, counts = verifier.device, [len(trace.ids) - 1 for _, trace in pairs]
    longest = max(counts)
    start = torch.tensor([len(prompt.ids) for prompt, _ in pairs], device=device)
    text = _padded([trace.ids for _, trace in pairs], longest + 1, device)
    proposed = None if drafter.proper else _padded(_proposals(drafter, pairs, seed), longest, device)
    models = [verifier, drafter.model] if drafter.proper and drafter.model else [verifier]
    end = int(start.max())
    rows = [model.rows(len(pairs), end + longest + 1) for model in models]
    for index, (prompt, _) in enumerate(pairs):
        for model_rows in rows:
            model_rows.prefill(index, prompt.ids)
    piece = max(1, memory_bytes // (len(pairs) * verifier.vocab_size * 4 * WORKING_COPIES))
    scored: list[list[Contexts]] = [[] for _ in pairs]
    for first in range(0, longest, piece):
        last = min(first + piece, longest)
        logits = [r.step(text[:, first:last], start + first, view=end + last, keep=last - first) for r in rows]
        for index, count in enumerate(counts):
            if (kept := min(last, count) - first) <= 0:
                continue
            p_logits, y = logits[0][index, :kept], text[index, first + 1 : first + 1 + kept]
            if proposed is None:
                contexts = score_contexts_proper(p_logits, logits[1][index, :kept], y, rule, drafter)
            else:
                contexts = score_contexts(p_logits, y, rule, proposed[index, first : first + kept])
            scored[index].append(contexts)
    return [_joined(pieces) for pieces in scored]


def _padded(lists: Sequence[Sequence[int]], length: int, device: torch.device) -> Tensor:
    rows = [list(ids)[:length] + [0] * (length - len(ids)) for ids in lists]
    return torch.tensor(rows, dtype=torch.long, device=device)


def _proposals(drafter: Drafter, pairs: Sequence[tuple[Encoded, Trace]], seed: int) -> list[list[int]]:
    return [drafter.proposals(as_request(prompt), trace.ids, seed) for prompt, trace in pairs]


def _joined(pieces: Sequence[Contexts]) -> Contexts:
    if not pieces:
        return Contexts(torch.zeros(0, dtype=torch.long), *(torch.zeros(0) for _ in Contexts._fields[1:]))
    return Contexts(*(torch.cat(values) for values in zip(*pieces, strict=True)))


def _record(contexts: Contexts, drafter: Drafter, trace: Trace, rule: Rule, shard: str) -> Replay:
    sums = {name: float(value.double().sum()) for name, value in contexts._asdict().items()}
    return Replay(
        key=trace.key,
        prompt_sha=trace.prompt_sha,
        contexts=len(trace.ids) - 1,
        alpha=sums["alpha"],
        overlap=sums["overlap"] if drafter.proper else None,
        kl=sums["kl"] if drafter.proper else None,
        cross_entropy=sums["kl"] + sums["verifier_entropy"] if drafter.proper else None,
        verifier_entropy=sums["verifier_entropy"],
        draft_ids=tuple(contexts.draft.tolist()),
        beta=None if rule.greedy else tuple(contexts.beta.tolist()),
        shard=shard,
    )
