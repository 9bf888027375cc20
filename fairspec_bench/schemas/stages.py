"""The stages of a run, each declared once in `STAGES`; and from a configuration the steps it consists of.

A run is cut into chunks, some batches of prompts of one task. A stage makes one record per prompt of a chunk (a race
several, a sweep some of all raced prompts of a task). One stage of one chunk is a `Unit`: what is redone after a kill.

    reference         the verifier's output
    answer            the reference, graded
    replay            the drafter scored on the reference
    drafter_answer    the drafter's own output, graded
    dtype_divergence  the reference compared with float32
    race              wall-clock with and without the drafter, one prompt at a time
    sweep             throughput by batch size and γ
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

from fairspec_bench.schemas import columns
from fairspec_bench.schemas.base import FairspecError, Record
from fairspec_bench.schemas.columns import Column
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.keys import PromptKey, Task
from fairspec_bench.schemas.lines import (
    Answer,
    DtypeDivergence,
    Mode,
    Reference,
    Replay,
    Throughput,
    Timing,
)

T = TypeVar("T")
Keys = Mapping[str, tuple[str, ...]]
SweepPlace = tuple[str, int, int, int, int]

MODES: tuple[Mode, ...] = get_args(Mode)
RACE_BATCH = 8
"""Prompts of a race that are timed in all rounds before it may end."""


def mode_order(seed: int, key: str, number: int) -> tuple[Mode, ...]:
    """The order of the modes in one round of a prompt's race, drawn anew for each."""
    return tuple(random.Random(f"{seed}/{key}/{number}").sample(MODES, len(MODES)))


@dataclass(frozen=True)
class Stage:
    """All about a stage except how its lines are made, which is `scoring.stages.MAKERS`.

    Attributes:
        name: of the stage, its file and its `--lines`.
        record: the type of its lines.
        field: where its lines stand in `metrics.run_data.Lines`.
        columns: of the frame of its lines.
        keys: configuration → the prompts of each chunk that has this stage; a chunk that has none is left out.
        cost: rough time of a line in units of a reference, for progress; measured on small models, exact on none.
        needs: the stages of the same chunk that its lines are made from.
        phase: stages of a later phase wait for all chunks of the earlier ones.
        timed: whether its lines are clock readings, so that nothing may run beside it.
        most: configuration, prompts of a chunk → how many lines there are at most.
        optional: whether a chunk may have no line although it has the stage.
    """

    name: str
    record: type[Record]
    field: str
    columns: tuple[Column, ...]
    keys: Callable[[RunConfig], Keys]
    cost: float
    needs: tuple[str, ...] = ()
    phase: int = 0
    timed: bool = False
    most: Callable[[RunConfig, Sequence[str]], int] = lambda config, keys: len(keys)
    optional: bool = False

    @property
    def file(self) -> str:
        return f"{self.name}.jsonl"


@dataclass(frozen=True)
class Unit:
    """One stage of one chunk."""

    chunk: str
    stage: str

    @property
    def task(self) -> Task:
        return PromptKey(self.chunk).task

    @property
    def file(self) -> str:
        return STAGES[self.stage].file


# --------------------------------------------------------------------------- which prompts a stage has


def _all(config: RunConfig) -> Keys:
    return config.chunks


def _replayed(config: RunConfig) -> Keys:
    return config.chunks if config.drafter is not None and not config.served else {}


def _answered(config: RunConfig) -> Keys:
    return _replayed(config) if config.drafter is not None and config.drafter.answers else {}


def _checked(config: RunConfig) -> Keys:
    return config.chunks if config.float32_check else {}


