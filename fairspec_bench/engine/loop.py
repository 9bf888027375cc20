"""Speculative decoding (Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318) on a ragged batch.

Each block the drafter proposes γ tokens, the verifier scores them in one pass, the longest run that passes the
acceptance test stands, and the verifier adds one token of its own. Rows advance each at their own pace; a finished row
is refilled from the queue. Decoding without a drafter is the same loop with γ = 0. Knows token ids only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fairspec_bench.engine.accept import Verdict, point_mass, verify_greedy, verify_sample
from fairspec_bench.engine.batch import Batch, Clock, Request, StopCheck, as_request
from fairspec_bench.engine.drafting import Draft, Drafter, Drafting, References
from fairspec_bench.engine.model import MAX_GAMMA, Model, Rows
from fairspec_bench.engine.noise import Purpose, exponential, uniform
from fairspec_bench.engine.rule import log_probs
from fairspec_bench.records import Block, FairspecError, Finish, Pieces, Rule

__all__ = ["Decoded", "Request", "StopCheck", "as_request", "decode"]


@dataclass(frozen=True)
class Decoded:
    """A finished request: output ids run through EOS, the token that completes a stop string, or the cap.

    Times are nanoseconds; `decode_ns` and `pieces` leave out all prefills. Rows of one batch share the time of its
    steps: they mean one request only at batch size 1.
    """

    key: str
    ids: tuple[int, ...]
    finish: Finish
    blocks: tuple[Block, ...]
    prefill_ns: int
    drafter_prefill_ns: int
    decode_ns: int
    pieces: Pieces


def decode(
    verifier: Model,
    drafter: Drafter | None,
    requests: Iterable[Request],
    *,
    rule: Rule,
    gamma: int,
    batch_size: int,
    seed: int,
    reference: References | None = None,
    exact_times: bool = False,
) -> Iterator[Decoded]:
    """Continue every request, `batch_size` at a time; yields them as they finish. Only speed depends on the batch.

    With `reference` ids (by key) these are committed instead of the verifier's choices, which are computed all the
    same; under a sampling rule the drafts follow the text and only the acceptance coins fall. `exact_times` waits for a
    CUDA device at each step. `gamma` is ignored without a drafter. Raises `FairspecError` for γ outside 1…64, a prompt
    that does not fit, or a missing reference.
    """
    queue = deque(requests)
    gamma = gamma if drafter else 0
    _check(verifier, drafter, queue, gamma, reference)
    if not queue:
        return
    batch_size = min(batch_size, len(queue))
    max_len = max(len(request.ids) + _room(request, reference) for request in queue) + gamma + 1
    batch = _empty_batch(verifier, batch_size, max_len, rule, seed, scripted=reference is not None)
    rows = verifier.rows(batch_size, max_len)
    drafting = drafter.begin(batch_size, max_len, reference) if drafter else NoDraft()
    clock = Clock(verifier.device, exact_times)
    live: dict[int, _Row] = {}
    while queue or live:
        for index in range(batch_size):
            while queue and index not in live:
                row = _begin(queue.popleft(), index, batch, rows, drafting, clock, reference)
                if row.end is None:
                    live[index] = row
                else:
                    yield row.finished(clock)
        if not live:
            return
        batch.pos = torch.tensor([live[r].pos if r in live else 1 for r in range(batch_size)], device=verifier.device)
        batch.top = max(row.pos for row in live.values())
        clock.skip()
        verdict, tokens = speculate(batch, gamma, rows, drafting, clock)
        accepted, *columns = torch.cat([verdict.accepted[:, None], tokens], dim=1).T.tolist()
        for index, row in list(live.items()):
            row.commit([column[index] for column in columns[: accepted[index] + 1]], verifier.eos_ids)
        clock.lap("rest")
        for index, row in list(live.items()):
            if row.end is not None:
                yield live.pop(index).finished(clock)


def speculate(batch: Batch, gamma: int, rows: Rows, drafting: Drafting, clock: Clock) -> tuple[Verdict, Tensor]:
    """One block: draft, verify, accept. → the verdict, and tokens [B, γ+1] of which the first `accepted + 1` count.

    All of them are written to `batch.ids` after `pos`; the next block overwrites what does not count.
    """
    draft = drafting.propose(batch, gamma, clock)
    tokens = torch.cat([batch.ids.gather(1, batch.pos[:, None]), draft.ids], dim=1)
    logits = rows.step(tokens, batch.pos, view=batch.top + gamma + 1, keep=gamma + 1)
    clock.lap("verify")
    verdict = verify(batch, draft, logits)
    tokens = torch.cat([draft.ids, verdict.token[:, None]], dim=1)
    tokens.scatter_(1, verdict.accepted[:, None], verdict.token[:, None])
    batch.ids.scatter_(1, batch.after(gamma + 1), tokens)
    return verdict, tokens


def verify(batch: Batch, draft: Draft, logits: Tensor) -> Verdict:
    """The acceptance test under the batch's rule: logits [B, γ+1, V] after the last token and after each draft."""
    slots = batch.after(logits.shape[1])
    if batch.rule.greedy:
        return verify_greedy(draft.ids, batch.scripted(slots, logits.argmax(-1)))
    log_q = point_mass(draft.ids, batch.vocab_size) if draft.log_q is None else draft.log_q
    coins = uniform(batch.keys(slots[:, :-1], Purpose.ACCEPT))

    def noise(accepted: Tensor) -> Tensor:
        key = batch.keys(slots.gather(1, accepted[:, None]), Purpose.TARGET)
        return exponential(key, batch.vocab_size).squeeze(1)

    text = None if batch.script is None else batch.script.gather(1, slots[:, :-1])
    verdict = verify_sample(draft.ids, log_q, log_probs(logits, batch.rule), coins, noise, text)
    last = slots.gather(1, verdict.accepted[:, None])
    return Verdict(verdict.accepted, batch.scripted(last, verdict.token[:, None]).squeeze(1))


