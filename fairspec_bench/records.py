"""Ground floor: the typed records that every other room reads and writes, and their files.

Knows the shape of each record and how a file of them is written, read and repaired. Knows nothing of models, text,
languages' meaning or statistics: sums and counts travel here, ratios are taken in `measure`.

Symbols and units follow the project's METRICS document: token counts are integers, times are integer nanoseconds,
`kl` and `cross_entropy` are nats, `alpha`, `overlap` and `beta` are probabilities. "No data" is `None`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

Finish = Literal["eos", "stop", "cap"]
Mode = Literal["autoregressive", "speculative", "control"]
Backend = Literal["eager", "compile", "graph", "vllm"]
SERVED: Backend = "vllm"
"""The backend that is another engine: it shows no logits, so nothing is replayed."""
Payment = Literal["pays", "stops", "undecided"]
Sha256 = str
MAX_LINE_BYTES = 8 * 2**20
MOST_SWEPT = 16


class FairspecError(Exception):
    """A failure the user can mend: its message is one line saying what, where and what to do. Exit status 2."""


class RecordError(FairspecError):
    """A file of records that cannot be trusted: names file, line and field."""


class Record(BaseModel):
    """Strict, frozen, finite: a wrong type, an unknown field, NaN or infinity is an error, never coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Grown(Record):
    """A record that gained fields since its first files: a field in `later` is written only where it was set.

    So files from before, and what is derived from them, keep their bytes.
    """

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unset = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in written(self).items() if name not in unset}


class Shown(Record):
    """A record that a notebook shows as tables. How is not known down here: `shown_by` is set by the face."""

    shown_by: ClassVar[Callable[[Any], str] | None] = None

    def _repr_html_(self) -> str | None:
        show = type(self).shown_by
        return show(self) if show else None


R = TypeVar("R", bound=Record)


# --------------------------------------------------------------------------- what is asked


class Message(Record):
    """One turn of a chat prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Record):
    """One question of one task. `key` is `suite/language/number`; `cluster` the problem shared with other languages."""

    key: str
    cluster: str
    suite: str
    language: str
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    target: str | None = None
    stops: tuple[str, ...] = ()
    cap: int = Field(gt=0)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("exactly one of text and messages must be given")
        return self


class Encoded(Record):
    """A prompt as ids. `group` is opaque to the engine; `sha` is `ids_sha256(ids)`."""

    key: str
    group: str
    ids: tuple[int, ...] = Field(min_length=1)
    sha: Sha256
    cap: int = Field(gt=0)


# --------------------------------------------------------------------------- what was made and measured


class Trace(Record):
    """The verifier's own continuation: ids run through EOS, the token that completes a stop string, or the cap."""

    key: str
    prompt_sha: Sha256
    ids: tuple[int, ...] = Field(min_length=1)
    finish: Finish
    shard: str


class Block(Record):
    """One verifier call: `accepted` drafts and `emitted` tokens that lie inside the text.

    Tested drafts are `min(emitted, gamma)`. `raw_accepted` also counts verdicts past the end of the text, as vLLM does.
    """

    accepted: int = Field(ge=0)
    emitted: int = Field(ge=1)
    raw_accepted: int = Field(ge=0)


class Answer(Record):
    """A graded continuation. `text` is kept only where a caller asks; a run's lines carry figures, not text.

    Where the suite has a reference text to go on with, `target_nats` is −ln p of it (nats, temperature 1) by the model
    that answered and `target_bytes` its length in UTF-8.
    """

    key: str
    correct: bool | None
    language: str | None
    looping: bool
    chars: int = Field(ge=0)
    bytes: int = Field(ge=0)
    text: str | None = None
    target_nats: float | None = Field(default=None, ge=0)
    target_bytes: int | None = Field(default=None, gt=0)


class Replay(Record):
    """A drafter scored on one reference continuation, output positions 2…N (`contexts = N − 1`).

    Sums over contexts: `alpha` (under the decoding rule), `overlap`, `kl`, `cross_entropy` (temperature 1, full
    softmax; `None` for a drafter without a proper q). `draft_ids[i]` is the drafter's argmax for output position i + 2;
    `beta[i]` is `min(1, q(y)/p(y))` there, `None` under the greedy rule, where it is `draft_ids[i] == ids[i + 1]`.
    `departures` counts the contexts where the verifier's own argmax here is likelier than the text's, and
    `largest_gap` is by how much at most, nats (greedy only): other kernels than the text's own round otherwise.
    """

    key: str
    prompt_sha: Sha256
    contexts: int = Field(ge=0)
    alpha: float = Field(ge=0)
    overlap: float | None = Field(ge=0)
    kl: float | None
    cross_entropy: float | None
    verifier_entropy: float | None
    draft_ids: tuple[int, ...]
    beta: tuple[float, ...] | None
    departures: int | None = Field(default=None, ge=0)
    largest_gap: float | None = Field(default=None, ge=0)
    shard: str


