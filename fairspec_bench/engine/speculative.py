"""Speculative decoding (Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318) on a ragged batch.

Start with `speculative_decode`: all else in this package is called from it. p is the distribution of the verifier (the
paper's target model), q that of the drafter (its approximation model).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from fairspec_bench.engine.acceptance import AcceptResult, accept_greedy, accept_sampled, point_mass
from fairspec_bench.engine.backends.base import BlockFn, StepRunner
from fairspec_bench.engine.backends.registry import step_runner
from fairspec_bench.engine.batch import VERIFIER, Batch, Request, as_request
from fairspec_bench.engine.clock import Clock
from fairspec_bench.engine.drafters.base import Draft, Drafter, DraftSession
from fairspec_bench.engine.queue import Decoded, ReferenceIds, RequestQueue, RunningRequest
from fairspec_bench.engine.rng import Purpose, exponential, uniform
from fairspec_bench.engine.sampling import log_probs
from fairspec_bench.models.model import Model, Rows
from fairspec_bench.schemas.backends import BACKENDS
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import MAX_GAMMA, SamplingParams

__all__ = ["Decoded", "Decoder", "Request", "as_request", "decode", "speculative_decode"]


@torch.no_grad()
def speculative_decode(queue: RequestQueue, state: DecodeState, gamma: int) -> Iterator[Decoded]:
    """Decode every request of a queue by speculative sampling (Leviathan et al. 2023, Algorithm 1).

    Rows of the batch advance each at its own pace, and a row whose output has ended goes to the next request. Without a
    drafter γ is 0: nothing is drafted, and each block is one token of the verifier's. Where reference ids are given,
    they are committed in place of the tokens drawn, and acceptance is as if they had been drawn.

    Args:
        queue: the requests.
        state: the buffers of a batch, its verifier and drafter, and the backend that runs a block.
        gamma: γ, how many tokens the drafter proposes in a block.

    Yields:
        Requests as they finish.
    """
    batch, verifier, drafter = state.batch, state.verifier, state.drafter

    def block(steps: StepRunner) -> Tensor:
        # Draft: x_1, …, x_γ one after the other, each drawn from the drafter's q given those before it.
        x, log_q = drafter.propose(batch, gamma, steps)
        committed = steps.run(verifier_step, batch, verifier, x, log_q)
        steps.lap("verify")
        return committed

    def verifier_step(batch: Batch, rows: Rows, slot: Tensor, x: Tensor, log_q: Tensor | None) -> Tensor:
        # Verify: one pass of the verifier over the drafts gives p at the position of each, and at the one after them.
        logits = verify(batch, rows, slot, x)

        # Accept: x_1, …, x_n, as long as u_i < p_i(x_i) / q_i(x_i), u_i uniform on [0, 1). The verifier's token y after
        # them is drawn from p_γ+1 if all were accepted, else from max(0, p − q) at the first rejected one, normalised.
        n, y = accept(batch, x, log_q, logits)

        # Commit: x_1, …, x_n and y become the row's next n + 1 tokens; later drafts are overwritten by what follows.
        return commit(batch, x, n, y)

    while queue.waiting or queue.running:
        yield from queue.admit(state.prefill)
        if queue.running:
            with state.steps.clock.block():
                queue.commit(state.run(block, queue.last_slot).tolist())
            yield from queue.finished()


# --------------------------------------------------------------------------- the steps of a block


def verify(batch: Batch, rows: Rows, slot: Tensor, x: Tensor) -> Tensor:
    """The verifier's logits after the last committed token and after each draft: x [B, γ] → [B, γ+1, V]."""
    tokens = torch.cat([batch.last(), x], dim=1)
    return rows.forward(tokens, batch.pos, slot, keep=tokens.shape[1])


def accept(batch: Batch, x: Tensor, log_q: Tensor | None, logits: Tensor) -> AcceptResult:
    """How many drafts are accepted, and the verifier's token after them.

    Args:
        batch: the rows; their random streams, sampling parameters and reference ids.
        x: the drafts, int64 [B, γ].
        log_q: float32 [B, γ, V] under the sampling parameters; `None`: the drafts are deterministic.
        logits: the verifier's, [B, γ+1, V].
    """
    slots = batch.after(logits.shape[1])
    if batch.sampling.greedy:
        return accept_greedy(x, batch.forced(slots, batch.choose(VERIFIER, slots, logits)))
    log_q = point_mass(x, batch.vocab_size) if log_q is None else log_q
    coins = uniform(batch.keys(slots[:, :-1], Purpose.ACCEPT))

    def noise(accepted: Tensor) -> Tensor:
        key = batch.keys(slots.gather(1, accepted[:, None]), Purpose.TARGET)
        return exponential(key, batch.vocab_size).squeeze(1)

    reference = None if batch.reference is None else batch.reference.gather(1, slots[:, :-1])
    batch.note(VERIFIER, slots, logits.amax(-1))
    n, y = accept_sampled(x, log_q, log_probs(logits, batch.sampling), coins, noise, reference)
    last = slots.gather(1, n[:, None])
    return AcceptResult(n, batch.forced(last, y[:, None]).squeeze(1))


