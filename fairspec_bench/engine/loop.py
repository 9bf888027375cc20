"""Speculative decoding (Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318) on a ragged batch.

Each block the drafter proposes γ tokens, the verifier scores them in one pass, the longest run that passes the
acceptance test stands, and the verifier adds one token of its own. Rows advance each at their own pace; a finished row
is refilled from the queue. Decoding without a drafter is the same loop with γ = 0. Knows token ids only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from fairspec_bench.engine.accept import Verdict, point_mass, verify_greedy, verify_sample
from fairspec_bench.engine.backends import BACKENDS, Body, Plain, Recordings, Steps
from fairspec_bench.engine.batch import Batch, Clock, Request, StopCheck, as_request
from fairspec_bench.engine.drafting import Draft, Drafter, Drafting, References
from fairspec_bench.engine.model import MAX_GAMMA, Model, Rows
from fairspec_bench.engine.noise import Purpose, exponential, uniform
from fairspec_bench.engine.rule import log_probs
from fairspec_bench.records import Block, FairspecError, Finish, Pieces, Rule

__all__ = ["Decoded", "Decoder", "Request", "StopCheck", "as_request", "decode", "ending"]


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
    """A `Decoder` used once: see there."""
    decoder = Decoder(verifier, drafter, rule=rule, gamma=gamma, batch_size=batch_size, seed=seed)
    yield from decoder.decode(requests, reference, exact_times=exact_times)


class Decoder:
    """A verifier, with a drafter or alone, ready to decode. Buffers, and what was recorded on them, are kept."""

    def __init__(self, verifier: Model, drafter: Drafter | None, *, rule: Rule, gamma: int, batch_size: int, seed: int):
        """`gamma` is ignored without a drafter. Raises `FairspecError` for one outside 1…64."""
        if drafter and not 1 <= gamma <= MAX_GAMMA:
            raise FairspecError(f"gamma {gamma}: must be a whole number from 1 to {MAX_GAMMA}.")
        self.verifier, self.drafter = verifier, drafter
        self.rule, self.gamma, self.batch_size, self.seed = rule, gamma if drafter else 0, batch_size, seed
        self.bench: Bench | None = None
        self.spent_ns = 0
        """Nanoseconds of all blocks of the last call, each once however many rows it had."""

    @property
    def records(self) -> bool:
        """Whether blocks are recorded and replayed as a whole, in which their steps cannot be told apart."""
        return BACKENDS[self.verifier.backend].records

    def make_room(self, requests: Collection[Request], reference: References | None = None) -> None:
        """Get buffers that any of these requests fits in, so that no later call for some of them has to."""
        self._bench(requests, reference)

    @torch.no_grad()
    def decode(
        self, requests: Iterable[Request], reference: References | None = None, *, exact_times: bool = False
    ) -> Iterator[Decoded]:
        """Continue every request, a batch at a time; yields them as they finish. Only speed depends on the batch.

        With `reference` ids (by key) these are committed instead of the verifier's choices, which are computed all the
        same; under a sampling rule the drafts follow the text and only the acceptance coins fall. `exact_times`: also
        time the steps within a block, where that takes other means than decoding does. One call at a time. Raises
        `FairspecError` for a prompt that does not fit or a missing reference.
        """
        queue = deque(requests)
        _check(self.verifier, self.drafter, queue, reference)
        if not queue:
            return
        bench = self._bench(queue, reference)
        bench.batch.clear()
        clock, self.spent_ns = Clock(self.verifier.device, exact_times), 0
        steps = bench.backend.steps(clock)
        live: dict[int, _Row] = {}
        while queue or live:
            for index in range(bench.size):
                while queue and index not in live:
                    row = _begin(queue.popleft(), index, bench, clock, reference)
                    if row.end is None:
                        live[index] = row
                    else:
                        yield row.finished(clock)
            if not live:
                return
            block = bench.block(max(row.pos for row in live.values()), exact_times)
            clock.begin()
            accepted, *columns = block(steps).T.tolist()
            for index, row in live.items():
                row.commit([column[index] for column in columns[: accepted[index] + 1]], self.verifier.eos_ids)
            clock.end()
            self.spent_ns = clock.totals["decode_ns"]
            for index, row in list(live.items()):
                if row.end is not None:
                    bench.batch.free(index)
                    yield live.pop(index).finished(clock)

    def _bench(self, queue: Collection[Request], reference: References | None) -> Bench:
        """Buffers that these requests fit in: those of the last call if they will do."""
        size = min(self.batch_size, len(queue))
        slots = max(len(request.ids) + _room(request, reference) for request in queue) + self.gamma + 1
        scripted, old = reference is not None, self.bench
        if not old or old.size != size or old.slots < slots or scripted != (old.batch.script is not None):
            self.bench = old = None  # the old ones go before the new ones come
            self.bench = old = Bench(self, size, BACKENDS[self.verifier.backend].slots(slots), scripted)
        return old


class Bench:
    """The buffers of one batch of `size` rows of `slots` slots, and the block that works on them."""

    def __init__(self, decoder: Decoder, size: int, slots: int, scripted: bool):
        verifier, drafter, rule = decoder.verifier, decoder.drafter, decoder.rule
        self.size, self.slots, self.gamma, self.backend = size, slots, decoder.gamma, BACKENDS[verifier.backend]
        device, vocab_size = verifier.device, verifier.vocab_size
        self.batch = Batch.empty(
            size, slots, device, rule=rule, seed=decoder.seed, vocab_size=vocab_size, scripted=scripted
        )
        self.rows = verifier.rows(size, slots)
        self.drafting: Drafting = drafter.begin(size, slots) if drafter else NoDraft()
        self.fixed = drafter is None or drafter.fixed
        self.draft: Draft | None = None
        self.recordings = Recordings(device)

    def block(self, top: int, exact_times: bool) -> Body:
        """The next block's work, when the furthest row's last token lies in slot `top`."""
        self.batch.view = min(self.slots, self.backend.slots(top + self.gamma + 1))
        return self._recorded(exact_times) if self.backend.records else self._speculate

    def _speculate(self, steps: Steps) -> Tensor:
        draft = self.drafting.propose(self.batch, self.gamma, steps)
        return steps.run("verify", judge, self.batch, self.rows, *draft)

    def _recorded(self, exact_times: bool) -> Body:
        """The block recorded: whole, or what comes after the drafts of a drafter that no device can record."""
        ready = partial(self.recordings.ready, view=self.batch.view, exact=exact_times, moved=self.batch.pos)
        if self.fixed:
            return ready(self._speculate)
        if self.draft is None:
            idle = Plain(Clock(self.batch.ids.device, exact=False))
            self.draft = self.drafting.propose(self.batch, self.gamma, idle)
        draft = self.draft
        judged = ready(lambda steps: steps.run("verify", judge, self.batch, self.rows, *draft))

        def block(steps: Steps) -> Tensor:
            for kept, made in zip(draft, self.drafting.propose(self.batch, self.gamma, steps), strict=True):
                if kept is not None and made is not None:
                    kept.copy_(made)
            return judged(steps)

        return block


def judge(batch: Batch, rows: Rows, slot: Tensor, ids: Tensor, log_q: Tensor | None) -> Tensor:
    """Verify a block's drafts, accept, commit. → [B, 1 + γ + 1]: how many drafts stand, then the tokens of the block.

    Of the tokens the first `accepted + 1` count. Nothing here waits for the device.
    """
    tokens = torch.cat([batch.last(), ids], dim=1)
    logits = rows.forward(tokens, batch.pos, slot, keep=tokens.shape[1])
    accepted, token = verify(batch, Draft(ids, log_q), logits)
    tokens = torch.cat([ids, token[:, None]], dim=1).scatter(1, accepted[:, None], token[:, None])
    batch.commit(accepted, tokens)
    return torch.cat([accepted[:, None], tokens], dim=1)


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

    def prefill(self, row: int, request: Request, seed: int, text: Sequence[int] | None) -> None:
        pass

    def propose(self, batch: Batch, gamma: int, steps: Steps) -> Draft:
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
        keep, self.end = ending(self.ids, before, self.room, self.request.stop, eos_ids)
        del self.ids[keep:]
        return keep - before

    def commit(self, tokens: Sequence[int], eos_ids: frozenset[int]) -> None:
        """Append a block's accepted drafts and last token, and count it: only what lies inside the output."""
        accepted = len(tokens) - 1
        emitted = self.extend(tokens, eos_ids)
        self.blocks.append(Block(accepted=min(accepted, emitted), emitted=emitted, raw_accepted=accepted))

    def finished(self, clock: Clock) -> Decoded:
        assert self.end is not None
        spent = clock.since(self.before)
        return Decoded(
            key=self.request.key,
            ids=tuple(self.ids),
            finish=self.end,
            blocks=tuple(self.blocks),
            prefill_ns=self.prefill_ns,
            drafter_prefill_ns=self.drafter_prefill_ns,
            decode_ns=spent.pop("decode_ns"),
            pieces=Pieces(**spent),
        )


