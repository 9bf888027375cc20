"""What decides the lines of a run, and the machine that made them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from fairspec_bench.schemas.backends import BACKENDS, known
from fairspec_bench.schemas.base import Option, Record, Sha256, VersionedRecord

Backend = Annotated[str, AfterValidator(known)]
Dtype = Literal["float32", "bfloat16", "float16"]
Executor = Literal["local", "ray"]
MAX_GAMMA = 64
MOST_SWEPT = 16


class SamplingParams(Record):
    """Sampling parameters. Temperature 0 is greedy (lowest id wins a tie); top-k 0 and top-p 1 are off."""

    temperature: Annotated[float, Field(ge=0), Option("0 is greedy.", "Decoding", "sampling.temperature")] = 0.0
    top_k: Annotated[int, Field(ge=0), Option("Only the k likeliest tokens; 0: all.", "Decoding", "sampling.top_k")] = 0
    top_p: Annotated[
        float,
        Field(gt=0, le=1),
        Option("Only the likeliest tokens up to this mass; 1: all.", "Decoding", "sampling.top_p"),
    ] = 1.0

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


class SuiteConfig(Record):
    """A suite as it was run: its settings, and the hashes of its data and prompts by language."""

    name: str
    version: str
    languages: tuple[str, ...]
    limit: int | None
    num_fewshot: int | None
    max_new_tokens: int
    data_sha256: dict[str, Sha256]
    prompts_sha256: dict[str, Sha256]


class ModelConfig(VersionedRecord):
    """A model as loaded. `kind` is the drafter's entry in `engine.drafters.kinds`; options as given.

    `packed`: its weights were packed by oneDNN.

    Of a drafter: `proper` is whether it has a q over the whole vocabulary, `answers` whether its own output is scored.
    """

    later = frozenset({"proper", "answers", "packed"})

    name: str
    kind: str = "model"
    revision: str | None = None
    parameters: int | None = None
    options: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    proper: bool = True
    answers: bool = True
    packed: bool = False


REVISION_PARTS = {
    "weights-sha256": "the weights or their dtype differ",
    "config-sha256": "config.json differs",
    "generation-sha256": "generation_config.json differs",
    "adapter-sha256": "the adapter differs",
    "quantization": "the quantization differs",
    "temperatures-sha256": "the drafter's temperatures differ",
}
"""What another value of a part of a model's revision, `name:value+name:value`, means."""
_ADDED_PARTS = {"config-sha256", "generation-sha256"}


def revision_difference(there: str | None, here: str | None) -> str | None:
    """What of a model differs between two revisions, in words; `None` if they agree.

    Revisions of 0.1 do not name the configurations: what only one of the two names is not compared then.
    """
    old, new = _parts(there), _parts(here)
    for name in {**old, **new}:
        unsaid = name in _ADDED_PARTS and not (name in old and name in new)
        if old.get(name) != new.get(name) and not unsaid:
            return REVISION_PARTS.get(name, "the revision differs")
    return None


def _parts(revision: str | None) -> dict[str, str]:
    """The parts of a revision by name; a commit has none."""
    pairs = (part.rpartition(":") for part in revision.split("+")) if revision else ()
    return {name: value for name, _, value in pairs}


class RunConfig(VersionedRecord):
    """Everything that decides a run's lines; written first, compared field by field on resume.

    `chunks` are the prompts by the chunk that they are made in, `clusters` the problem of each. `race_width` and
    `race_budget` (seconds) say when a task's race ends early, `None`: it does not. `gammas` and `batch_sizes` are those
    of a sweep, sorted, the run's own among them; empty: there is none. `generation_config_not_followed` are settings of
    the verifier's `generation_config.json` that would change texts (`schemas.generation_settings`). `end_warnings` say
    where outputs may not end as one would expect: stop strings that the tokenizer loses, end-of-text ids that are not
    followed. `vocabulary_warnings` name tokens that are called otherwise in the drafter, which are never proposed.
    """

    later = frozenset(
        {
            "backend",
            "float32_check",
            "race_width",
            "race_budget",
            "gammas",
            "batch_sizes",
            "generation_config_not_followed",
            "chat_template_args",
            "end_warnings",
            "vocabulary_warnings",
        }
    )

    schema_version: Literal[2] = 2
    verifier: ModelConfig
    drafter: ModelConfig | None
    suites: tuple[SuiteConfig, ...]
    tokenizer_sha256: Sha256
    chat_template: bool = False
    sampling: SamplingParams = SamplingParams()
    gamma: int = Field(ge=1, le=MAX_GAMMA)
    seed: int
    batch_size: int = Field(ge=1)
    dtype: Dtype
    device: str
    race_prompts: int | None
    race_rounds: int = Field(ge=0)
    chunks: dict[str, tuple[str, ...]]
    clusters: dict[str, str]
    shard: tuple[int, int] | None = None
    backend: Backend = "eager"
    float32_check: bool = False
    race_width: float | None = Field(default=None, gt=0)
    race_budget: float | None = Field(default=None, gt=0)
    gammas: tuple[Annotated[int, Field(ge=1, le=MAX_GAMMA)], ...] = Field(default=(), max_length=MOST_SWEPT)
    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(), max_length=MOST_SWEPT)
    generation_config_not_followed: dict[str, JsonValue] = Field(default={})
    chat_template_args: dict[str, JsonValue] | None = None
    end_warnings: tuple[str, ...] = ()
    vocabulary_warnings: tuple[str, ...] = ()

    @property
    def served(self) -> bool:
        """Whether a serving engine decodes: it shows no logits."""
        return BACKENDS[self.backend].serves


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


class ChunkDone(VersionedRecord):
    """A chunk of one stage that is finished, and in which environment (an index into the run's environments).

    `sha256` is of its lines as they were written.
    """

    later = frozenset({"sha256"})

    chunk: str
    stage: str
    lines: int
    environment: int
    sha256: Sha256 | None = None
