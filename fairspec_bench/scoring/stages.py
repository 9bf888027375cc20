"""How the lines of each stage are made, and how long that takes: `MAKERS` has an entry per `schemas.stages.STAGES`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairspec_bench.metrics.race_stopping import race_decided
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.base import FairspecError, Record
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.lines import Answer, DtypeDivergence, Reference, Replay, Throughput, Timing
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.schemas.stages import MODES, Unit, decoded_together, race_batches, unit_keys
from fairspec_bench.scoring.dtype_divergence import divergences as dtype_divergences
from fairspec_bench.scoring.executors.base import Dependencies
from fairspec_bench.scoring.likelihood import target_nats
from fairspec_bench.scoring.prepare import RunContext
from fairspec_bench.scoring.race import race
from fairspec_bench.scoring.reference import NONE_GIVEN, Given, continuations
from fairspec_bench.scoring.replay import replay
from fairspec_bench.scoring.sweep import sweep
from fairspec_bench.scoring.verifier_states import VerifierStates

Keys = Sequence[str]


class UnitRunner:
    """Makes the lines of any unit from what was made before, to which it adds them."""

    def __init__(
        self,
        prepared: RunContext,
        cache: Path | None,
        given: Mapping[str, Given] = NONE_GIVEN,
        states: Path | None = None,
    ):
        self.states = VerifierStates(states) if states else None
        self.prepared, self.config = prepared, prepared.config
        self.cache, self.given, self.known = cache, given, Dependencies()
        self.keys, self.together = unit_keys(prepared.config), decoded_together(prepared.config)
        self.held: dict[int, tuple[tuple[str, ...], dict[str, Reference]]] = {}
        self.float32: Model | None = None
        small = prepared.drafter.model if prepared.drafter else None
        self.small = replace(small, backend=prepared.verifier.backend) if small else None

    def use(self, known: Dependencies) -> None:
        """From what lines are made from now on. Raises `FairspecError` for a reference of another prompt."""
        for key, reference in known.references.items():
            if reference.prompt_sha != self.prepared.questions.encoded[key].sha:
                raise FairspecError(f"{key}: its reference is of another prompt. Choose another --out.")
        self.known = known

    def lines(self, unit: Unit) -> Iterator[Record]:
        """The lines of a unit, in their order."""
        if unit.stage != "dtype_divergence":
            self.float32 = None
        for line in MAKERS[unit.stage].lines(self, unit, self.keys[unit]):
            self.known.add([line])
            yield line

    def references(self, unit: Unit, keys: Keys) -> Iterator[Reference]:
        return self._decoded(self.prepared.verifier, unit.chunk, keys, self.given)

    def answers(self, unit: Unit, keys: Keys) -> Iterator[Answer]:
        return self._graded(keys, (self.known.references[key] for key in keys), self.prepared.verifier)

    def replays(self, unit: Unit, keys: Keys) -> Iterator[Replay]:
        assert self.prepared.drafter is not None
        encoded = self._encoded(keys)
        return replay(
            self.prepared.verifier,
            self.prepared.drafter,
            encoded,
            [self.known.references[prompt.key] for prompt in encoded],
            sampling=self.config.sampling,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            chunk=unit.chunk,
            states=self.states,
        )

    def drafter_answers(self, unit: Unit, keys: Keys) -> Iterator[Answer]:
        """What the drafter answers by itself, where it can be right or has a reference; nothing elsewhere."""
        assert self.small is not None
        suite = self.prepared.questions.suites[unit.task.suite]
        if not suite.has_answers and not self._targets(keys):
            return iter(())
        return self._graded(keys, self._decoded(self.small, unit.chunk, keys), self.small)

    def divergences(self, unit: Unit, keys: Keys) -> Iterator[DtypeDivergence]:
        """The float32 verifier is loaded once for all chunks and freed before anything is timed."""
        self.float32 = self.float32 or self.prepared.float32_verifier()
        encoded = self._encoded(keys)
        return dtype_divergences(
            self.float32,
            encoded,
            [self.known.references[prompt.key] for prompt in encoded],
            batch_size=self.config.batch_size,
            chunk=unit.chunk,
        )

    def timings(self, unit: Unit, keys: Keys) -> Iterator[Timing]:
        """The race of this chunk, unless the task's is over; what was timed of it before counts."""
        assert self.prepared.drafter is not None
        encoded = self._encoded(keys)
        before = list(self.known.timed.get(unit.task, []))
        return race(
            self.prepared.verifier,
            self.prepared.drafter,
            encoded,
            [self.known.references[prompt.key] for prompt in encoded],
            sampling=self.config.sampling,
            gamma=self.config.gamma,
            seed=self.config.seed,
            rounds=self.config.race_rounds,
            chunk=unit.chunk,
            race_batches=race_batches(self.config, keys),
            enough=lambda timed: race_decided(self.config, [*before, *timed]),
        )

    def throughputs(self, unit: Unit, keys: Keys) -> Iterator[Throughput]:
        assert self.prepared.drafter is not None
        encoded = self._encoded(keys)
        return sweep(
            self.prepared.verifier,
            self.prepared.drafter,
            encoded,
            [self.known.references[prompt.key] for prompt in encoded],
            sampling=self.config.sampling,
            gammas=self.config.gammas,
            batch_sizes=self.config.batch_sizes,
            seed=self.config.seed,
            rounds=self.config.race_rounds,
            chunk=unit.chunk,
        )

    def _encoded(self, keys: Iterable[str]) -> list[Encoded]:
        return [self.prepared.questions.encoded[key] for key in keys]

    def _decoded(
        self, model: Model, chunk: str, keys: Keys, given: Mapping[str, Given] = NONE_GIVEN
    ) -> Iterator[Reference]:
        """The model's own output. A chunk that shares its batch with others is made with them, which are held."""
        together = self.together[chunk]
        if len(together) == 1:
            yield from self._continued(model, chunk, keys, given)
            return
        made, held = self.held.get(id(model), ((), {}))
        if made != together:
            all_keys = [key for each in together for key in self.config.chunks[each]]
            held = {reference.key: reference for reference in self._continued(model, chunk, all_keys, given)}
            self.held[id(model)] = together, held
        for key in keys:
            yield held[key].model_copy(update={"chunk": chunk})

    def _continued(self, model: Model, chunk: str, keys: Keys, given: Mapping[str, Given]) -> Iterator[Reference]:
        """The continuations of these prompts; what stops them is part of their address in the cache."""
        return continuations(
            model,
            self.prepared.codec,
            [self.prepared.questions.prompts[key] for key in keys],
            self._encoded(keys),
            sampling=self.config.sampling,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            chunk=chunk,
            cache=self.cache,
            given=given,
        )

    def _graded(self, keys: Keys, references: Iterable[Reference], model: Model) -> Iterator[Answer]:
        """The answers of `model` to these keys, with what it makes of their reference texts."""
        likelihoods = self._likelihoods(keys, model)
        for reference in references:
            prompt = self.prepared.questions.prompts[reference.key]
            text = self.prepared.codec.decode(reference.ids, prompt.stops)
            answer = self.prepared.questions.suites[prompt.suite].grade(prompt, text)
            yield answer.model_copy(update=likelihoods.get(reference.key, {}))

    def _likelihoods(self, keys: Keys, model: Model) -> dict[str, dict[str, float | int]]:
        """The fields of an answer about its target text, by key; only where it fits the model."""
        questions, texts = self.prepared.questions, self._targets(keys)
        pairs = [
            (questions.encoded[key].ids, self.prepared.codec.continuation(questions.prompts[key], text))
            for key, text in texts.items()
        ]
        found = target_nats(model, pairs, batch_size=self.config.batch_size, keys=list(texts))
        return {
            key: {"target_nats": nats, "target_bytes": len(text.encode())}
            for (key, text), nats in zip(texts.items(), found, strict=True)
            if nats is not None
        }

    def _targets(self, keys: Keys) -> dict[str, str]:
        prompts = [self.prepared.questions.prompts[key] for key in keys]
        suites = self.prepared.questions.suites
        return {prompt.key: text for prompt in prompts if (text := suites[prompt.suite].target_text(prompt))}