def ending(
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


def _begin(request: Request, index: int, bench: Bench, clock: Clock, reference: References | None) -> _Row:
    """Give a row to a request: prefill both models and commit output position 1, a block of no drafts."""
    text = None if reference is None else reference[request.key]
    bench.batch.place(index, request, text)
    started = clock.now()
    logits = bench.rows.prefill(index, request.ids)
    batch = bench.batch.row(index)
    nothing = Draft(batch.ids[:, :0], None)
    accepted, token = verify(batch, nothing, logits)
    batch.commit(accepted, token[:, None])
    first = int(token)
    prefilled = clock.now()
    bench.drafting.prefill(index, request, batch.seed, text)
    row = _Row(request, _room(request, reference), prefilled - started, clock.now() - prefilled, dict(clock.totals))
    row.extend([first], bench.rows.model.eos_ids)
    if row.end is not None:
        bench.batch.free(index)
    return row


def _room(request: Request, reference: References | None) -> int:
    return request.cap if reference is None else len(reference[request.key])


def _check(verifier: Model, drafter: Drafter | None, requests: Iterable[Request], reference: References | None) -> None:
    for request in requests:
        if not 0 <= min(request.ids) <= max(request.ids) < verifier.vocab_size:
            raise FairspecError(f"{request.key}: a prompt id is not one of {verifier.name}. Use its own tokenizer.")
        if reference is not None and not reference.get(request.key):
            raise FairspecError(f"{request.key}: no reference ids to commit. Make the references first.")
        for model in filter(None, [verifier, drafter.model if drafter else None]):
            if reason := model.refusal(len(request.ids), _room(request, reference)):
                raise FairspecError(f"{request.key}: {reason}. Shorten the prompt, lower the cap, or drop it.")
