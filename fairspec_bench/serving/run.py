"""A run on a serving engine: the texts, the race and the load of a run folder, by vLLM instead of our own loop.

Knows which records such an engine can give: texts, times and counts, no logits, so nothing is replayed. A timed request
decodes exactly as many tokens as the reference has, in both modes: times compare even where a text left it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fairspec_bench.codec import Codec
from fairspec_bench.engine.loop import ending
from fairspec_bench.engine.model import check_vocabulary
from fairspec_bench.measure.enough import heats, knows_enough
from fairspec_bench.measure.sweep import AUTOREGRESSIVE
from fairspec_bench.records import (
    Answer,
    Counters,
    Dropped,
    Encoded,
    FairspecError,
    Pieces,
    Record,
    Report,
    RunConfig,
    Throughput,
    Timing,
    Trace,
)
from fairspec_bench.score import prepare
from fairspec_bench.score.environment import describe
from fairspec_bench.score.folder import RunFolder, Unit, halves, race_keys, sweep_keys, writing
from fairspec_bench.score.prepare import Ask, ModelAsk, Questions
from fairspec_bench.score.race import Turn, in_turn
from fairspec_bench.score.reference import pair
from fairspec_bench.score.run import Progress, Watch, make_report
from fairspec_bench.score.sweep import drawn
from fairspec_bench.serving.card import Card, read_card
from fairspec_bench.serving.engine import Batch, Engine, StopCheck, Wanted, blocks_of, difference, left_at
from fairspec_bench.serving.offline import DRAFTING, SETTINGS, Offline, check_offline
from fairspec_bench.serving.server import Server

ADDRESS = "base_url"
WEIGHTLESS = ("ngram", "mtp")
METHODS = ("draft_model", "eagle", "eagle3", "medusa", "mlp_speculator", *WEIGHTLESS)
"""vLLM's ways to draft, by its own names; those without weights of their own are drafters by that name."""


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to begin; `start(speculates)` starts an engine."""

    config: RunConfig
    codec: Codec
    questions: Questions
    dropped: tuple[Dropped, ...]
    eos_ids: frozenset[int]
    start: Callable[[bool], Engine]


@dataclass(frozen=True)
class Drafting:
    """A drafter as vLLM is told of it; `model` is its card where it has weights."""

    speculation: Mapping[str, Any]
    model: Card | None

    @property
    def identity(self) -> str | None:
        return self.model.identity if self.model else None


def prepare_served(ask: Ask) -> Prepared:
    """Check everything before an engine starts, which takes half a minute. Raises `FairspecError` in one line."""
    ask = replace(ask, float32_check=False, backend=None)
    prepare.check(ask)
    _check(ask)
    if ADDRESS not in ask.verifier.options:
        check_offline(ask.device)
    suites = prepare.load_suites(ask)
    codec = Codec(ask.verifier.source, revision=ask.verifier.revision, chat_template=ask.chat_template)
    questions = prepare.encode(suites, codec)
    verifier = _card(ask.verifier)
    drafter = _drafting(ask.drafter, ask.gamma) if ask.drafter else None
    if drafter and drafter.model and drafter.speculation["method"] == "draft_model":
        check_vocabulary(verifier, drafter.model)
    dropped = prepare.drop(questions, [card for card in (verifier, drafter.model if drafter else None) if card])
    config = prepare.configure(_recorded(ask), questions, dropped, codec, verifier, drafter)
    return Prepared(config, codec, questions, dropped, verifier.eos_ids, partial(_start, ask, verifier, drafter))


def run_served(ask: Ask, out: Path, *, watch: Watch | None = None) -> Report:
    """Do what is left of a run in `out` on vLLM; → its report. Raises `FairspecError`; what was finished stays."""
    prepared = prepare_served(ask)
    config = prepared.config
    elsewhere = "a server" if ADDRESS in ask.verifier.options else None
    with writing(out, config, describe(config.device, elsewhere), prepared.dropped) as writer:
        work = _Work(
            prepared,
            {trace.key: trace for trace in writer.folder.lines("trace", Trace)},
            writer.folder.lines("timing", Timing),
        )
        try:
            for unit in writer.left():
                if watch:
                    watch(Progress(unit, len(writer.done), len(writer.folder.units)))
                writer.add(unit, work.lines(unit))
        finally:
            work.close()
    return make_report(RunFolder(out))


# --------------------------------------------------------------------------- what was asked


def _check(ask: Ask) -> None:
    """Refuse what a serving engine cannot do."""
    if not ask.rule.greedy:
        raise FairspecError("backend=vllm: greedy texts only, another engine draws others. Give --temperature 0.")
    if {*ask.gammas} - {ask.gamma}:
        raise FairspecError(
            "backend=vllm: one gamma a run, an engine is started with it. Give one, run again for another."
        )
    if ask.drafter and ask.drafter.kind not in ("model", "lookup"):
        raise FairspecError(
            f"{ask.drafter.name}: vLLM has no such drafter. Give a model, lookup, or another --backend."
        )
    served = [side for side in (ask.verifier, ask.drafter) if side and ADDRESS in side.options]
    if served and len(served) < 1 + (ask.drafter is not None):
        raise FairspecError(
            f"{ADDRESS}: two servers are compared, one without and one with the drafter. Give both: "
            f"--model_args {ADDRESS}=… --drafter_args {ADDRESS}=…."
        )
    for side, known in ((ask.verifier, SETTINGS), (ask.drafter, ("method", *DRAFTING))):
        unknown = sorted({*(side.options if side else ())} - {*known, ADDRESS, "max_ngram"})
        if unknown:
            raise FairspecError(f"{unknown[0]}: not an option of vLLM's here. Known: {ADDRESS}, {', '.join(known)}.")


def _drafting(asked: ModelAsk, gamma: int) -> Drafting:
    """A drafter in vLLM's words. Raises `FairspecError` for one it has none for."""
    options = {name: value for name, value in asked.options.items() if name not in (ADDRESS, "method", "max_ngram")}
    default = {"lookup": "ngram", "mtp": "mtp"}.get(asked.kind if asked.kind != "model" else asked.name, "draft_model")
    method = str(asked.options.get("method", default))
    if method not in METHODS:
        raise FairspecError(f"method={method}: unknown. Known: {', '.join(METHODS)}.")
    said = {"method": method, "num_speculative_tokens": gamma, **options}
    if method in WEIGHTLESS:
        longest = {"prompt_lookup_max": asked.options.get("max_ngram", 3), "prompt_lookup_min": 1}
        return Drafting(said if method == "mtp" else {**longest, **said}, None)
    card = _card(asked)
    return Drafting({**said, "model": str(card.folder)}, card)


