"""Scores drafters on one verifier's continuations of one set of prompts: what all experiments are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.metrics.run_data import Lines
from fairspec_bench.metrics.trainings import Run
from fairspec_bench.schemas.lines import Reference, Replay
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.scoring.prepare import RunContext
from fairspec_bench.scoring.reference import continuations
from fairspec_bench.scoring.replay import replay


@dataclass(frozen=True)
class Scorer:
    """A prepared run whose drafter is exchanged. `cache` keeps the references, `None` makes them anew."""

    context: RunContext
    cache: Path | None = None

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """The verifier's continuation of every prompt, chunk by chunk as in a run."""
        chunks = self.context.config.chunks.items()
        return tuple(reference for chunk, keys in chunks for reference in self.continue_prompts(keys, chunk))

    def encoded(self, keys: Iterable[str]) -> list[Encoded]:
        """Prompts as ids."""
        return [self.context.questions.encoded[key] for key in keys]

    def continue_prompts(self, keys: Sequence[str], chunk: str = "") -> list[Reference]:
        """The verifier's continuations of these prompts, in their order."""
        context, config = self.context, self.context.config
        made = continuations(
            context.verifier,
            context.codec,
            [context.questions.prompts[key] for key in keys],
            self.encoded(keys),
            sampling=config.sampling,
            batch_size=config.batch_size,
            seed=config.seed,
            chunk=chunk,
            cache=self.cache,
        )
        return list(made)

    def replay(self, drafter: Drafter, references: Sequence[Reference] | None = None) -> tuple[Replay, ...]:
        """The drafter's replay of `references`, by default of all."""
        references, config = self.references if references is None else references, self.context.config
        made = replay(
            self.context.verifier,
            drafter,
            self.encoded(reference.key for reference in references),
            references,
            sampling=config.sampling,
            seed=config.seed,
            batch_size=config.batch_size,
            chunk="",
        )
        return tuple(made)

    def run(self, replays: Sequence[Replay]) -> Run:
        """A drafter's replays as the measures read a run."""
        return self.context.config, Lines(references=self.references, replays=tuple(replays))
