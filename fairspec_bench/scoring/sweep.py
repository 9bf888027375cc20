"""Throughput by batch size and γ: the same ids decoded in every configuration, by the same loop, on the same clock.

As in a race the reference ids are committed, and the baseline is the loop without a drafter, at every batch size.
Here clocks are read; what the readings show is computed in `metrics.sweep`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.speculative import Decoded, Decoder, Request, as_request
from fairspec_bench.metrics.sweep import AUTOREGRESSIVE
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.lines import Reference, Throughput
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.schemas.stages import halves
from fairspec_bench.scoring.reference import pair


def sweep(
    verifier: Model,
    drafter: Drafter,
    encoded: Sequence[Encoded],
    references: Sequence[Reference],
    *,
    sampling: SamplingParams,
    gammas: Sequence[int],
    batch_sizes: Sequence[int],
    seed: int,
    rounds: int,
    chunk: str,
) -> Iterator[Throughput]:
    """Decode each half of the prompts with every batch size and γ, and without drafts, in every round; one line each.

    The order is drawn anew for each round. A first, unrecorded batch of each configuration warms up. Raises
    `FairspecError` if one commits other ids than the reference.
    """
    texts = {reference.key: reference.ids for _, reference in pair(encoded, references)}
    requests = [tuple(map(as_request, half)) for half in halves(encoded)]
    configurations = swept_configurations(batch_sizes, gammas)

    def run(decoder: Decoder, half: Sequence[Request]) -> list[Decoded]:
        done = list(decoder.decode(half, texts))
        for one in done:
            if one.ids != texts[one.key]:
                raise FairspecError(f"{one.key}: the sweep left the reference ids. Make the references again.")
        return done

    def made(batch: int, gamma: int) -> Decoder:
        """Warmed up, with buffers that fit either half."""
        chosen = None if gamma == AUTOREGRESSIVE else drafter
        decoder = Decoder(verifier, chosen, sampling=sampling, gamma=gamma, batch_size=batch, seed=seed)
        decoder.reserve([request for half in requests for request in half], texts)
        run(decoder, requests[0][:batch])
        return decoder

    decoders = {each: made(*each) for each in configurations}
    for lot in drawn(len(requests), configurations, seed=seed, chunk=chunk, rounds=rounds):
        decoder = decoders[lot.batch_size, lot.gamma]
        done = run(decoder, requests[lot.half])
        yield lot.throughput(
            prompts=len(done),
            tokens=sum(len(one.ids) for one in done),
            prefill_ns=sum(one.prefill_ns + one.drafter_prefill_ns for one in done),
            decode_ns=decoder.spent_ns,
        )


@dataclass(frozen=True)
class Lot:
    """One timing of a sweep: which half of the prompts, in which configuration, and when."""

    chunk: str
    half: int
    batch_size: int
    gamma: int
    round: int
    order: int

    def throughput(self, **measured: Any) -> Throughput:
        """Its line, with what was measured."""
        return Throughput(**vars(self), **measured)


def swept_configurations(batch_sizes: Sequence[int], gammas: Sequence[int]) -> list[tuple[int, int]]:
    """Every batch size with every γ and without drafts."""
    return [(batch, gamma) for batch in batch_sizes for gamma in (AUTOREGRESSIVE, *gammas)]


def drawn(
    halves: int, configurations: Sequence[tuple[int, int]], *, seed: int, chunk: str, rounds: int
) -> Iterator[Lot]:
    """Each half in each configuration in every round, in an order drawn anew."""
    everything = [(half, *each) for half in range(halves) for each in configurations]
    for number in range(rounds):
        order = random.Random(f"{seed}/{chunk}/{number}").sample(everything, len(everything))
        for place, each in enumerate(order):
            yield Lot(chunk, *each, round=number, order=place)
