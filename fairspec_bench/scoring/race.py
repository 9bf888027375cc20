"""Wall-clock: the same ids decoded with and without the drafter, by the same loop, on the same clock.

Both modes commit the reference ids, so that neither diverges; the baseline runs a second time as its own control
(A/A).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.queue import ReferenceIds
from fairspec_bench.engine.speculative import Decoded, Decoder, Request, as_request
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.lines import Mode, Reference, Timing
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.schemas.stages import MODES, mode_order
from fairspec_bench.scoring.reference import pair


def race(
    verifier: Model,
    drafter: Drafter,
    encoded: Sequence[Encoded],
    references: Sequence[Reference],
    *,
    sampling: SamplingParams,
    gamma: int,
    seed: int,
    rounds: int,
    chunk: str,
    race_batches: Iterable[Sequence[str]] | None = None,
    enough: Callable[[Sequence[Timing]], bool] = lambda timed: False,
) -> Iterator[Timing]:
    """Decode every prompt in every mode, `rounds` times, one at a time; yields one timing each, `in_turn`.

    Raises `FairspecError` if a mode commits other ids than the reference.
    """
    pairs = pair(encoded, references)
    racers = {
        mode: Decoder(verifier, chosen, sampling=sampling, gamma=gamma, batch_size=1, seed=seed)
        for mode, chosen in (("autoregressive", None), ("speculative", drafter))
    }
    racers["control"] = racers["autoregressive"]
    texts = {reference.key: reference.ids for _, reference in pairs}
    for racer in racers.values():
        racer.reserve([as_request(prompt) for prompt, _ in pairs], texts)

    def timed(turn: Turn) -> Timing:
        racer = racers[turn.mode]
        decoded = _timed(racer, as_request(turn.prompt), texts)
        if decoded.ids != turn.reference.ids:
            raise FairspecError(
                f"{decoded.key}: the {turn.mode} race left the reference ids. Make the references again."
            )
        return turn.timing(
            chunk,
            prefill_ns=decoded.prefill_ns,
            drafter_prefill_ns=decoded.drafter_prefill_ns,
            decode_ns=decoded.decode_ns,
            step_times=decoded.step_times,
            blocks=decoded.blocks if turn.mode == "speculative" else (),
            separate_steps=racer.records,
        )

    return in_turn(pairs, timed, seed=seed, rounds=rounds, race_batches=race_batches, enough=enough)


@dataclass(frozen=True)
class Turn:
    """One decode of a race: which prompt in which mode, and when."""

    prompt: Encoded
    reference: Reference
    mode: Mode
    round: int
    order: int

    def timing(self, chunk: str, **measured: Any) -> Timing:
        """Its line, with what was measured."""
        return Timing(
            key=self.prompt.key,
            prompt_sha=self.prompt.sha,
            mode=self.mode,
            round=self.round,
            order=self.order,
            context=len(self.prompt.ids),
            tokens=len(self.reference.ids),
            chunk=chunk,
            **measured,
        )


def in_turn(
    pairs: Sequence[tuple[Encoded, Reference]],
    timed: Callable[[Turn], Timing],
    *,
    seed: int,
    rounds: int,
    race_batches: Iterable[Sequence[str]] | None = None,
    enough: Callable[[Sequence[Timing]], bool] = lambda timed: False,
) -> Iterator[Timing]:
    """Every turn of a race, by whatever engine `timed` asks.

    Prompts are raced batch by batch (keys of `race_batches`; by default all in one), each in all rounds before the
    next, and no more once those timed here are `enough`. The order of the modes is drawn anew for each prompt and
    round. A first, unrecorded turn of each mode warms up.
    """
    known = {prompt.key: (prompt, reference) for prompt, reference in pairs}
    if enough(()):
        return
    for prompt, reference in pairs[:1]:
        for mode in MODES:
            timed(Turn(prompt, reference, mode, 0, 0))
    done: list[Timing] = []
    for keys in [list(known)] if race_batches is None else race_batches:
        for number in range(rounds):
            for key in keys:
                for order, mode in enumerate(mode_order(seed, key, number)):
                    timing = timed(Turn(*known[key], mode, number, order))
                    done.append(timing)
                    yield timing
        if enough(done):
            return


def _timed(racer: Decoder, request: Request, texts: ReferenceIds) -> Decoded:
    """One decode. A block that is recorded as a whole shows no steps: their times are then of a second decode."""
    if not racer.records:
        (decoded,) = racer.decode([request], texts, exact_times=True)
        return decoded
    (whole,), (steps,) = (list(racer.decode([request], texts, exact_times=exact)) for exact in (False, True))
    return replace(whole, step_times=steps.step_times)
