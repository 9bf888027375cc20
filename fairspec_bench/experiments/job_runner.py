"""Fine-tunes many drafters of one verifier and scores each by replay: the jobs of an experiment, in worker processes.

A job is a resumable folder that ends with its lines; weights are not kept, because the job's fields determine them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import torch

from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.experiments.scorer import Scorer
from fairspec_bench.metrics.trainings import Run
from fairspec_bench.mitigation import finetune
from fairspec_bench.mitigation.corpus import Corpus
from fairspec_bench.mitigation.finetune import FineTuneOptions
from fairspec_bench.mitigation.passes import Teacher, TrainingSetup
from fairspec_bench.mitigation.trainer import Evaluation, TrainingRecipe
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.base import Record
from fairspec_bench.schemas.io import lines_text, read_lines, read_record, write_atomic, write_record
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.lines import Replay
from fairspec_bench.schemas.options import ModelSpec, RunOptions
from fairspec_bench.schemas.resumable import resumable
from fairspec_bench.scoring import prepare
from fairspec_bench.suites.training_prompts import refuse_suite_prompts, training_prompts
from fairspec_bench.testbed.corpus import zipf

JOB, REPLAYS, RESULT = "job.json", "replays.jsonl", "result.json"


class DrafterJob(Record):
    """One drafter to make and score. `method` None: the drafter as it is. `drafter` is a folder's path."""

    drafter: str
    method: str | None = None
    recipe: TrainingRecipe = TrainingRecipe()
    prompts: tuple[str, ...] = ("embedded_math",)
    left_out: tuple[str, ...] = ()


class ScoringOptions(Record):
    """What the drafters of an experiment are scored and trained on; `limit` and `training_limit` are prompts a task."""

    suites: tuple[str, ...]
    limit: int = 40
    training_limit: int = 80
    languages: tuple[str, ...] | None = None
    batch_size: int = 48
    gamma: int = 4


class _JobPlan(Record):
    """Everything that decides a job's lines."""

    verifier: str
    job: DrafterJob
    scoring: ScoringOptions


class JobResult(Record):
    """Held-out figures of a finished job, before and after (`None`: not trained)."""

    before: Evaluation | None = None
    after: Evaluation | None = None
    history: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class JobRunner:
    """Runs jobs of one verifier in the folder `out`. Picklable: a worker process loads the models once."""

    verifier: ModelSpec
    scoring: ScoringOptions
    out: Path
    cache: Path

    def run_all(
        self, jobs: Mapping[str, DrafterJob], workers: int, say: Callable[[str], None] = print
    ) -> dict[str, JobResult]:
        """Finish all jobs, in `workers` processes of one thread each; → results by name. Raises `FairspecError`."""
        self.scorer.references  # noqa: B018  made once, before the processes share them through the cache
        results: dict[str, JobResult] = {}
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
            for name, result in zip(jobs, pool.map(_run, [(self, *item) for item in jobs.items()]), strict=True):
                results[name] = result
                say(f"{len(results)}/{len(jobs)} {name}")
        return results

    def run(self, name: str, job: DrafterJob) -> JobResult:
        """The job's result, from its folder if it is finished. Raises `FairspecError` where another job is there."""
        folder = self._folder(name)
        plan = _JobPlan(verifier=self.verifier.name, job=job, scoring=self.scoring)
        with resumable(folder, JOB, plan, what="job"):
            if (folder / RESULT).exists():
                return read_record(folder / RESULT, JobResult)
            worker, drafter = _worker(self), folder / "drafter"
            result, spec = worker.make(job, drafter)
            write_atomic(folder / REPLAYS, lines_text(worker.replay(spec)))
            shutil.rmtree(drafter, ignore_errors=True)
            write_record(folder / RESULT, result)
            return result

    def lines(self, name: str) -> Run:
        """The lines of a finished job, as of a run."""
        replays = tuple(read_lines(self._folder(name) / REPLAYS, Replay, torn_ok=False))
        return self.scorer.run(replays)

    @property
    def scorer(self) -> Scorer:
        """What the drafters are scored by, loaded once a process."""
        return _worker(self).scorer

    def _folder(self, name: str) -> Path:
        return self.out / "jobs" / name


