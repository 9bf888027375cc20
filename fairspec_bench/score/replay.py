"""A drafter scored on finished texts by teacher-forced passes: no decoding, and every γ at once.

Knows the verifier's logits and the drafter's guess at every context of the verifier's own continuation, and the sums
that METRICS asks of them. Takes no ratios and forms no blocks: `measure` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairspec_bench.engine.accept import point_mass
from fairspec_bench.engine.drafting import Drafter, Guess, Reading
from fairspec_bench.engine.forced import Forced
from fairspec_bench.engine.loop import as_request
from fairspec_bench.engine.model import Model
from fairspec_bench.engine.rule import NEVER, log_probs
from fairspec_bench.records import Encoded, Replay, Rule, Trace
from fairspec_bench.score.reference import pair

BATCH_COPIES, TEXT_COPIES = 3, 11
"""About how many float32 tensors of the logits' shape are alive at once: of the batch, and of the text being scored."""


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
    gap: Tensor


def score_contexts(logits: Tensor, guess: Guess, text: Tensor, rule: Rule) -> Contexts:
    """One text's contexts: verifier logits [C, V], the drafter's guess (ids [C], scores [C, V]), the tokens [C].

    Alpha and beta are under the rule, the rest at temperature 1; a temperature of the drafter's own is within its
    scores throughout. Ids that only pad the verifier's embedding count for nothing in the KL. `gap` is how far the
    verifier's likeliest token lies above the text's, nats.
    """
    plain = Rule(temperature=1.0)
    log_p = log_probs(logits, plain)
    overlap = kl = torch.full(text.shape, torch.nan, device=text.device)
    if guess.scores is not None:
        p, log_q = log_p.exp(), log_probs(guess.scores, plain)
        overlap = torch.minimum(p, log_q.exp()).sum(-1)
        kl = torch.where((p > 0) & (log_q > NEVER), p * (log_p - log_q), 0.0).sum(-1)
    if rule.greedy:
        alpha = beta = (guess.ids == text).float()
    else:
        alpha, beta = _acceptance(log_probs(logits, rule), _law(guess, logits.shape[-1], rule), text)
    gap = log_p.amax(-1) - log_p.gather(-1, text[:, None]).squeeze(-1)
    return Contexts(guess.ids, alpha, beta, overlap, kl, _entropy(log_p), gap)


def _law(guess: Guess, size: int, rule: Rule) -> Tensor:
    """log q [C, V] under a sampling rule."""
    if guess.scores is None:
        return point_mass(guess.ids[:, None], size).squeeze(1)
    return log_probs(guess.scores, rule)


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
    requests, texts = [as_request(prompt) for prompt, _ in pairs], [trace.ids for _, trace in pairs]
    counts = [len(ids) - 1 for ids in texts]
    longest = max(counts)
    forced = Forced(verifier, [request.ids for request in requests], texts)
    reading = drafter.read(requests, texts, seed)
    piece = max(1, memory_bytes // position_bytes(len(pairs), verifier.vocab_size))
    scored: list[list[Contexts]] = [[] for _ in pairs]
    for first in range(0, longest, piece):
        for index, contexts in _score_piece(forced, reading, counts, first, min(first + piece, longest), rule):
            scored[index].append(contexts)
    return [_joined(pieces) for pieces in scored]


def _score_piece(
    forced: Forced, reading: Reading, counts: Sequence[int], first: int, last: int, rule: Rule
) -> list[tuple[int, Contexts]]:
    """The contexts `first`…`last − 1` of each text that reaches so far, by its index. Logits end with the call."""
    logits, guess = forced.piece(first, last), reading.piece(first, last)
    guess = guess._replace(ids=guess.ids.to(logits.device))
    found = []
    for index, count in enumerate(counts):
        if (kept := min(last, count) - first) > 0:
            y = forced.text[index, first + 1 : first + 1 + kept]
            found.append((index, score_contexts(logits[index, :kept], guess.of(index, kept), y, rule)))
    return found


def position_bytes(rows: int, vocabulary: int) -> int:
    """About how many bytes are alive for each position of a piece while a batch is scored."""
    return (BATCH_COPIES * rows + TEXT_COPIES) * vocabulary * 4


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
        departures=int((contexts.gap > 0).sum()) if rule.greedy else None,
        largest_gap=max(contexts.gap.tolist(), default=0.0) if rule.greedy else None,
        shard=shard,
    )