def commit(batch: Batch, x: Tensor, n: Tensor, y: Tensor) -> Tensor:
    """Append x_1, …, x_n, y to each row.

    Returns:
        [B, 2 + γ + 1]: n, how far the scores behind the tokens are finite (`Batch.finite`), then the tokens, of which
        the first n + 1 count.
    """
    tokens = torch.cat([x, y[:, None]], dim=1).scatter(1, n[:, None], y[:, None])
    finite = batch.finite(tokens.shape[1])
    batch.append(tokens, n + 1)
    return torch.cat([n[:, None], finite, tokens], dim=1)


# --------------------------------------------------------------------------- what decoding works on


class NoDrafter:
    """Decoding without a drafter: proposes nothing."""

    def prefill(self, row: int, request: Request, seed: int, reference: Sequence[int] | None) -> None:
        pass

    def propose(self, batch: Batch, gamma: int, steps: StepRunner) -> Draft:
        return Draft(batch.ids[:, :0], None)


class DecodeState:
    """The buffers of a batch of `size` rows of `slots` slots, and what runs blocks on them."""

    def __init__(self, decoder: Decoder, size: int, slots: int, forced: bool):
        model, drafter = decoder.verifier, decoder.drafter
        self.size, self.slots, self.gamma, self.backend = size, slots, decoder.gamma, decoder.backend
        self.batch = Batch.empty(
            size,
            slots,
            model.device,
            sampling=decoder.sampling,
            seed=decoder.seed,
            vocab_size=model.vocab_size,
            forced=forced,
        )
        self.verifier = model.rows(size, slots)
        self.small = drafter.model if drafter else None
        self.models = ((drafter.model or drafter).name if drafter else "", model.name)
        self.drafter: DraftSession = drafter.begin(size, slots) if drafter else NoDrafter()
        self.steps = self.backend(Clock(model.device))
        self.reference: ReferenceIds | None = None

    def prefill(self, row: int, request: Request) -> RunningRequest:
        """Give a row to a request: prefill both models and commit output position 1, a block of no drafts.

        The time of a prefix that prompts share counts for each of them.
        """
        shared_ns, drafter_shared_ns = (_shared_ns(model, request) for model in (self.verifier.model, self.small))
        clock, reference = self.steps.clock, None if self.reference is None else self.reference[request.key]
        self.batch.place(row, request, reference)
        begun = clock.now()
        logits = self.verifier.prefill(row, request.ids, request.shared)
        batch = self.batch.row(row)
        nothing = batch.ids[:, :0]
        _, finite, token = commit(batch, nothing, *accept(batch, nothing, None, logits)).flatten().tolist()
        prefilled = clock.now()
        self.drafter.prefill(row, request, batch.seed, reference)
        running = RunningRequest(
            request,
            request.max_new_tokens if reference is None else len(reference),
            prefill_ns=prefilled - begun + shared_ns,
            drafter_prefill_ns=clock.now() - prefilled + drafter_shared_ns,
            before=dict(clock.totals),
            models=self.models,
        )
        running.extend([token], finite, self.verifier.model.eos_ids)
        return running

    def run(self, block: BlockFn, last_slot: int) -> Tensor:
        """Run a block on all rows, the furthest of which has its last token in slot `last_slot`."""
        self.batch.view = min(self.slots, self.backend.slots(last_slot + self.gamma + 1))
        return self.steps.block(block, self.batch)


def _shared_ns(model: Model | None, request: Request) -> int:
    """Nanoseconds that the prefix of a request took this model, which has it prefilled from here on."""
    prefix = model.prefix(request.ids, request.shared) if model else None
    return prefix.ns if prefix else 0