def _run(task: tuple[JobRunner, str, DrafterJob]) -> JobResult:
    runner, name, job = task
    return runner.run(name, job)


def _one_thread() -> None:
    torch.set_num_threads(1)


_WORKERS: dict[Path, _Worker] = {}


def _worker(runner: JobRunner) -> _Worker:
    """What this process has loaded for a runner."""
    if runner.out not in _WORKERS or _WORKERS[runner.out].runner != runner:
        _WORKERS[runner.out] = _Worker(runner)
    return _WORKERS[runner.out]


@dataclass
class _Worker:
    """What a process keeps between jobs: the verifier, its references, and training sets with hidden states."""

    runner: JobRunner
    _training_sets: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[Corpus, Teacher, Teacher]] = field(
        default_factory=dict
    )

    @cached_property
    def scorer(self) -> Scorer:
        options = self.runner.scoring
        run_options = RunOptions(
            self.runner.verifier,
            None,
            options.suites,
            options.languages,
            limit=options.limit,
            gamma=options.gamma,
            batch_size=options.batch_size,
            race_rounds=0,
        )
        return Scorer(prepare.prepare(run_options), self.runner.cache)

    def make(self, job: DrafterJob, out: Path) -> tuple[JobResult, ModelSpec]:
        """The job's figures, and where its drafter is: the given one, or that made in `out`."""
        if job.method is None:
            return JobResult(), drafter_spec(job.drafter)
        options = FineTuneOptions(
            self.runner.verifier,
            ModelSpec(job.drafter, job.drafter),
            job.method,
            job.prompts,
            job.recipe,
            languages=self.runner.scoring.languages,
            limit=self.runner.scoring.training_limit,
            batch_size=self.runner.scoring.batch_size,
        )
        verifier = self.scorer.context.verifier
        student = finetune.load_student(options, verifier)
        if (options.prompts, job.left_out) not in self._training_sets:
            self._training_sets[options.prompts, job.left_out] = self._training_set(options, student, job.left_out)
        corpus, training, held_out = self._training_sets[options.prompts, job.left_out]
        corpus = replace(corpus, shares=_shares(Path(job.drafter), corpus))
        setup = TrainingSetup(student.hf, training, held_out, corpus)
        history, after = finetune.apply_method(options, setup, verifier, student, out)
        return JobResult(before=history[0], after=after, history=tuple(history)), drafter_spec(str(out))

    def replay(self, drafter: ModelSpec) -> tuple[Replay, ...]:
        """The replays of a drafter of whatever kind."""
        options = RunOptions(self.runner.verifier, drafter, self.runner.scoring.suites)
        loaded = prepare.load_run_drafter(options, self.scorer.context.verifier)
        assert loaded is not None
        return self.scorer.replay(loaded)

    def _training_set(
        self, options: FineTuneOptions, student: Model, left_out: tuple[str, ...]
    ) -> tuple[Corpus, Teacher, Teacher]:
        found = training_prompts(options.prompts, languages=options.languages, limit=options.limit)
        prompts = [prompt for prompt in found if prompt.language not in left_out]
        refuse_suite_prompts(prompts)
        verifier = self.scorer.context.verifier
        corpus = finetune.make_corpus(options, verifier, student, prompts, self.runner.cache)
        return corpus, Teacher(verifier.hf, corpus.train), Teacher(verifier.hf, corpus.held_out)


def _shares(drafter: Path, corpus: Corpus) -> dict[str, float]:
    """How common each task is in use: the shares that the drafter was trained with, where its recipe says so."""
    path = drafter / "recipe.json"
    made = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "order" not in made:
        return dict(corpus.shares)
    shares = zipf(tuple(made["order"]), made["recipe"]["skew"])
    return {task: shares[Task(task).language] for task in corpus.tasks}
