"""What was made and measured: one line per prompt and stage.

Token counts are integers, times integer nanoseconds, `kl` and `cross_entropy` nats, `alpha`, `overlap` and `beta`
probabilities. "No data" is `None`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from fairspec_bench.schemas.base import Record, Sha256, VersionedRecord

Finish = Literal["eos", "stop", "length"]
Mode = Literal["autoregressive", "speculative", "control"]


class Reference(Record):
    """The verifier's own output: ids run through EOS, the token that completes a stop string, or `max_new_tokens`."""

    key: str
    prompt_sha: Sha256
    ids: tuple[int, ...] = Field(min_length=1)
    finish: Finish
    chunk: str


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

    Sums over contexts: `alpha` (under the sampling parameters), `overlap`, `kl`, `cross_entropy` (temperature 1, full
    softmax; `None` for a drafter without a proper q). `draft_ids[i]` is the drafter's argmax for output position i + 2;
    `beta[i]` is `min(1, q(y)/p(y))` there, `None` in greedy decoding, where it is `draft_ids[i] == ids[i + 1]`.
    `divergences` counts the contexts where the verifier's own argmax here is likelier than the text's, and
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
    divergences: int | None = Field(default=None, ge=0)
    largest_gap: float | None = Field(default=None, ge=0)
    chunk: str


class DtypeDivergence(Record):
    """Where a greedy text made in a half type leaves the one that the same verifier makes in float32.

    `first` is the output position, from 1, of its first token that is not float32's likeliest there, and `gap` by how
    much that one's float32 logit is higher, nats; both `None` for a text that is float32's own.
    """

    key: str
    prompt_sha: Sha256
    first: int | None = Field(ge=1)
    gap: float | None = Field(ge=0)
    chunk: str

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.first is None) != (self.gap is None):
            raise ValueError("first and gap go together")
        return self


class StepTimes(Record):
    """Time inside one decode by kind of step: totals in nanoseconds and how often each ran."""

    draft_first_ns: int = 0
    draft_first: int = 0
    draft_next_ns: int = 0
    draft_next: int = 0
    verify_ns: int = 0
    verify: int = 0
    rest_ns: int = 0

    @property
    def total_ns(self) -> int:
        return self.draft_first_ns + self.draft_next_ns + self.verify_ns + self.rest_ns


class Counters(Record):
    """What a serving engine counted of its own speculation: rounds of drafting, drafts, and those that stood.

    `accepted_by_position[i]` counts the rounds whose draft i + 1 stood, those beyond the end of a text included.
    """

    rounds: int = Field(ge=0)
    drafts: int = Field(ge=0)
    accepted: int = Field(ge=0)
    accepted_by_position: tuple[Annotated[int, Field(ge=0)], ...]


class Timing(VersionedRecord):
    """One prompt decoded once in a race: both modes commit the same reference ids.

    `order` is the place of this mode within its prompt and round. `decode_ns` excludes both prefills. `context` is the
    prompt's length in tokens, by which predicted times are bucketed. `control` is the baseline run a second time (A/A).
    Only the speculative mode has `blocks`: without a drafter each holds one token. An engine that serves cannot be made
    to commit the reference: it decodes as many tokens, which leave it at output position `diverged_at` (`None`:
    nowhere), and counts its speculation itself in `counters`; `blocks` may then be unknown and empty.

    `outside_vocabulary` counts the reference's tokens after the first that a drafter of a smaller vocabulary cannot
    propose; `None` for a drafter of the whole vocabulary, or where its vocabulary is unknown.

    `step_times` add up to `decode_ns`; with `separate_steps` to the time of another decode, since a block that is
    recorded as a whole shows no steps.
    """

    later = frozenset({"counters", "diverged_at", "separate_steps", "outside_vocabulary"})

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
    step_times: StepTimes
    blocks: tuple[Block, ...]
    chunk: str
    counters: Counters | None = None
    diverged_at: int | None = Field(default=None, ge=1)
    separate_steps: bool = False
    outside_vocabulary: int | None = Field(default=None, ge=0)


class Throughput(VersionedRecord):
    """Half of a task's raced prompts decoded once in a sweep, `batch_size` rows together; γ = 0 is autoregressive.

    `order` is its place within its round. `tokens` are output tokens, the first of each prompt included, which prefill
    gives; `prefill_ns` adds up both models' prefills, and `decode_ns` is the time of all steps of the batch, each
    counted once although its rows share it. Of an engine that serves, `batch_size` is how many requests are under way
    at once, `latency_ns` each one's time from asking to its last token, in the prompts' order, and `decode_ns` the time
    from the first request to the last token, prefills within; `counters` are of all requests together, and
    `request_counters` each one's in the prompts' order, of an engine that counts them so.
    """

    later = frozenset({"latency_ns", "counters", "request_counters"})

    chunk: str
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
    request_counters: tuple[Counters, ...] = ()


class Dropped(Record):
    """A prompt that was not run, and why in one line."""

    key: str
    reason: str