def decode(
    verifier: Model,
    drafter: Drafter | None,
    requests: Iterable[Request],
    *,
    sampling: SamplingParams,
    gamma: int,
    batch_size: int,
    seed: int,
    reference: ReferenceIds | None = None,
    exact_times: bool = False,
) -> Iterator[Decoded]:
    """Decode once: see `Decoder`."""
    decoder = Decoder(verifier, drafter, sampling=sampling, gamma=gamma, batch_size=batch_size, seed=seed)
    yield from decoder.decode(requests, reference, exact_times=exact_times)


class Decoder:
    """A verifier, with a drafter or alone, ready to decode. Buffers, and what was recorded on them, are kept."""

    def __init__(
        self,
        verifier: Model,
        drafter: Drafter | None,
        *,
        sampling: SamplingParams,
        gamma: int,
        batch_size: int,
        seed: int,
    ):
        """`gamma` is ignored without a drafter. Raises `FairspecError` for one outside 1…64."""
        if drafter and not 1 <= gamma <= MAX_GAMMA:
            raise FairspecError(f"gamma {gamma}: must be a whole number from 1 to {MAX_GAMMA}.")
        self.verifier, self.drafter = verifier, drafter
        self.sampling, self.gamma, self.batch_size, self.seed = sampling, gamma if drafter else 0, batch_size, seed
        self.backend = step_runner(verifier.backend)
        self.state: DecodeState | None = None
        self.spent_ns = 0
        """Nanoseconds of all blocks of the last call, each once however many rows it had."""

    @property
    def records(self) -> bool:
        """Whether blocks are recorded and replayed as a whole, so that their steps are not timed one by one."""
        return BACKENDS[self.verifier.backend].records

    def reserve(self, requests: Collection[Request], reference: ReferenceIds | None = None) -> None:
        """Make buffers that any of these requests fits in, so that no later call for some of them has to."""
        self._fitting(requests, reference)

    def decode(
        self, requests: Iterable[Request], reference: ReferenceIds | None = None, *, exact_times: bool = False
    ) -> Iterator[Decoded]:
        """Continue every request, a batch at a time; what comes out does not depend on the batch. One call at a time.

        Args:
            requests: the prompts.
            reference: ids to commit by key, in place of the verifier's choices, which are computed all the same.
            exact_times: time the steps within a block, where that takes other means than decoding does.

        Yields:
            Requests as they finish.

        Raises:
            FairspecError: for a prompt that does not fit, or without reference ids; where logits that an output
                depends on are not finite.
        """
        requests = list(requests)
        _check(self.verifier, self.drafter, requests, reference)
        self.spent_ns = 0
        if not requests:
            return
        state = self._fitting(requests, reference)
        state.reference = reference
        state.steps.clock = clock = Clock(self.verifier.device, exact_times)
        queue = RequestQueue(requests, state.batch, clock, self.verifier.eos_ids)
        for done in speculative_decode(queue, state, self.gamma):
            self.spent_ns = clock.totals["decode_ns"]
            yield done

    def _fitting(self, requests: Collection[Request], reference: ReferenceIds | None) -> DecodeState:
        """Buffers that these requests fit in: those of the last call if they will do."""
        size = min(self.batch_size, len(requests))
        longest = max(len(request.ids) + _output(request, reference) for request in requests)
        slots, forced, state = longest + self.gamma + 1, reference is not None, self.state
        if state is None or state.size != size or state.slots < slots or forced != (state.batch.reference is not None):
            self.state = state = None  # the old buffers go before the new ones come
            self.state = state = DecodeState(self, size, self.backend.slots(slots), forced)
        return state


def _output(request: Request, reference: ReferenceIds | None) -> int:
    """How many tokens its output may have."""
    return request.max_new_tokens if reference is None else len(reference[request.key])


def _check(
    verifier: Model, drafter: Drafter | None, requests: Iterable[Request], reference: ReferenceIds | None
) -> None:
    for request in requests:
        wrong = [each for each in request.ids if not 0 <= each < verifier.vocab_size]
        if wrong:
            raise FairspecError(
                f"{request.key}: prompt id {wrong[0]} is not one of the {verifier.vocab_size} of {verifier.name}. Use "
                "its own tokenizer; was its tokenizer extended and the model not resized?"
            )
        if reference is not None and not reference.get(request.key):
            raise FairspecError(f"{request.key}: no reference ids to commit. Make the references first.")
        for model in filter(None, [verifier, drafter.model if drafter else None]):
            if reason := model.refusal(len(request.ids), _output(request, reference)):
                raise FairspecError(f"{request.key}: {reason}. Shorten the prompt, lower max_new_tokens, or drop it.")