def race_keys(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """The raced prompts of each chunk that has any: the first `race_prompts` of each task (all, if `None`)."""
    if not config.race_rounds or config.drafter is None:
        return {}
    left: Counter[str] = Counter()
    raced = {}
    for chunk, keys in config.chunks.items():
        task = PromptKey(chunk).task
        limit = len(keys) if config.race_prompts is None else max(0, config.race_prompts - left[task])
        raced[chunk] = keys[:limit]
        left[task] += len(keys)
    return {chunk: keys for chunk, keys in raced.items() if keys}


def sweep_keys(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """The prompts of each sweep: the raced ones of a task, at the first chunk that has any."""
    tasks: dict[Task, dict[str, tuple[str, ...]]] = {}
    for chunk, keys in race_keys(config).items() if config.gammas else ():
        tasks.setdefault(PromptKey(chunk).task, {})[chunk] = keys
    return {next(iter(raced)): tuple(key for keys in raced.values() for key in keys) for raced in tasks.values()}


def decoded_together(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """The chunks whose texts are decoded in one queue with those of a chunk, itself among them.

    Chunks that do not fill a batch share one with their neighbours of the same suite, whatever the shard of a run: the
    last bits of a text depend on its batch.
    """
    groups: list[list[str]] = []
    rows = 0
    for chunk, keys in config.chunks.items():
        alike = groups and PromptKey(groups[-1][-1]).suite == PromptKey(chunk).suite
        if not alike or rows >= config.batch_size or len(keys) >= config.batch_size:
            groups.append([])
            rows = 0
        groups[-1].append(chunk)
        rows += len(keys)
    return {chunk: tuple(group) for group in groups for chunk in group}


# --------------------------------------------------------------------------- what a race and a sweep consist of


def ends_early(config: RunConfig) -> bool:
    """Whether a race may end before every prompt was raced."""
    return config.race_width is not None or config.race_budget is not None


def race_batches(config: RunConfig, keys: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The raced prompts of a chunk as they are raced: a few in all rounds, then the next; all at once if none can end.

    The race may end after each batch.
    """
    size = RACE_BATCH if ends_early(config) else max(1, len(keys))
    for start in range(0, len(keys), size):
        yield tuple(keys[start : start + size])


def halves(keys: Sequence[T]) -> tuple[Sequence[T], ...]:
    """The two halves of a sweep's prompts, taken in turn: the first chooses γ, the second reports it."""
    return tuple(half for half in (keys[::2], keys[1::2]) if half)


def sweep_places(config: RunConfig, chunk: str) -> dict[SweepPlace, Sequence[str]]:
    """What the lines of the sweep at this chunk must be of, each once, and the prompts of its half."""
    return {
        (chunk, half, batch, gamma, number): mine
        for half, mine in enumerate(halves(sweep_keys(config)[chunk]))
        for batch in config.batch_sizes
        for gamma in (0, *config.gammas)
        for number in range(config.race_rounds)
    }


def sweep_place(line: Throughput) -> SweepPlace:
    """Chunk, half, batch size, γ and round of a line."""
    return line.chunk, line.half, line.batch_size, line.gamma, line.round


# --------------------------------------------------------------------------- the table

STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("reference", Reference, "references", columns.REFERENCE, _all, cost=1.0),
        Stage("answer", Answer, "answers", columns.ANSWER, _all, cost=0.02, needs=("reference",)),
        Stage("replay", Replay, "replays", columns.REPLAY, _replayed, cost=0.1, needs=("reference",)),
        Stage("drafter_answer", Answer, "drafter_answers", columns.ANSWER, _answered, cost=0.2, optional=True),
        Stage(
            "dtype_divergence",
            DtypeDivergence,
            "divergences",
            columns.DTYPE_DIVERGENCE,
            _checked,
            cost=0.1,
            needs=("reference",),
            phase=1,
        ),
        Stage(
            "race",
            Timing,
            "timings",
            columns.RACE,
            race_keys,
            cost=1.5,
            phase=2,
            timed=True,
            most=lambda config, keys: len(keys) * config.race_rounds * len(MODES),
        ),
        Stage(
            "sweep",
            Throughput,
            "throughputs",
            columns.SWEEP,
            sweep_keys,
            cost=20.0,
            phase=3,
            timed=True,
            most=lambda config, keys: len(halves(keys)) * len(config.batch_sizes) * (1 + len(config.gammas))
            * config.race_rounds,
        ),
    )
}  # fmt: skip


def unit_keys(config: RunConfig) -> dict[Unit, tuple[str, ...]]:
    """What this run, or this shard of one, does, in order, and on which prompts: phase by phase, chunk by chunk.

    Raises `FairspecError` for a shard that cannot be.
    """
    first, count = config.shard or (1, 1)
    if not 1 <= first <= count:
        raise FairspecError(f"shard {first}/{count}: the first number must be from 1 to the second.")
    mine = list(config.chunks)[first - 1 :: count]
    keys = {stage: stage.keys(config) for stage in STAGES.values()}
    return {
        Unit(chunk, stage.name): keys[stage][chunk]
        for phase in sorted({stage.phase for stage in keys})
        for chunk in mine
        for stage in keys
        if stage.phase == phase and chunk in keys[stage]
    }


def units(config: RunConfig) -> tuple[Unit, ...]:
    """The units of a run in order. Raises `FairspecError` as `unit_keys`."""
    return tuple(unit_keys(config))
