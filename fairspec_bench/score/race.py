"""Wall-clock: the same ids decoded with and without the drafter, by the same loop, on the same clock.

Both modes commit the reference ids, so that neither can wander off; the baseline runs a second time as its own control
(A/A). Knows timings; what they are worth is for `measure` to say.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import get_args

from fairspec_bench.engine.drafting import Drafter
from fairspec_bench.engine.loop import Decoded, Request, as_request, decode
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
) -> Iterator[Timing]:
    """Decode every prompt in every mode, `rounds` times, one at a time; yields one timing each.

    The order of the modes is drawn anew for each prompt and round. A first, unrecorded run of each mode warms up.
    Raises `FairspecError` if a mode commits other ids than the reference.
    """
    pairs = pair(encoded, traces)

    def run(mode: Mode, request: Request, trace: Trace) -> Decoded:
        chosen = drafter if mode == "speculative" else None
        decoding = decode(
            verifier,
            chosen,
            [request],
            rule=rule,
            gamma=gamma,
            batch_size=1,
            seed=seed,
            reference={trace.key: trace.ids},
            exact_times=True,
        )
        (decoded,) = decoding
        if decoded.ids != trace.ids:
            raise FairspecError(f"{trace.key}: the {mode} race left the reference ids. Make the references again.")
        return decoded

    for prompt, trace in pairs[:1]:
        for mode in MODES:
            run(mode, as_request(prompt), trace)
    for number in range(rounds):
        for prompt, trace in pairs:
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
