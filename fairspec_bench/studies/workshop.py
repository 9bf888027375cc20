"""Many mendings of one verifier's drafters, each scored by replay: what the comparing studies are made of.

Knows how a job becomes lines on disk, and that a job whose lines are there is done. Weights are not kept: a job's
fields decide them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from fairspec_bench.engine import ngram
from fairspec_bench.engine.drafters import ModelDrafter
from fairspec_bench.engine.drafting import Drafter
from fairspec_bench.engine.model import Model
from fairspec_bench.engine.ngram import NgramDrafter
from fairspec_bench.measure.lines import Lines
from fairspec_bench.mitigation import methods
from fairspec_bench.mitigation.corpus import Corpus
from fairspec_bench.mitigation.fitted import fit_temperatures
from fairspec_bench.mitigation.methods import Fitted
from fairspec_bench.mitigation.passes import Teacher, Trainee
from fairspec_bench.mitigation.trainer import Evaluation, Recipe, figures_of, train
from fairspec_bench.records import (
    Record,
    Replay,
    RunConfig,
    Trace,
    lines_text,
    read_lines,
    read_record,
    write_atomic,
    write_record,
)
from fairspec_bench.score import prepare
from fairspec_bench.score.prepare import ModelAsk, Prepared
from fairspec_bench.score.reference import continuations
from fairspec_bench.score.replay import replay
from fairspec_bench.studies import mend
from fairspec_bench.suite.training import refuse_suite_prompts, training_prompts
from fairspec_bench.testbed.corpus import zipf

REPLAYS, OUTCOME = "replays.jsonl", "outcome.json"


class Job(Record):
    """One drafter to be had and scored. `method` None: the drafter as it is. `drafter` is a folder's path."""

    drafter: str
    method: str | None = None
    recipe: Recipe = Recipe()
    prompts: tuple[str, ...] = ("embedded_math",)
    left_out: tuple[str, ...] = ()


class Outcome(Record):
    """A finished job, and its held-out figures before and after (`None`: not trained)."""

    job: Job
    before: Evaluation | None
    after: Evaluation | None
    best_step: int | None
    history: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class Workshop:
    """A verifier, the suites that drafters are scored on, and where everything is kept. Picklable."""

    verifier: ModelAsk
    suites: tuple[str, ...]
    out: Path
    cache: Path
    limit: int
    training_limit: int = 80
    languages: tuple[str, ...] | None = None
    batch_size: int = 48
    gamma: int = 4

    def do(self, name: str, job: Job) -> Outcome:
        """The job's outcome, made now if it is not there. Its lines are `run(name)`'s."""
        folder = self.out / "jobs" / name
        if (folder / OUTCOME).exists():
            found = read_record(folder / OUTCOME, Outcome)
            if found.job == job:
                return found
        bench = _bench(self)
        drafter, outcome = bench.make(job)
        write_atomic(folder / REPLAYS, lines_text(bench.replays(drafter)))
        write_record(folder / OUTCOME, outcome)
        return outcome

    def run(self, name: str) -> tuple[RunConfig, Lines]:
        """The lines of a finished job, as of a run."""
        bench = _bench(self)
        lines = tuple(read_lines(self.out / "jobs" / name / REPLAYS, Replay, torn_ok=False))
        return bench.prepared.config, Lines(traces=bench.traces, replays=lines)

    def do_all(self, jobs: dict[str, Job], workers: int, say: Any = print) -> dict[str, Outcome]:
        """All jobs, `workers` processes of one thread each; → outcomes by name."""
        _bench(self).traces  # noqa: B018  made once, before the processes share them through the cache
        found: dict[str, Outcome] = {}
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
            for name, outcome in zip(jobs, pool.map(_do, [(self, *item) for item in jobs.items()]), strict=True):
                found[name] = outcome
                say(f"{len(found)}/{len(jobs)} {name}")
        return found


def _do(task: tuple[Workshop, str, Job]) -> Outcome:
    workshop, name, job = task
    return workshop.do(name, job)


def _one_thread() -> None:
    torch.set_num_threads(1)


_BENCHES: dict[Path, Bench] = {}


def _bench(workshop: Workshop) -> Bench:
    """The loaded side of a workshop, once a process."""
    if workshop.out not in _BENCHES or _BENCHES[workshop.out].workshop != workshop:
        _BENCHES[workshop.out] = Bench(workshop)
    return _BENCHES[workshop.out]