class NoDraft:
    """The autoregressive baseline: a drafter that proposes nothing."""

    def prefill(self, row: int, request: Request, seed: int) -> None:
        pass

    def propose(self, batch: Batch, gamma: int, clock: Clock) -> Draft:
        return Draft(batch.ids[:, :0], None)


# --------------------------------------------------------------------------- the host's side of a row


@dataclass
class _Row:
    """A request in progress: `end` is set once its output has ended."""

    request: Request
    room: int
    prefill_ns: int
    drafter_prefill_ns: int
    before: dict[str, int]
    ids: list[int] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    end: Finish | None = None

    @property
    def pos(self) -> int:
        """Slot of the last committed token."""
        return len(self.request.ids) + len(self.ids) - 1

    def extend(self, tokens: Sequence[int], eos_ids: frozenset[int]) -> int:
        """Append tokens up to the end of the output; → how many."""
        before = len(self.ids)
        self.ids += tokens
        keep, self.end = _ending(self.ids, before, self.room, self.request.stop, eos_ids)
        del self.ids[keep:]
        return keep - before

    def commit(self, tokens: Sequence[int], eos_ids: frozenset[int]) -> None:
        """Append a block's accepted drafts and last token, and count it: only what lies inside the output."""
        accepted = len(tokens) - 1
        emitted = self.extend(tokens, eos_ids)
        self.blocks.append(Block(accepted=min(accepted, emitted), emitted=emitted, raw_accepted=accepted))

    def finished(self, clock: Clock) -> Decoded:
        assert self.end is not None
        pieces = clock.since(self.before)
        return Decoded(
            key=self.request.key,
            ids=tuple(self.ids),
            finish=self.end,
            blocks=tuple(self.blocks),
            prefill_ns=self.prefill_ns,
            drafter_prefill_ns=self.drafter_prefill_ns,
            decode_ns=pieces.draft_first_ns + pieces.draft_next_ns + pieces.verify_ns + pieces.rest_ns,
            pieces=pieces,
        )


def _ending(
    ids: Sequence[int], new: int, room: int, stop: StopCheck | None, eos_ids: frozenset[int]
) -> tuple[int, Finish | None]:
    """How many ids belong to the output and why it ends there; ids before `new` are known not to end it."""
    keep = min(len(ids), room)
    finish: Finish | None = "cap" if len(ids) >= room else None
    for index in range(new, keep):
        if ids[index] in eos_ids:
            keep, finish = index + 1, "eos"
            break
    if stop is not None:
        stopped = stop(ids[:keep])
        if stopped is not None and (stopped < keep or finish != "eos"):
            keep, finish = stopped, "stop"
    return keep, finish


def _begin(
    request: Request,
    index: int,
    batch: Batch,
    rows: Rows,
    drafting: Drafting,
    clock: Clock,
    reference: References | None,
) -> _Row:
    """Give a row to a request: prefill both models and commit output position 1, a block of no drafts."""
    length = len(request.ids)
    batch.ids[index, :length] = torch.tensor(request.ids)
    batch.pos[index], batch.start[index], batch.stream[index] = length - 1, length, request.stream
    if batch.script is not None and reference is not None:
        text = torch.tensor(reference[request.key])
        batch.script[index] = -1
        batch.script[index, length : length + len(text)] = text
    started = clock.now()
    logits = rows.prefill(index, request.ids)
    one = batch.row(index)
    token = verify(one, NoDraft().propose(one, 0, clock), logits).token
    batch.ids[index, length] = token
    first = int(token)
    prefilled = clock.now()
    drafting.prefill(index, request, batch.seed)
    row = _Row(request, _room(request, reference), prefilled - started, clock.now() - prefilled, dict(clock.totals))
    row.extend([first], rows.model.eos_ids)
    return row


def _room(request: Request, reference: References | None) -> int:
    return request.cap if reference is None else len(reference[request.key])


def _empty_batch(verifier: Model, size: int, max_len: int, rule: Rule, seed: int, *, scripted: bool) -> Batch:
    ids = torch.zeros(size, max_len, dtype=torch.long, device=verifier.device)
    script = torch.full_like(ids, -1) if scripted else None
    one = torch.ones(size, dtype=torch.long, device=verifier.device)
    return Batch(ids, one, one.clone(), one.clone(), script, 1, rule, seed, verifier.vocab_size)


def _check(
    verifier: Model, drafter: Drafter | None, requests: Iterable[Request], gamma: int, reference: References | None
) -> None:
    if drafter and not 1 <= gamma <= MAX_GAMMA:
        raise FairspecError(f"gamma {gamma}: must be a whole number from 1 to {MAX_GAMMA}.")
    for request in requests:
        if not 0 <= min(request.ids) <= max(request.ids) < verifier.vocab_size:
            raise FairspecError(f"{request.key}: a prompt id is not one of {verifier.name}. Use its own tokenizer.")
        if reference is not None and not reference.get(request.key):
            raise FairspecError(f"{request.key}: no reference ids to commit. Make the references first.")
        for model in filter(None, [verifier, drafter.model if drafter else None]):
            if reason := model.refusal(len(request.ids), _room(request, reference)):
                raise FairspecError(f"{request.key}: {reason}. Shorten the prompt, lower the cap, or drop it.")
