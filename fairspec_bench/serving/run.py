"""An executor of runs whose engine is a server's: texts, race and load by vLLM instead of our own loop.

Knows which records such an engine can give: texts, times and counts, no logits, so nothing is replayed. A timed request
decodes exactly as many tokens as the reference has, in both modes: times compare even where a text left it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
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
from fairspec_bench.score.folder import Unit, halves, race_keys, sweep_keys
from fairspec_bench.score.prepare import Ask, ModelAsk, Questions
from fairspec_bench.score.race import Turn, in_turn
from fairspec_bench.score.reference import pair
from fairspec_bench.score.run import Known, Made, Seen, Watch, conduct, told
from fairspec_bench.score.sweep import drawn, swept_configurations
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
    """A run that is ready to begin; `start(speculates)` starts an engine, `elsewhere` on a server by its address."""

    config: RunConfig
    codec: Codec
    questions: Questions
    dropped: tuple[Dropped, ...]
    eos_ids: frozenset[int]
    elsewhere: bool
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
    elsewhere = ADDRESS in ask.verifier.options
    if not elsewhere:
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
    start = partial(_start, ask, verifier, drafter)
    return Prepared(config, codec, questions, dropped, verifier.eos_ids, elsewhere, start)


def run_served(ask: Ask, out: Path, *, watch: Watch | None = None) -> Report:
    """Do what is left of a run in `out` on vLLM; → its report. Raises `FairspecError`; what was finished stays."""
    with closing(Serving(prepare_served(ask))) as executor:
        return conduct(executor, out, watch=watch)


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


class Serving:
    """Makes the lines of any unit: an `Executor`. Both engines stand side by side, so that modes are timed in turn."""

    note: str | None = None

    def __init__(self, prepared: Prepared):
        self.prepared, self.config, self.dropped = prepared, prepared.config, prepared.dropped
        self.environments = (describe(self.config.device, "a server" if prepared.elsewhere else None),)
        self.raced, self.swept = race_keys(prepared.config), sweep_keys(prepared.config)
        self.known, self.started = Known(), list[Engine]()

    def make(self, left: Sequence[Unit], known: Known, seen: Seen) -> Iterator[Made]:
        """See `Executor.make`."""
        self.known = known
        for unit in left:
            yield Made(unit, told(unit, self._lines(unit), seen), self.environments[0])

    @cached_property
    def plain(self) -> Engine:
        return self._started(False)

    @cached_property
    def drafted(self) -> Engine:
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

    def _lines(self, unit: Unit) -> Iterator[Record]:
        makers: Mapping[str, Callable[[Unit], Iterator[Record]]] = {
            "trace": self._traces,
            "answer": self._answers,
            "timing": self._timings,
            "sweep": self._throughputs,
        }
        for line in makers[unit.stage](unit):
            self.known.add([line])
            yield line

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
            yield Trace(key=prompt.key, prompt_sha=prompt.sha, ids=tuple(one.ids), finish=finish, shard=unit.shard)

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
            text = self.prepared.codec.decode(self.known.traces[key].ids, prompt.stops)
            yield self.prepared.questions.suites[prompt.suite].grade(prompt, text)

    def _timings(self, unit: Unit) -> Iterator[Timing]:
        before = list(self.known.timed.get(unit.task, []))
        return in_turn(
            self._pairs(self.raced[unit.shard]),
            partial(self._time, unit.shard),
            seed=self.config.seed,
            rounds=self.config.race_rounds,
            heats=heats(self.config, self.raced[unit.shard]),
            enough=lambda timed: knows_enough(self.config, [*before, *timed]),
        )

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
        kinds = swept_configurations(self.config.batch_sizes, self.config.gammas)
        for batch, gamma in kinds:
            self._counted(gamma != AUTOREGRESSIVE, wanted[0][:batch], batch)
        rounds = self.config.race_rounds
        for lot in drawn(len(wanted), kinds, seed=self.config.seed, shard=unit.shard, rounds=rounds):
            done, counted = self._counted(lot.gamma != AUTOREGRESSIVE, wanted[lot.half], lot.batch_size)
            yield lot.throughput(
                prompts=len(done.served),
                tokens=sum(len(one.ids) for one in done.served),
                prefill_ns=0,
                decode_ns=done.wall_ns,
                latency_ns=tuple(one.latency_ns for one in done.served),
                counters=counted,
            )

    def _counted(self, speculates: bool, wanted: Sequence[Wanted], at_once: int) -> tuple[Batch, Counters | None]:
        plain, drafted = self.plain, self.drafted  # in this order: vLLM counts what its latest engine does
        engine = drafted if speculates else plain
        before = engine.counters()
        batch = engine.serve(wanted, at_once)
        return batch, difference(before, engine.counters())

    def _encoded(self, keys: Iterable[str]) -> list[Encoded]:
        return [self.prepared.questions.encoded[key] for key in keys]

    def _pairs(self, keys: Sequence[str]) -> list[tuple[Encoded, Trace]]:
        return pair(self._encoded(keys), [self.known.traces[key] for key in keys])


def _whole(prompt: Encoded, trace: Trace) -> Wanted:
    """As many tokens as the reference has, whatever they are."""
    return Wanted(prompt.key, prompt.ids, len(trace.ids))
