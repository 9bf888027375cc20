"""Wall-clock: the same ids decoded with and without the drafter, by the same loop, on the same clock.

Both modes commit the reference ids, so that neither can wander off; the baseline runs a second time as its own control
(A/A). Knows timings; what they are worth is for `measure` to say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from fairspec_bench.engine.drafting import Drafter, References
from fairspec_bench.engine.loop import Decoded, Decoder, Request, as_request
from fairspec_bench.engine.model import Model
from fairspec_bench.records import Encoded, FairspecError, Mode, Rule, Timing, Trace
from fairspec_bench.score.reference import pair

MODES: tuple[Mode, ...] = get_args(Mode)


def race(
    verifier: Model,
    drafter: Drafter,
    encoded: Sequence[Encoded],
    traces: Sequence[Trace],
    *,
    rule: Rule,
    gamma: int,
    seed: int,
    rounds: int,
    shard: str,
    heats: Iterable[Sequence[str]] | None = None,
    enough: Callable[[Sequence[Timing]], bool] = lambda timed: False,
) -> Iterator[Timing]:
    """Decode every prompt in every mode, `rounds` times, one at a time; yields one timing each, `in_turn`.

    Raises `FairspecError` if a mode commits other ids than the reference.
    """
    pairs = pair(encoded, traces)
    racers = {
        mode: Decoder(verifier, chosen, rule=rule, gamma=gamma, batch_size=1, seed=seed)
        for mode, chosen in (("autoregressive", None), ("speculative", drafter))
    }
    racers["control"] = racers["autoregressive"]
    texts = {trace.key: trace.ids for _, trace in pairs}
    for racer in racers.values():
        racer.make_room([as_request(prompt) for prompt, _ in pairs], texts)

    def timed(turn: Turn) -> Timing:
        decoded = _timed(racers[turn.mode], as_request(turn.prompt), texts)
        if decoded.ids != turn.trace.ids:
            raise FairspecError(
                f"{decoded.key}: the {turn.mode} race left the reference ids. Make the references again."
            )
        return turn.timing(
            shard,
            prefill_ns=decoded.prefill_ns,
            drafter_prefill_ns=decoded.drafter_prefill_ns,
            decode_ns=decoded.decode_ns,
            pieces=decoded.pieces,
            blocks=decoded.blocks if turn.mode == "speculative" else (),
        )

    return in_turn(pairs, timed, seed=seed, rounds=rounds, heats=heats, enough=enough)


@dataclass(frozen=True)
class Turn:
    """One decode of a race: which prompt in which mode, and when."""

    prompt: Encoded
    trace: Trace
    mode: Mode
    round: int
    order: int

    def timing(self, shard: str, **measured: Any) -> Timing:
        """Its line, with what was measured."""
        return Timing(
            key=self.prompt.key,
            prompt_sha=self.prompt.sha,
            mode=self.mode,
            round=self.round,
            order=self.order,
            context=len(self.prompt.ids),
            tokens=len(self.trace.ids),
            shard=shard,
            **measured,
        )


def in_turn(
    pairs: Sequence[tuple[Encoded, Trace]],
    timed: Callable[[Turn], Timing],
    *,
    seed: int,
    rounds: int,
    heats: Iterable[Sequence[str]] | None = None,
    enough: Callable[[Sequence[Timing]], bool] = lambda timed: False,
) -> Iterator[Timing]:
    """Every turn of a race, by whatever engine `timed` asks.

    Prompts are raced heat by heat (keys of `heats`; by default all in one), each in all rounds before the next, and no
    more once those timed here are `enough`. The order of the modes is drawn anew for each prompt and round. A first,
    unrecorded turn of each mode warms up.
    """
    known = {prompt.key: (prompt, trace) for prompt, trace in pairs}
    if enough(()):
        return
    for prompt, trace in pairs[:1]:
        for mode in MODES:
            timed(Turn(prompt, trace, mode, 0, 0))
    done: list[Timing] = []
    for keys in [list(known)] if heats is None else heats:
        for number in range(rounds):
            for key in keys:
                modes = random.Random(f"{seed}/{key}/{number}").sample(MODES, len(MODES))
                for order, mode in enumerate(modes):
                    timing = timed(Turn(*known[key], mode, number, order))
                    done.append(timing)
                    yield timing
        if enough(done):
            return


def _timed(racer: Decoder, request: Request, texts: References) -> Decoded:
    """One decode. A block that is recorded as a whole tells no steps: theirs are then of a second decode."""
    if not racer.records:
        (decoded,) = racer.decode([request], texts, exact_times=True)
        return decoded
    (whole,), (steps,) = (list(racer.decode([request], texts, exact_times=exact)) for exact in (False, True))
    return replace(whole, pieces=steps.pieces)