def _card(asked: ModelAsk) -> Card:
    return read_card(asked.name, asked.source, asked.revision, weights=ADDRESS not in asked.options)


def _recorded(ask: Ask) -> Ask:
    """What the configuration keeps of the options: an address is nobody's business, that there was one is."""

    def kept(side: ModelAsk) -> ModelAsk:
        options = {name: value for name, value in side.options.items() if name != ADDRESS}
        return replace(side, options={**options, "served": True} if ADDRESS in side.options else options)

    return replace(ask, verifier=kept(ask.verifier), drafter=kept(ask.drafter) if ask.drafter else None)


def _start(ask: Ask, verifier: Card, drafter: Drafting | None, speculates: bool) -> Engine:
    side = ask.drafter if speculates else ask.verifier
    assert side is not None
    if (address := side.options.get(ADDRESS)) is not None:
        return Server(str(address), speculates=speculates)
    return Offline(
        str(verifier.folder),
        revision=None,
        dtype=ask.dtype,
        seed=ask.seed,
        settings=ask.verifier.options,
        speculation=drafter.speculation if drafter and speculates else None,
    )


# --------------------------------------------------------------------------- the work


class _Work:
    """Makes the lines of any unit. Both engines stand side by side, so that modes can be timed in turn."""

    def __init__(self, prepared: Prepared, traces: dict[str, Trace], timed: Sequence[Timing]):
        self.prepared, self.config, self.traces = prepared, prepared.config, traces
        self.raced, self.swept = race_keys(prepared.config), sweep_keys(prepared.config)
        self.timed: dict[str, list[Timing]] = {}
        for timing in timed:
            self._keep(timing)
        self.started: list[Engine] = []

    @cached_property
    def plain(self) -> Engine:
        return self._started(False)

    @cached_property
    def drafted(self) -> Engine:
        """Started after the other: vLLM counts what its latest engine does."""
        assert self.plain
        engine = self._started(True)
        seen = engine.counters()
        if seen is not None and len(seen.accepted_by_position) != self.config.gamma:
            drafts = len(seen.accepted_by_position)
            raise FairspecError(
                f"gamma={self.config.gamma}: this engine drafts {drafts} tokens. Give --gamma {drafts}."
            )
        return engine

    def close(self) -> None:
        for engine in self.started:
            engine.close()

    def lines(self, unit: Unit) -> Iterator[Record]:
        """The lines of a unit, in their order."""
        makers: Mapping[str, Callable[[Unit], Iterator[Record]]] = {
            "trace": self._traces,
            "answer": self._answers,
            "timing": self._timings,
            "sweep": self._throughputs,
        }
        return makers[unit.stage](unit)

    def _started(self, speculates: bool) -> Engine:
        engine = self.prepared.start(speculates)
        self.started.append(engine)
        return engine

    def _traces(self, unit: Unit) -> Iterator[Trace]:
        encoded = self._encoded(self.config.shards[unit.shard])
        checks = {prompt.key: self._stop(prompt) for prompt in encoded}
        wanted = [Wanted(prompt.key, prompt.ids, prompt.cap, checks[prompt.key]) for prompt in encoded]
        batch = self.plain.serve(wanted, self.config.batch_size)
        for prompt, one in zip(encoded, batch.served, strict=True):
            _, finish = self._end(one.ids, 0, prompt)
            assert finish is not None
            trace = Trace(key=prompt.key, prompt_sha=prompt.sha, ids=tuple(one.ids), finish=finish, shard=unit.shard)
            self.traces[trace.key] = trace
            yield trace

    def _end(self, ids: Sequence[int], before: int, prompt: Encoded) -> tuple[int, Any]:
        check = self.prepared.codec.stop_check(self.prepared.questions.prompts[prompt.key])
        return ending(ids, before, prompt.cap, check, self.prepared.eos_ids)

    def _stop(self, prompt: Encoded) -> StopCheck:
        """Our own rule of where an output ends, so that it ends there in every engine."""
        check = self.prepared.codec.stop_check(self.prepared.questions.prompts[prompt.key])
        seen = 0

        def stop(ids: Sequence[int]) -> int | None:
            nonlocal seen
            keep, finish = ending(ids, seen, prompt.cap, check, self.prepared.eos_ids)
            seen = len(ids)
            return None if finish is None else keep

        return stop

    def _answers(self, unit: Unit) -> Iterator[Answer]:
        for key in self.config.shards[unit.shard]:
            prompt = self.prepared.questions.prompts[key]
            text = self.prepared.codec.decode(self.traces[key].ids, prompt.stops)
            yield self.prepared.questions.suites[prompt.suite].grade(prompt, text)

    def _timings(self, unit: Unit) -> Iterator[Timing]:
        before = list(self.timed.get(unit.task, []))
        lines = in_turn(
            self._pairs(self.raced[unit.shard]),
            partial(self._time, unit.shard),
            seed=self.config.seed,
            rounds=self.config.race_rounds,
            heats=heats(self.config, self.raced[unit.shard]),
            enough=lambda timed: knows_enough(self.config, [*before, *timed]),
        )
        for timing in lines:
            self._keep(timing)
            yield timing

    def _time(self, shard: str, turn: Turn) -> Timing:
        batch, counted = self._counted(turn.mode == "speculative", [_whole(turn.prompt, turn.trace)], 1)
        (one,) = batch.served
        return turn.timing(
            shard,
            prefill_ns=one.first_ns - one.asked_ns,
            drafter_prefill_ns=0,
            decode_ns=one.last_ns - one.first_ns,
            pieces=Pieces(),
            blocks=blocks_of(one, counted) if counted else (),
            counters=counted,
            left_at=left_at(one.ids, turn.trace.ids),
        )

    def _throughputs(self, unit: Unit) -> Iterator[Throughput]:
        wanted = [[_whole(*both) for both in half] for half in halves(self._pairs(self.swept[unit.shard]))]
        kinds = [(batch, gamma) for batch in self.config.batch_sizes for gamma in (AUTOREGRESSIVE, self.config.gamma)]
        for batch, gamma in kinds:
            self._counted(gamma != AUTOREGRESSIVE, wanted[0][:batch], batch)
        everything = [(half, *kind) for half in range(len(wanted)) for kind in kinds]
        shard, seed, rounds = unit.shard, self.config.seed, self.config.race_rounds
        for number, order, (half, batch, gamma) in drawn(everything, seed=seed, shard=shard, rounds=rounds):
            done, counted = self._counted(gamma != AUTOREGRESSIVE, wanted[half], batch)
            yield Throughput(
                shard=shard,
                half=half,
                batch_size=batch,
                gamma=gamma,
                round=number,
                order=order,
                prompts=len(done.served),
                tokens=sum(len(one.ids) for one in done.served),
                prefill_ns=0,
                decode_ns=done.wall_ns,
                latency_ns=tuple(one.latency_ns for one in done.served),
                counters=counted,
            )

    def _counted(self, speculates: bool, wanted: Sequence[Wanted], at_once: int) -> tuple[Batch, Counters | None]:
        plain, drafted = self.plain, self.drafted
        engine = drafted if speculates else plain
        before = engine.counters()
        batch = engine.serve(wanted, at_once)
        return batch, difference(before, engine.counters())

    def _keep(self, timing: Timing) -> None:
        self.timed.setdefault(Unit(timing.shard, "timing").task, []).append(timing)

    def _encoded(self, keys: Iterable[str]) -> list[Encoded]:
        return [self.prepared.questions.encoded[key] for key in keys]

    def _pairs(self, keys: Sequence[str]) -> list[tuple[Encoded, Trace]]:
        return pair(self._encoded(keys), [self.traces[key] for key in keys])


def _whole(prompt: Encoded, trace: Trace) -> Wanted:
    """As many tokens as the reference has, whatever they are."""
    return Wanted(prompt.key, prompt.ids, len(trace.ids))
