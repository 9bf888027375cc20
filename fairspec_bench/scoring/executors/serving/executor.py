"""An executor of runs on a serving engine: output, race and load by vLLM or another instead of our own loop.

Such an engine gives texts, times and counts, no logits, so nothing is replayed. A timed request decodes exactly as many
tokens as the reference has, in both modes: times compare even where an output left it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from fairspec_bench.engine.ending import ending
from fairspec_bench.metrics.race_stopping import race_decided
from fairspec_bench.metrics.sweep import AUTOREGRESSIVE
from fairspec_bench.models.codec import Codec
from fairspec_bench.models.model import check_vocabulary
from fairspec_bench.schemas.base import FairspecError, Record
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.lines import Answer, Counters, Dropped, Reference, StepTimes, Throughput, Timing
from fairspec_bench.schemas.options import ModelSpec, RunOptions, check
from fairspec_bench.schemas.prompts import Encoded, StopCheck
from fairspec_bench.schemas.stages import Unit, halves, race_batches, unit_keys
from fairspec_bench.scoring import prepare
from fairspec_bench.scoring.environment import describe
from fairspec_bench.scoring.executors.base import Dependencies, OnProgress, UnitResult, with_progress
from fairspec_bench.scoring.executors.serving.engine import (
    ADDRESS,
    Engine,
    EngineRequest,
    RequestBatch,
    ServingEngine,
    Speculation,
    blocks_of,
    difference,
    diverged_at,
    refuse_impossible,
    total,
)
from fairspec_bench.scoring.executors.serving.model_files import read_card
from fairspec_bench.scoring.prepare import RunPrompts
from fairspec_bench.scoring.race import Turn, in_turn
from fairspec_bench.scoring.reference import pair
from fairspec_bench.scoring.sweep import drawn, swept_configurations

Keys = Sequence[str]


@dataclass(frozen=True)
class ServingContext:
    """A run that is ready to begin; `start(speculates)` starts an engine, `elsewhere` on a server by its address.

    `draftable` are the ids that a drafter of a smaller vocabulary can propose, `None`: all.
    """

    config: RunConfig
    codec: Codec
    questions: RunPrompts
    dropped: tuple[Dropped, ...]
    eos_ids: frozenset[int]
    elsewhere: bool
    start: Callable[[bool], Engine]
    draftable: frozenset[int] | None = None


def prepare_served(kind: ServingEngine, ask: RunOptions) -> ServingContext:
    """Check everything before an engine starts, which takes half a minute. Raises `FairspecError` in one line."""
    ask = replace(ask, float32_check=False, backend=None)
    check(ask)
    _check(kind, ask)
    elsewhere = ADDRESS in ask.verifier.options
    suites = prepare.load_suites(ask)
    codec = prepare.load_codec(ask)
    questions = prepare.encode(suites, codec)
    weights = not elsewhere
    verifier = read_card(ask.verifier.name, ask.verifier.source, ask.verifier.revision, kind.name, weights=weights)
    drafter = kind.speculation(ask.drafter, ask.gamma) if ask.drafter else None
    shared = drafter.model if drafter and drafter.model and drafter.shares_vocabulary else None
    if shared and (renamed := check_vocabulary(verifier, shared)):
        raise FairspecError(
            f"{shared.name}: id {min(renamed)} has another name in {verifier.name}, and a serving engine may propose "
            "it. Leave --backend out: this engine does not."
        )
    dropped = prepare.drop(questions, [card for card in (verifier, drafter.model if drafter else None) if card])
    config = prepare.configure(_recorded(ask, drafter), questions, dropped, codec, verifier, drafter)
    start = partial(kind.start, ask, verifier, drafter)
    draftable = drafter.model.draft_vocabulary if drafter and drafter.model else None
    return ServingContext(config, codec, questions, dropped, verifier.eos_ids, elsewhere, start, draftable)


@contextmanager
def serving(kind: ServingEngine, ask: RunOptions) -> Iterator[ServingExecutor]:
    """An executor on an engine of this kind; its engines end with the context. Raises `FairspecError`."""
    executor = ServingExecutor(prepare_served(kind, ask))
    try:
        yield executor
    finally:
        executor.close()


# --------------------------------------------------------------------------- options


def _check(kind: ServingEngine, ask: RunOptions) -> None:
    """Refuse what no serving engine can do, then what this one cannot."""
    if not ask.sampling.greedy:
        raise FairspecError(f"backend={kind.name}: greedy only, another engine draws others. Give --temperature 0.")
    if {*ask.gammas} - {ask.gamma}:
        raise FairspecError(
            f"backend={kind.name}: one gamma a run, an engine is started with it. Give one, run again for another."
        )
    served = [side for side in (ask.verifier, ask.drafter) if side and ADDRESS in side.options]
    if served and len(served) < 1 + (ask.drafter is not None):
        raise FairspecError(
            f"{ADDRESS}: two servers are compared, one without and one with the drafter. Give both: "
            f"--model_args {ADDRESS}=… --drafter_args {ADDRESS}=…."
        )
    kind.check(ask)


def _recorded(ask: RunOptions, drafter: Speculation | None) -> RunOptions:
    """What the configuration keeps of the options: not the address of a server, only that there was one.

    Of the drafter also what was read from its checkpoint.
    """

    def kept(side: ModelSpec) -> ModelSpec:
        options = {name: value for name, value in side.options.items() if name != ADDRESS}
        return replace(side, options={**options, "served": True} if ADDRESS in side.options else options)

    drafts = kept(ask.drafter) if ask.drafter else None
    if drafts and drafter:
        drafts = replace(drafts, options={**drafts.options, **drafter.noted})
    return replace(ask, verifier=kept(ask.verifier), drafter=drafts)


# --------------------------------------------------------------------------- the work


class ServingExecutor:
    """Makes the lines of any unit: an `Executor`. Both engines stand side by side, so that modes are timed in turn."""

    def __init__(self, prepared: ServingContext):
        self.prepared, self.config, self.dropped = prepared, prepared.config, prepared.dropped
        self.notes = tuple(prepared.codec.notes.values())
        self.environments = (describe(self.config.device, "a server" if prepared.elsewhere else None),)
        self.keys = unit_keys(prepared.config)
        self.known, self.started = Dependencies(), list[Engine]()

    def make(self, left: Sequence[Unit], known: Dependencies, on_progress: OnProgress) -> Iterator[UnitResult]:
        """See `Executor.make`."""
        self.known = known
        for unit in left:
            yield UnitResult(unit, with_progress(unit, self._lines(unit), on_progress), self.environments[0])

    @cached_property
    def plain(self) -> Engine:
        return self._started(False)

    @cached_property
    def drafted(self) -> Engine:
        engine = self._started(True)
        drafts = len(self._speculation(engine).accepted_by_position)
        if drafts not in (0, self.config.gamma):  # some count no position before it was accepted
            raise FairspecError(
                f"gamma={self.config.gamma}: this engine drafts {drafts} tokens. Give --gamma {drafts}."
            )
        return engine

    def close(self) -> None:
        for engine in self.started:
            engine.close()

    def _lines(self, unit: Unit) -> Iterator[Record]:
        makers: Mapping[str, Callable[[Unit, Keys], Iterator[Record]]] = {
            "reference": self._references,
            "answer": self._answers,
            "race": self._timings,
            "sweep": self._throughputs,
        }
        for line in makers[unit.stage](unit, self.keys[unit]):
            self.known.add([line])
            yield line

    def _started(self, speculates: bool) -> Engine:
        engine = self.prepared.start(speculates)
        self.started.append(engine)
        return engine

    def _references(self, unit: Unit, keys: Keys) -> Iterator[Reference]:
        encoded = self._encoded(keys)
        checks = {prompt.key: self._stop(prompt) for prompt in encoded}
        wanted = [
            EngineRequest(prompt.key, prompt.ids, prompt.max_new_tokens, checks[prompt.key]) for prompt in encoded
        ]
        batch = self.plain.serve(wanted, self.config.batch_size)
        for prompt, one in zip(encoded, batch.served, strict=True):
            _, finish = self._end(one.ids, 0, prompt)
            assert finish is not None
            yield Reference(key=prompt.key, prompt_sha=prompt.sha, ids=tuple(one.ids), finish=finish, chunk=unit.chunk)

    def _end(self, ids: Sequence[int], before: int, prompt: Encoded) -> tuple[int, Any]:
        check = self.prepared.codec.stop_check(self.prepared.questions.prompts[prompt.key])
        return ending(ids, before, prompt.max_new_tokens, check, self.prepared.eos_ids)

    def _stop(self, prompt: Encoded) -> StopCheck:
        """Where an output ends, by our own criterion, so that it ends there in every engine."""
        check = self.prepared.codec.stop_check(self.prepared.questions.prompts[prompt.key])
        seen = 0

        def stop(ids: Sequence[int]) -> int | None:
            nonlocal seen
            keep, finish = ending(ids, seen, prompt.max_new_tokens, check, self.prepared.eos_ids)
            seen = len(ids)
            return None if finish is None else keep

        return stop

    def _answers(self, unit: Unit, keys: Keys) -> Iterator[Answer]:
        for key in keys:
            prompt = self.prepared.questions.prompts[key]
            text = self.prepared.codec.decode(self.known.references[key].ids, prompt.stops)
            yield self.prepared.questions.suites[prompt.suite].grade(prompt, text)

    def _timings(self, unit: Unit, keys: Keys) -> Iterator[Timing]:
        before = list(self.known.timed.get(unit.task, []))
        return in_turn(
            self._pairs(keys),
            partial(self._time, unit.chunk),
            seed=self.config.seed,
            rounds=self.config.race_rounds,
            race_batches=race_batches(self.config, keys),
            enough=lambda timed: race_decided(self.config, [*before, *timed]),
        )

    def _time(self, chunk: str, turn: Turn) -> Timing:
        batch, counted = self._counted(turn.mode == "speculative", [_whole(turn.prompt, turn.reference)], 1)
        (one,) = batch.served
        return turn.timing(
            chunk,
            prefill_ns=one.first_ns - one.asked_ns,
            drafter_prefill_ns=0,
            decode_ns=one.last_ns - one.first_ns,
            step_times=StepTimes(),
            blocks=blocks_of(one, counted) if counted else (),
            counters=counted,
            diverged_at=diverged_at(one.ids, turn.reference.ids),
            outside_vocabulary=self._outside(turn.reference) if turn.mode == "speculative" else None,
        )

    def _outside(self, reference: Reference) -> int | None:
        """The tokens after the first that the drafter cannot propose."""
        draftable = self.prepared.draftable
        return None if draftable is None else sum(token not in draftable for token in reference.ids[1:])

    def _throughputs(self, unit: Unit, keys: Keys) -> Iterator[Throughput]:
        wanted = [[_whole(*both) for both in half] for half in halves(self._pairs(keys))]
        kinds = swept_configurations(self.config.batch_sizes, self.config.gammas)
        for batch, gamma in kinds:
            self._counted(gamma != AUTOREGRESSIVE, wanted[0][:batch], batch)
        rounds = self.config.race_rounds
        for lot in drawn(len(wanted), kinds, seed=self.config.seed, chunk=unit.chunk, rounds=rounds):
            done, counted = self._counted(lot.gamma != AUTOREGRESSIVE, wanted[lot.half], lot.batch_size)
            yield lot.throughput(
                prompts=len(done.served),
                tokens=sum(len(one.ids) for one in done.served),
                prefill_ns=0,
                decode_ns=done.wall_ns,
                latency_ns=tuple(one.latency_ns for one in done.served),
                counters=counted,
                request_counters=done.counters or (),
            )

    def _counted(
        self, speculates: bool, wanted: Sequence[EngineRequest], at_once: int
    ) -> tuple[RequestBatch, Counters | None]:
        plain, drafted = self.plain, self.drafted  # in this order: vLLM counts what its latest engine does
        if not speculates:
            return plain.serve(wanted, at_once), None
        before = self._speculation(drafted)
        batch = drafted.serve(wanted, at_once)
        each = batch.counters
        counted = total(each) if each else difference(before, self._speculation(drafted))
        refuse_impossible(counted, sum(len(one.ids) for one in batch.served))
        return batch, counted

    def _speculation(self, engine: Engine) -> Counters:
        """What the engine with the drafter counted since it started. Raises `FairspecError` if it does not count."""
        if (found := engine.counters()) is None:
            raise FairspecError(
                f"backend={self.config.backend}: the engine with the drafter reports no counts of speculation. "
                "Start it with its drafter and with statistics, then run again."
            )
        return found

    def _encoded(self, keys: Iterable[str]) -> list[Encoded]:
        return [self.prepared.questions.encoded[key] for key in keys]

    def _pairs(self, keys: Sequence[str]) -> list[tuple[Encoded, Reference]]:
        return pair(self._encoded(keys), [self.known.references[key] for key in keys])


def _whole(prompt: Encoded, reference: Reference) -> EngineRequest:
    """As many tokens as the reference has, whatever they are."""
    return EngineRequest(prompt.key, prompt.ids, len(reference.ids))