# --------------------------------------------------------------------------- how long a unit takes


@dataclass(frozen=True)
class Pace:
    """Nanoseconds of one model: per prompt token, per step of a full batch, per step of one row."""

    prefill: float
    step: float
    step_alone: float

    def step_of(self, size: int, batch_size: int) -> float:
        """Of a step of `size` rows: as measured up to the run's own batch, beyond it in proportion."""
        return self.step_alone if size == 1 else self.step * max(1.0, size / batch_size)


@dataclass(frozen=True)
class Workload:
    """A unit to be made: the tokens of its prompts and, at most, of their outputs; and the models' paces.

    `prefix_tokens` are of the shared prefixes that no unit of the stage before it had; `together` is how many prompts
    are decoded in one queue with these; `float32` is the verifier's pace in float32, where the run has it; `kept`:
    references and the verifier's states are there, of another drafter.
    """

    config: RunConfig
    prompts: Sequence[Encoded]
    prefix_tokens: int
    together: int
    verifier: Pace
    drafter: Pace | None
    float32: Pace | None
    kept: bool = False

    @property
    def ids(self) -> int:
        """Prompt tokens without shared ones."""
        return sum(len(prompt.ids) - prompt.shared for prompt in self.prompts)

    @property
    def outputs(self) -> int:
        return sum(prompt.max_new_tokens for prompt in self.prompts)

    def decoding(self, pace: Pace) -> float:
        """Nanoseconds of all outputs in the run's batches."""
        batches = math.ceil(self.together / self.config.batch_size) * len(self.prompts) / self.together
        longest = max((prompt.max_new_tokens for prompt in self.prompts), default=0)
        return (self.prefix_tokens + self.ids) * pace.prefill + batches * longest * pace.step

    def reading(self, *paces: Pace | None) -> float:
        """Nanoseconds of one pass of these models over prompts and outputs."""
        return (self.prefix_tokens + self.ids + self.outputs) * sum(pace.prefill for pace in paces if pace)

    def racing(self) -> float:
        alone = self.ids * self.verifier.prefill + self.outputs * self.verifier.step_alone
        return self.prefix_tokens * self.verifier.prefill + self.config.race_rounds * len(MODES) * alone

    def sweeping(self) -> float:
        config, pace = self.config, self.verifier
        return self.prefix_tokens * pace.prefill + (
            config.race_rounds
            * (1 + len(config.gammas))
            * sum(
                self.ids * pace.prefill + self.outputs / size * pace.step_of(size, config.batch_size)
                for size in config.batch_sizes
            )
        )


@dataclass(frozen=True)
class Maker:
    """How a stage is made: its lines of a unit, of these prompts; and roughly how many nanoseconds that takes."""

    lines: Callable[[UnitRunner, Unit, Keys], Iterator[Record]]
    ns: Callable[[Workload], float]


MAKERS: Mapping[str, Maker] = {
    "reference": Maker(UnitRunner.references, lambda load: 0.0 if load.kept else load.decoding(load.verifier)),
    "answer": Maker(UnitRunner.answers, lambda load: 0.0),
    "replay": Maker(UnitRunner.replays, lambda load: load.reading(None if load.kept else load.verifier, load.drafter)),
    "drafter_answer": Maker(UnitRunner.drafter_answers, lambda load: load.decoding(load.drafter or load.verifier)),
    "dtype_divergence": Maker(UnitRunner.divergences, lambda load: load.reading(load.float32)),
    "race": Maker(UnitRunner.timings, Workload.racing),
    "sweep": Maker(UnitRunner.throughputs, Workload.sweeping),
}