@dataclass
class Bench:
    """What a process keeps between jobs: the verifier, texts and their hidden states, the questions and answers."""

    workshop: Workshop
    _corpora: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[Corpus, Teacher, Teacher]] = field(
        default_factory=dict
    )

    @cached_property
    def prepared(self) -> Prepared:
        shop = self.workshop
        ask = prepare.Ask(
            shop.verifier,
            None,
            shop.suites,
            shop.languages,
            limit=shop.limit,
            gamma=shop.gamma,
            batch_size=shop.batch_size,
            race_rounds=0,
        )
        return prepare.prepare(ask)

    @property
    def verifier(self) -> Model:
        return self.prepared.verifier

    @cached_property
    def traces(self) -> tuple[Trace, ...]:
        """The verifier's texts of every prompt, in shards as a run would make them."""
        prepared = self.prepared
        found: list[Trace] = []
        for shard, keys in prepared.config.shards.items():
            found += continuations(
                self.verifier,
                prepared.codec,
                [prepared.questions.prompts[key] for key in keys],
                [prepared.questions.encoded[key] for key in keys],
                rule=prepared.config.rule,
                batch_size=self.workshop.batch_size,
                seed=prepared.config.seed,
                shard=shard,
                cache=self.workshop.cache,
            )
        return tuple(found)

    def replays(self, drafter: Drafter) -> Sequence[Replay]:
        """A drafter scored on every text."""
        encoded = [self.prepared.questions.encoded[trace.key] for trace in self.traces]
        config = self.prepared.config
        return list(
            replay(
                self.verifier,
                drafter,
                encoded,
                self.traces,
                rule=config.rule,
                seed=config.seed,
                batch_size=self.workshop.batch_size,
                shard="study",
            )
        )

    def make(self, job: Job) -> tuple[Drafter, Outcome]:
        """The job's drafter, mended if it says so."""
        ask = mend.Ask(
            self.workshop.verifier,
            ModelAsk(job.drafter, job.drafter),
            job.method or "none",
            job.prompts,
            job.recipe,
            limit=self.workshop.training_limit,
            batch_size=self.workshop.batch_size,
        )
        student = mend.load_student(ask, self.verifier)
        if job.method is None:
            return ModelDrafter(student, self.verifier), Outcome(job=job, before=None, after=None, best_step=None)
        method = methods.find(job.method)
        corpus, training, held_out = self._texts(ask, student, job.left_out)
        corpus = replace(corpus, shares=_shares(Path(job.drafter), corpus))
        trainee = Trainee(student.hf, training, held_out, corpus)
        if isinstance(method, Fitted):
            drafter = self._fitted(method, trainee, student)
            return drafter, Outcome(job=job, before=figures_of(trainee), after=None, best_step=None)
        history, best = train(trainee, method, job.recipe)
        mend.round_to(trainee, mend.stored_dtype(ask))
        after = figures_of(trainee, step=best)
        outcome = Outcome(job=job, before=history[0], after=after, best_step=best, history=tuple(history))
        return ModelDrafter(student, self.verifier), outcome

    def _fitted(self, method: Fitted, trainee: Trainee, student: Model) -> Drafter:
        if method.fit == "temperature":
            return ModelDrafter(student, self.verifier, temperatures=fit_temperatures(trainee))
        texts = ((text.task, text.prompt, text.output) for text in trainee.corpus.train)
        tables = ngram.fit(texts, self.verifier.vocab_size, vocabulary=self.verifier.vocabulary)
        return NgramDrafter(tables, self.verifier)

    def _texts(self, ask: mend.Ask, student: Model, left_out: tuple[str, ...]) -> tuple[Corpus, Teacher, Teacher]:
        key = (ask.prompts, left_out)
        if key not in self._corpora:
            found = training_prompts(ask.prompts, languages=self.workshop.languages, limit=ask.limit)
            prompts = [prompt for prompt in found if prompt.language not in left_out]
            refuse_suite_prompts(prompts)
            corpus = mend.make_corpus(ask, self.verifier, student, prompts, self.workshop.cache, lambda seen: None)
            hf = self.verifier.hf
            self._corpora[key] = corpus, Teacher(hf, corpus.train), Teacher(hf, corpus.held_out)
        return self._corpora[key]


def _shares(drafter: Path, corpus: Corpus) -> dict[str, float]:
    """How common each task is in the wild: the shares that the drafter was trained with, where its recipe says so."""
    path = drafter / "recipe.json"
    made = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "order" not in made:
        return dict(corpus.shares)
    shares = zipf(tuple(made["order"]), made["recipe"]["skew"])
    return {task: shares[task.rpartition("/")[2]] for task in corpus.tasks}


def best_rate(outcomes: Iterable[tuple[float, Outcome]]) -> float:
    """Of (rate, outcome) the rate with the least held-out cost after."""
    return min(outcomes, key=lambda item: item[1].after.cost if item[1].after else float("inf"))[0]
