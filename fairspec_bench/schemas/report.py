"""What a run comes to: estimates with intervals, by task and across tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fairspec_bench.schemas.base import NotebookRecord, Record, VersionedRecord
from fairspec_bench.schemas.config import Environment, RunConfig

Payment = Literal["pays", "stops", "undecided"]
RaceStatus = Literal["quiet", "noisy", "few rounds", "no interval", "no control", "no race", "shared"]


class Estimate(Record):
    """A figure with its 95 % interval. `value` is `None` for no data, the interval where none can be given."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class RaceVerdict(Record):
    """Whether the clock of a race can be trusted: the A/A `ratio`, baseline / itself, over its `rounds` rounds.

    `quiet`: its whole interval lies within 1 ± `margin`, over enough rounds. Only then does a speed-up of the race have
    a verdict.
    """

    status: RaceStatus
    ratio: Estimate = Estimate()
    rounds: int = 0
    margin: float = 0.03

    @property
    def quiet(self) -> bool:
        return self.status == "quiet"


class TaskReport(VersionedRecord):
    """One task (a language of a suite): counts, and each measure by its METRICS name.

    `acceptance_by_output` is by output positions (`17-64`), those without data left out; `accepted_lengths[j]` the
    share of blocks that accept exactly j drafts.
    """

    later = frozenset({"acceptance_by_output", "accepted_lengths"})

    task: str
    suite: str
    language: str
    prompts: int
    clusters: int
    contexts: int
    tokens: int
    measures: dict[str, Estimate]
    acceptance_by_position: tuple[Estimate, ...]
    acceptance_joint: tuple[Estimate, ...]
    block_efficiency_by_gamma: dict[int, Estimate]
    flags: tuple[str, ...] = ()
    acceptance_by_output: dict[str, Estimate] = Field(default={})
    accepted_lengths: tuple[Estimate, ...] = ()


class SweepCell(VersionedRecord):
    """One task decoded with one batch size and γ (0: autoregressive, which has no speed-up).

    Of requests served at once also the latency, in seconds, that half and 95 % of them stay within, and
    `acceptance_observed` where the engine counts each request's speculation.
    """

    later = frozenset({"latency_p50", "latency_p95", "acceptance_observed"})

    task: str
    batch_size: int
    gamma: int
    tokens_per_second: Estimate
    speedup: Estimate
    latency_p50: Estimate | None = None
    latency_p95: Estimate | None = None
    acceptance_observed: Estimate | None = None


class Payoff(Record):
    """Whether γ pays in one task: faster at every swept batch, slower at batch `stops_at`, or undecided."""

    task: str
    gamma: int
    verdict: Payment
    stops_at: int | None


class BestGamma(Record):
    """The γ with the best speed-up of all tasks together at one batch size: `chosen` on half 0 of the prompts.

    `total` is what it is worth on half 1, which had no part in the choice, and `speedup` the same by task.
    """

    batch_size: int
    gamma: int
    chosen: Estimate
    total: Estimate
    speedup: dict[str, Estimate]


class SweepReport(Record):
    """What a sweep of batch sizes and γ comes to in one suite; intervals are over its `rounds` of the clock."""

    rounds: int
    cells: tuple[SweepCell, ...]
    payoffs: tuple[Payoff, ...]
    best: tuple[BestGamma, ...]


class SuiteReport(VersionedRecord):
    """The tasks of one suite and the figures across them; `ranks` is each task's rank range by acceptance."""

    later = frozenset({"sweep"})

    suite: str
    tasks: tuple[TaskReport, ...]
    across: dict[str, Estimate]
    noise_floor: float | None
    ranks: dict[str, tuple[int, int]]
    sweep: SweepReport | None = None


class Report(NotebookRecord):
    """Derived from a run's lines alone; the same lines give the same bytes."""

    schema_version: Literal[2] = 2
    config: RunConfig
    environments: tuple[Environment, ...]
    suites: tuple[SuiteReport, ...]
    replicates: int
    bootstrap_seed: int
    race_verdict: RaceVerdict
    notes: tuple[str, ...] = ()
