"""What a submission says of itself, and what checking and auditing it found: the records of the board."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fairspec_bench.schemas.base import Record, Sha256
from fairspec_bench.schemas.report import Estimate, Report


class DrafterEntry(Record):
    """The drafter. A causal language model has a `revision` (a commit, or the hash of its weights) and its `files` by
    SHA-256.

    `fine_tuned_from` is the slug of the submission whose drafter this one was made of, `method` how.
    """

    kind: str = Field(min_length=1, max_length=40)
    repo: str = Field(min_length=1, max_length=200)
    revision: str | None = Field(default=None, max_length=500)
    parameters: int | None = Field(default=None, ge=0, le=10**13)
    files: dict[str, Sha256] = Field(default_factory=dict)
    training_data: str = Field(min_length=1, max_length=2_000)
    trained_on_suite_data: bool
    fine_tuned_from: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    method: str | None = Field(default=None, min_length=1, max_length=80)


class Submission(Record):
    """A submission as its authors describe it: plain text, NFC."""

    schema_version: Literal[2]
    name: str = Field(min_length=1, max_length=80)
    description: str = Field(min_length=1, max_length=2_000)
    authors: list[str] = Field(min_length=1, max_length=50)
    contact: str = Field(min_length=1, max_length=200)
    licence: str = Field(min_length=1, max_length=100)
    url: str = Field(min_length=1, max_length=300)
    track: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    drafter: DrafterEntry


class PromptSums(Record):
    """Sums of every replayed prompt, from which paired figures follow: `columns[name][i]` belongs to `keys[i]`.

    Columns are those of the measures that are compared (`measure.sums`), `None` where a drafter has none. `clusters`
    are names of problems, unique within a suite.
    """

    keys: tuple[str, ...]
    clusters: tuple[str, ...]
    columns: dict[str, tuple[float | None, ...]]


class Verified(Record):
    """A submission that passed the check: what it says, and what was recomputed from its lines.

    Known by the hash of its manifest's bytes; `reference_sha256` is that of the track's texts it was checked against.
    """

    schema_version: Literal[1] = 1
    manifest_sha256: Sha256
    reference_sha256: Sha256
    entry: Submission
    report: Report
    sums: PromptSums


class AuditedTask(Record):
    """One task of an audit: what was claimed and found on the same `contexts` (at least 1) of `prompts` re-scored ones.

    `same_drafts` is the share of contexts whose draft is the claimed one, `chance_difference` the mean over contexts of
    how far the chance of acceptance lies from the claimed one, `chance_gain` of claimed − found with its sign and
    `chance_squares` of its square (`None` in audits of 0.1). Misfit and overlap as METRICS has them, `None` for a
    drafter without a proper q.
    """

    task: str
    prompts: int
    contexts: int = Field(ge=1)
    same_drafts: float
    chance_difference: float
    acceptance_claimed: float
    acceptance_found: float
    misfit_claimed: float | None
    misfit_found: float | None
    overlap_claimed: float | None
    overlap_found: float | None
    chance_gain: float | None = None
    chance_squares: float | None = None


class FreshTask(Record):
    """Acceptance on all the track's prompts and on `prompts` that the submitter had not seen, and public − fresh.

    Intervals of the difference hold for all tasks of an audit at once.
    """

    task: str
    prompts: int
    public: Estimate
    fresh: Estimate
    difference: Estimate


class AuditedRace(Record):
    """The speed-up on `prompts` raced prompts of a task, as claimed and as found by another race of the same."""

    task: str
    prompts: int = Field(ge=1)
    claimed: float = Field(gt=0)
    found: float = Field(gt=0)


class Audit(Record):
    """A maintainer ran the drafter again. `rule` says in words what passing meant; `seed` was drawn after submission.

    `reproduced`: its lines came from the drafter named. `fresh_over_all`: the mean over tasks of public − fresh.
    `generalises`: it does not fall on fresh prompts by more than the rule allows; `None` where it was run on none
    (`fresh` is empty), or on too few to tell. `times`: the speed-ups claimed were found; `None` where none were raced
    again, or the clock was too noisy to tell.
    """

    schema_version: Literal[1] = 1
    manifest_sha256: Sha256
    auditor: str
    date: str
    seed: int
    rule: str
    machine: str
    sample: tuple[AuditedTask, ...]
    reproduced: bool
    fresh: tuple[FreshTask, ...] = ()
    fresh_over_all: Estimate = Estimate()
    generalises: bool | None = None
    races: tuple[AuditedRace, ...] = ()
    times: bool | None = None