class Departure(Record):
    """Where a greedy text made in a half type leaves the one that the same verifier makes in float32.

    `first` is the output position, from 1, of its first token that is not float32's likeliest there, and `gap` by how
    much that one's float32 logit is higher, nats; both `None` for a text that is float32's own.
    """

    key: str
    prompt_sha: Sha256
    first: int | None = Field(ge=1)
    gap: float | None = Field(ge=0)
    shard: str

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.first is None) != (self.gap is None):
            raise ValueError("first and gap go together")
        return self


class Pieces(Record):
    """Time inside one decode by kind of step: totals in nanoseconds and how often each ran."""

    draft_first_ns: int = 0
    draft_first: int = 0
    draft_next_ns: int = 0
    draft_next: int = 0
    verify_ns: int = 0
    verify: int = 0
    rest_ns: int = 0


class Counters(Record):
    """What a serving engine counted of its own speculation: rounds of drafting, drafts, and those that stood.

    `accepted_by_position[i]` counts the rounds whose draft i + 1 stood, those beyond the end of a text included.
    """

    rounds: int = Field(ge=0)
    drafts: int = Field(ge=0)
    accepted: int = Field(ge=0)
    accepted_by_position: tuple[Annotated[int, Field(ge=0)], ...]


class Timing(Grown):
    """One prompt decoded once in a race: both modes commit the same reference ids.

    `order` is the place of this mode within its prompt and round. `decode_ns` excludes both prefills. `context` is the
    prompt's length in tokens, by which predicted times are bucketed. `control` is the baseline run a second time (A/A).
    Only the speculative mode has `blocks`: without a drafter each holds one token. An engine that serves cannot be made
    to commit the reference: it decodes as many tokens, which leave it at output position `left_at` (`None`: nowhere),
    and counts its speculation itself in `counters`; `blocks` may then be unknown and empty.
    """

    later = frozenset({"counters", "left_at"})

    key: str
    prompt_sha: Sha256
    mode: Mode
    round: int = Field(ge=0)
    order: int = Field(ge=0)
    context: int = Field(gt=0)
    tokens: int = Field(gt=0)
    prefill_ns: int = Field(ge=0)
    drafter_prefill_ns: int = Field(ge=0)
    decode_ns: int = Field(ge=0)
    pieces: Pieces
    blocks: tuple[Block, ...]
    shard: str
    counters: Counters | None = None
    left_at: int | None = Field(default=None, ge=1)


class Throughput(Grown):
    """Half of a task's raced prompts decoded once in a sweep, `batch_size` rows together; γ = 0 is autoregressive.

    `order` is its place within its round. `tokens` are output tokens, the first of each prompt included, which prefill
    gives; `prefill_ns` adds up both models' prefills, and `decode_ns` is the time of all steps of the batch, each
    counted once although its rows share it. Of an engine that serves, `batch_size` is how many requests are under way
    at once, `latency_ns` each one's time from asking to its last token, in the prompts' order, and `decode_ns` the time
    from the first request to the last token, prefills within; `counters` are of all requests together.
    """

    later = frozenset({"latency_ns", "counters"})

    shard: str
    half: int = Field(ge=0, le=1)
    batch_size: int = Field(ge=1)
    gamma: int = Field(ge=0, le=64)
    round: int = Field(ge=0)
    order: int = Field(ge=0)
    prompts: int = Field(gt=0)
    tokens: int = Field(gt=0)
    prefill_ns: int = Field(ge=0)
    decode_ns: int = Field(ge=0)
    latency_ns: tuple[Annotated[int, Field(ge=0)], ...] = ()
    counters: Counters | None = None


class Dropped(Record):
    """A prompt that was not run, and why in one line."""

    key: str
    reason: str


# --------------------------------------------------------------------------- what a run is


class Rule(Record):
    """The decoding rule. Temperature 0 is greedy (lowest id wins a tie); top-k 0 and top-p 1 are off."""

    temperature: float = Field(default=0.0, ge=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


class SuiteConfig(Record):
    """A suite as it was run: what was asked of it and the hashes of what it gave, by language."""

    name: str
    version: str
    languages: tuple[str, ...]
    limit: int | None
    num_fewshot: int | None
    cap: int
    data_sha256: dict[str, Sha256]
    prompts_sha256: dict[str, Sha256]


class ModelConfig(Record):
    """A model as loaded. `kind` is the drafter's entry (`model`, `ngram`, `lookup`, `oracle`); options as given."""

    name: str
    kind: str = "model"
    revision: str | None = None
    parameters: int | None = None
    options: dict[str, str | int | float | bool | None] = Field(default_factory=dict)


class RunConfig(Grown):
    """Everything that decides a run's lines; written first, compared field by field on resume.

    `race_width` and `race_budget` (seconds) say when a language's race ends early, `None`: it does not. `gammas` and
    `batch_sizes` are those of a sweep, sorted, the run's own among them; empty: there is none.
    """

    later = frozenset({"backend", "float32_check", "race_width", "race_budget", "gammas", "batch_sizes"})

    schema_version: Literal[1] = 1
    verifier: ModelConfig
    drafter: ModelConfig | None
    suites: tuple[SuiteConfig, ...]
    tokenizer_sha256: Sha256
    chat_template: bool = False
    rule: Rule = Rule()
    gamma: int = Field(ge=1, le=64)
    seed: int
    batch_size: int = Field(ge=1)
    dtype: Literal["float32", "bfloat16", "float16"]
    device: str
    race_prompts: int | None
    race_rounds: int = Field(ge=0)
    shards: dict[str, tuple[str, ...]]
    clusters: dict[str, str]
    part: tuple[int, int] | None = None
    backend: Backend = "eager"
    float32_check: bool = False
    race_width: float | None = Field(default=None, gt=0)
    race_budget: float | None = Field(default=None, gt=0)
    gammas: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(default=(), max_length=MOST_SWEPT)
    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(), max_length=MOST_SWEPT)


