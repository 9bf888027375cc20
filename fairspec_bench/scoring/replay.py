"""A drafter scored on references by teacher-forced passes: no decoding, and every γ at once.

Sums over contexts, as METRICS has them; ratios and blocks follow in `metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairspec_bench.engine.acceptance import point_mass
from fairspec_bench.engine.drafters.base import Drafter, DraftOutput, ReplaySession
from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.engine.sampling import NEVER, log_probs
from fairspec_bench.engine.speculative import as_request
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.lines import Reference, Replay
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.scoring.reference import pair
from fairspec_bench.scoring.verifier_states import VerifierPass, VerifierStates, forced_pass

BATCH_COPIES, TEXT_COPIES = 3, 11
"""About how many float32 tensors of the logits' shape are alive at once: of the batch, and of the text being scored."""


def replay(
    verifier: Model,
    drafter: Drafter,
    encoded: Sequence[Encoded],
    references: Sequence[Reference],
    *,
    sampling: SamplingParams,
    seed: int,
    batch_size: int,
    chunk: str,
    memory_bytes: int = 2**30,
    states: VerifierStates | None = None,
) -> Iterator[Replay]:
    """Score the drafter on every context of every reference, in the prompts' order.

    Prompts of similar output length share a batch. Logits are made in pieces such that the work on them stays within
    about `memory_bytes`, beside weights and caches. The verifier's pass is taken from `states`, or kept there. Raises
    `FairspecError` if references and prompts do not match, or where logits of either model are not finite.
    """
    pairs = pair(encoded, references)
    by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index][1].ids))
    replays: dict[int, Replay] = {}
    for first in range(0, len(pairs), batch_size):
        indices = by_length[first : first + batch_size]
        batch = [pairs[index] for index in indices]
        scored = _score_batch(verifier, drafter, batch, sampling, seed, memory_bytes, states)
        replays |= {
            index: _record(contexts, drafter, pairs[index][1], sampling, chunk)
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


def score_contexts(logits: Tensor, drafts: DraftOutput, text: Tensor, sampling: SamplingParams) -> Contexts:
    """One text's contexts: verifier logits [C, V], the drafter's drafts (ids [C], scores [C, V]), the tokens [C].

    Alpha and beta are under the sampling parameters, the rest at temperature 1; a temperature of the drafter's own is
    within its scores throughout. Ids that only pad the verifier's embedding count for nothing in the KL. `gap` is how
    far the verifier's likeliest token lies above the text's, nats.
    """
    plain = SamplingParams(temperature=1.0)
    log_p = log_probs(logits, plain)
    overlap = kl = torch.full(text.shape, torch.nan, device=text.device)
    if drafts.scores is not None:
        p, log_q = log_p.exp(), log_probs(drafts.scores, plain)
        overlap = torch.minimum(p, log_q.exp()).sum(-1)
        kl = torch.where((p > 0) & (log_q > NEVER), p * (log_p - log_q), 0.0).sum(-1)
    if sampling.greedy:
        alpha = beta = (drafts.ids == text).float()
    else:
        alpha, beta = _acceptance(
            log_probs(logits, sampling), _drafter_log_probs(drafts, logits.shape[-1], sampling), text
        )
    gap = log_p.amax(-1) - log_p.gather(-1, text[:, None]).squeeze(-1)
    return Contexts(drafts.ids, alpha, beta, overlap, kl, _entropy(log_p), gap)


def _drafter_log_probs(drafts: DraftOutput, size: int, sampling: SamplingParams) -> Tensor:
    """log q [C, V] under the sampling parameters."""
    if drafts.scores is None:
        return point_mass(drafts.ids[:, None], size).squeeze(1)
    return log_probs(drafts.scores, sampling)


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
    pairs: Sequence[tuple[Encoded, Reference]],
    sampling: SamplingParams,
    seed: int,
    memory_bytes: int,
    states: VerifierStates | None,
) -> list[Contexts]:
    """One teacher-forced pass over a batch; → the contexts of each text."""
    requests, texts = [as_request(prompt) for prompt, _ in pairs], [reference.ids for _, reference in pairs]
    counts = [len(ids) - 1 for ids in texts]
    longest = max(counts)
    piece = max(1, memory_bytes // position_bytes(len(pairs), verifier.vocab_size))
    forced = (
        states.verifier_pass(verifier, requests, texts, piece) if states else forced_pass(verifier, requests, texts)
    )
    reading = drafter.read(requests, texts, seed)
    scored: list[list[Contexts]] = [[] for _ in pairs]
    for first in range(0, longest, piece):
        for index, contexts in _score_piece(forced, reading, counts, first, min(first + piece, longest), sampling):
            scored[index].append(contexts)
    return [_joined(step_times) for step_times in scored]


def _score_piece(
    forced: VerifierPass,
    reading: ReplaySession,
    counts: Sequence[int],
    first: int,
    last: int,
    sampling: SamplingParams,
) -> list[tuple[int, Contexts]]:
    """The contexts `first`…`last − 1` of each text that reaches so far, by its index. Logits end with the call."""
    logits, drafts = forced.piece(first, last), reading.piece(first, last)
    drafts = drafts._replace(ids=drafts.ids.to(logits.device))
    found = []
    for index, count in enumerate(counts):
        if (kept := min(last, count) - first) > 0:
            y = forced.text[index, first + 1 : first + 1 + kept]
            found.append((index, score_contexts(logits[index, :kept], drafts.of(index, kept), y, sampling)))
    return found


def position_bytes(rows: int, vocabulary: int) -> int:
    """About how many bytes are alive for each position of a piece while a batch is scored."""
    return (BATCH_COPIES * rows + TEXT_COPIES) * vocabulary * 4


def _joined(step_times: Sequence[Contexts]) -> Contexts:
    if not step_times:
        return Contexts(torch.zeros(0, dtype=torch.long), *(torch.zeros(0) for _ in Contexts._fields[1:]))
    return Contexts(*(torch.cat(values) for values in zip(*step_times, strict=True)))


def _record(contexts: Contexts, drafter: Drafter, reference: Reference, sampling: SamplingParams, chunk: str) -> Replay:
    proper = drafter_kind(drafter.kind).proper
    sums = {name: float(value.double().sum()) for name, value in contexts._asdict().items()}
    return Replay(
        key=reference.key,
        prompt_sha=reference.prompt_sha,
        contexts=len(reference.ids) - 1,
        alpha=sums["alpha"],
        overlap=sums["overlap"] if proper else None,
        kl=sums["kl"] if proper else None,
        cross_entropy=sums["kl"] + sums["verifier_entropy"] if proper else None,
        verifier_entropy=sums["verifier_entropy"],
        draft_ids=tuple(contexts.draft.tolist()),
        beta=None if sampling.greedy else tuple(contexts.beta.tolist()),
        divergences=int((contexts.gap > 0).sum()) if sampling.greedy else None,
        largest_gap=max(contexts.gap.tolist(), default=0.0) if sampling.greedy else None,
        chunk=chunk,
    )
