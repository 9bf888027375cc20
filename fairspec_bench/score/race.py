"""Wall-clock: the same ids decoded with and without the drafter, by the same loop, on the same clock.

Both modes commit the reference ids, so that neither can wander off; the baseline runs a second time as its own control
(A/A). Knows timings; what they are worth is for `measure` to say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import get_args

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
    """Decode every prompt in every mode, `rounds` times, one at a time; yields one timing each.

    Prompts are raced heat by heat (keys of `heats`; by default all in one), each in all rounds before the next, and no
    more once those timed here are `enough`. The order of the modes is drawn anew for each prompt and round. A first,
    unrecorded run of each mode warms up. Raises `FairspecError` if a mode commits other ids than the reference.
    """
    pairs = pair(encoded, traces)
    known = {prompt.key: (prompt, trace) for prompt, trace in pairs}
    racers = {
        mode: Decoder(verifier, chosen, rule=rule, gamma=gamma, batch_size=1, seed=seed)
        for mode, chosen in (("autoregressive", None), ("speculative", drafter))
    }
    racers["control"] = racers["autoregressive"]
    texts = {trace.key: trace.ids for _, trace in pairs}
    for racer in racers.values():
        racer.make_room([as_request(prompt) for prompt, _ in pairs], texts)

    def run(mode: Mode, request: Request, trace: Trace) -> Decoded:
        decoded = _timed(racers[mode], request, texts)
        if decoded.ids != trace.ids:
            raise FairspecError(f"{trace.key}: the {mode} race left the reference ids. Make the references again.")
        return decoded

    def heat(keys: Sequence[str]) -> Iterator[Timing]:
        for number in range(rounds):
            for prompt, trace in (known[key] for key in keys):
                modes = random.Random(f"{seed}/{prompt.key}/{number}").sample(MODES, len(MODES))
                for order, mode in enumerate(modes):
                    decoded = run(mode, as_request(prompt), trace)
                    yield Timing(
                        key=prompt.key,
                        prompt_sha=prompt.sha,
                        mode=mode,
                        round=number,
                        order=order,
                        context=len(prompt.ids),
                        tokens=len(decoded.ids),
                        prefill_ns=decoded.prefill_ns,
                        drafter_prefill_ns=decoded.drafter_prefill_ns,
                        decode_ns=decoded.decode_ns,
                        pieces=decoded.pieces,
                        blocks=decoded.blocks if mode == "speculative" else (),
                        shard=shard,
                    )

    if enough(()):
        return
    for prompt, trace in pairs[:1]:
        for mode in MODES:
            run(mode, as_request(prompt), trace)
    timed: list[Timing] = []
    for keys in [list(known)] if heats is None else heats:
        for timing in heat(keys):
            timed.append(timing)
            yield timing
        if enough(timed):
            return


def _timed(racer: Decoder, request: Request, texts: References) -> Decoded:
    """One decode. A block that is recorded as a whole tells no steps: theirs are then of a second decode."""
    if not racer.records:
        (decoded,) = racer.decode([request], texts, exact_times=True)
        return decoded
    (whole,), (steps,) = (list(racer.decode([request], texts, exact_times=exact)) for exact in (False, True))
    return replace(whole, pieces=steps.pieces)