class Environment(Record):
    """The machine and versions beside every timing."""

    platform: str
    python: str
    processor: str
    cores: int
    threads: int
    device: str
    device_name: str
    packages: dict[str, str]
    commit: str | None
    dirty: bool | None
    started: str


class ShardDone(Record):
    """A shard of one stage that ended, and in which environment (an index into the run's environments)."""

    shard: str
    stage: str
    lines: int
    environment: int


# --------------------------------------------------------------------------- what it means


class Estimate(Record):
    """A figure with its 95 % interval. `value` is `None` for no data, the interval where none can be given."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class TaskReport(Record):
    """One task (a language of a suite): counts, and each measure by its METRICS name."""

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


class SweepCell(Grown):
    """One task decoded with one batch size and γ (0: autoregressive, which has no speed-up).

    Of requests served at once also the latency, in seconds, that half and 95 % of them stay within.
    """

    later = frozenset({"latency_p50", "latency_p95"})

    task: str
    batch_size: int
    gamma: int
    tokens_per_second: Estimate
    speedup: Estimate
    latency_p50: Estimate | None = None
    latency_p95: Estimate | None = None


class Payoff(Record):
    """Whether γ pays in one task: surely at every swept batch, surely not from batch `stops_at` on, or undecided."""

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


class SuiteReport(Grown):
    """The tasks of one suite and the figures across them; `ranks` is each task's rank range by acceptance."""

    later = frozenset({"sweep"})

    suite: str
    tasks: tuple[TaskReport, ...]
    across: dict[str, Estimate]
    noise_floor: float | None
    ranks: dict[str, tuple[int, int]]
    sweep: SweepReport | None = None


class Report(Shown):
    """Derived from a run's lines alone; the same lines give the same bytes."""

    schema_version: Literal[1] = 1
    config: RunConfig
    environments: tuple[Environment, ...]
    suites: tuple[SuiteReport, ...]
    replicates: int
    bootstrap_seed: int
    race_verdict: str
    notes: tuple[str, ...] = ()


# --------------------------------------------------------------------------- files


def ids_sha256(ids: Iterable[int]) -> Sha256:
    """SHA-256 of the ids in decimal, joined by commas."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content`: `path` holds the old bytes or the new ones, never a part. Raises `RecordError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written ({error.strerror}). Free space or choose another --out."
        ) from error


def write_record(path: Path, record: Record) -> None:
    """Write one record as indented JSON, atomically."""
    write_atomic(path, record.model_dump_json(indent=1) + "\n")


def read_record(path: Path, kind: type[R]) -> R:
    """Read one record. Raises `RecordError` naming the file and the first wrong field."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file. Is this a run folder?") from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise RecordError(f"{path} {_first(error)}") from None


def lines_text(records: Sequence[Record]) -> str:
    """Records as JSON lines, fields in the order of their class."""
    return "".join(record.model_dump_json(exclude_none=False) + "\n" for record in records)


def read_lines(path: Path, kind: type[R], *, torn_ok: bool = True) -> Iterator[R]:
    """The records of a JSON-lines file; a missing file has none.

    A torn last line (no newline) is dropped if `torn_ok`. Anything else wrong raises `RecordError` with file and line.
    """
    if not path.exists():
        return
    number = 0
    try:
        with path.open("rb") as file:
            while raw := file.readline(MAX_LINE_BYTES):
                number += 1
                if not raw.endswith(b"\n"):
                    if len(raw) == MAX_LINE_BYTES:
                        raise RecordError(f"{path}:{number}: line longer than {MAX_LINE_BYTES} bytes.")
                    if torn_ok:
                        return
                yield kind.model_validate_json(raw)
    except ValidationError as error:
        raise RecordError(f"{path}:{number} {_first(error)} Delete its task's folder and run again.") from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}).") from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"])) or "(whole)"
    got = json.dumps(first.get("input"), default=str)[:60]
    return f"{where}: {first['msg']}, got {got}."
