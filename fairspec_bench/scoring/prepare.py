"""From what a user asks to what will be run: prompts as ids, the ones that do not fit left out, shards, configuration.

Makes no tokens and writes no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from fairspec_bench.engine.batch import with_prefixes
from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.registry import load_drafter
from fairspec_bench.models.codec import Codec, prompts_sha256
from fairspec_bench.models.model import Model, load_model
from fairspec_bench.schemas.base import FairspecError, Record
from fairspec_bench.schemas.config import Backend, ModelConfig, RunConfig
from fairspec_bench.schemas.generation_settings import not_followed
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Dropped
from fairspec_bench.schemas.options import ModelSpec, RunOptions, check
from fairspec_bench.schemas.prompts import Encoded, Prompt
from fairspec_bench.schemas.stages import sweep_keys
from fairspec_bench.scoring.backend import choose, most_steps
from fairspec_bench.suites.suite import Suite, load_suite

CHUNK_BATCHES = 4
CHUNK_LEAST = 8
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class RunPrompts:
    """The prompts of a run, in order, as text and as ids."""

    suites: Mapping[str, Suite]
    prompts: Mapping[str, Prompt]
    encoded: Mapping[str, Encoded]


@dataclass(frozen=True)
class RunContext:
    """A run that is ready to begin."""

    config: RunConfig
    verifier: Model
    drafter: Drafter | None
    codec: Codec
    questions: RunPrompts
    dropped: tuple[Dropped, ...]
    float32_verifier: Callable[[], Model]
    """Loads the same verifier in float32, for as long as the caller keeps it."""
    notes: tuple[str, ...] = ()
    """What a user should know of how prompts are rendered and blocks are run."""


def prepare(ask: RunOptions) -> RunContext:
    """Load and check everything a run needs, the quick checks first. Raises `FairspecError` in one line."""
    check(ask)
    suites = load_suites(ask)
    codec = load_codec(ask)
    questions = encode(suites, codec)
    verifier = load_run_verifier(ask)
    drafter = load_run_drafter(ask, verifier)
    dropped = drop(questions, [model for model in (verifier, drafter.model if drafter else None) if model])
    steps = _steps(ask, questions)
    verifier, word = choose(ask.backend, verifier, drafter, ask.sampling, ask.gamma, steps, ask.seed)
    config = configure(ask, questions, dropped, codec, verifier, drafter)
    notes = (*([word] if word else []), *codec.notes.values())
    in_float32 = partial(load_run_verifier, replace(ask, dtype="float32"))
    return RunContext(config, verifier, drafter, codec, questions, dropped, in_float32, notes)


def load_codec(ask: RunOptions) -> Codec:
    """The verifier's tokenizer, by which prompts become ids. Raises `FairspecError`."""
    return Codec(
        ask.verifier.source,
        revision=ask.verifier.revision,
        chat_template=ask.chat_template,
        chat_template_args=ask.chat_template_args,
    )


def load_suites(ask: RunOptions) -> dict[str, Suite]:
    """The suites asked for, by name."""
    return {
        name: load_suite(
            name,
            languages=ask.languages,
            limit=ask.limit,
            num_fewshot=ask.num_fewshot,
            max_new_tokens=ask.max_new_tokens,
            apply_chat_template=ask.chat_template,
        )
        for name in ask.suites
    }


def encode(suites: Mapping[str, Suite], codec: Codec) -> RunPrompts:
    """All prompts as ids, with what those of a task begin with marked as shared."""
    prompts = {prompt.key: prompt for suite in suites.values() for prompt in suite.prompts}
    encoded = with_prefixes(codec.encode(prompt) for prompt in prompts.values())
    return RunPrompts(suites, prompts, {prompt.key: prompt for prompt in encoded})


def drop(questions: RunPrompts, models: Sequence[Limited]) -> tuple[Dropped, ...]:
    """The prompts that do not fit some model with their `max_new_tokens`. Raises `FairspecError` if none is left."""
    dropped = []
    for key, prompt in questions.encoded.items():
        reasons = (model.refusal(len(prompt.ids), prompt.max_new_tokens) for model in models)
        if reason := next(filter(None, reasons), None):
            dropped.append(Dropped(key=key, reason=reason))
    if len(dropped) == len(questions.encoded):
        raise FairspecError(
            f"no prompt fits: {dropped[0].reason}. Choose another model, --num_fewshot or --max_new_tokens."
        )
    return tuple(dropped)


def chunks(keys: Sequence[str], batch_size: int) -> dict[str, tuple[str, ...]]:
    """Keys cut into chunks, none across tasks: few batches each, so that a kill costs little, yet rows are refilled."""
    size = max(CHUNK_LEAST, CHUNK_BATCHES * batch_size)
    by_task: dict[str, list[str]] = {}
    for key in keys:
        by_task.setdefault(PromptKey(key).task, []).append(key)
    return {
        f"{task}/{start // size:03d}": tuple(mine[start : start + size])
        for task, mine in by_task.items()
        for start in range(0, len(mine), size)
    }


class Described(Protocol):
    """What a run's configuration says of a model."""

    @property
    def identity(self) -> str: ...

    @property
    def parameters(self) -> int | None: ...

    @property
    def backend(self) -> Backend: ...

    @property
    def packed(self) -> bool: ...

    @property
    def generation_config(self) -> Any: ...


class Ends(Described, Protocol):
    """And of a verifier, whose ids end texts."""

    @property
    def eos_ids(self) -> frozenset[int]: ...


class Drafts(Protocol):
    """And of a drafter, with its model if it has one."""

    @property
    def identity(self) -> str | None: ...

    @property
    def model(self) -> Described | None: ...


class Limited(Protocol):
    """What has limits to what it can continue."""

    def refusal(self, prompt: int, max_new_tokens: int) -> str | None: ...


def configure(
    ask: RunOptions,
    questions: RunPrompts,
    dropped: Sequence[Dropped],
    codec: Codec,
    verifier: Ends,
    drafter: Drafts | None,
) -> RunConfig:
    """Everything that decides the lines of this run."""
    out = {line.key for line in dropped}
    hashes = {
        name: {
            language: prompts_sha256(questions.encoded[p.key] for p in suite.prompts if p.language == language)
            for language in suite.languages
        }
        for name, suite in questions.suites.items()
    }
    made = _made(
        RunConfig,
        **ask.recorded
        | {
            "verifier": _model_config(ask.verifier, verifier.identity, verifier),
            "drafter": _model_config(ask.drafter, drafter.identity, drafter.model) if ask.drafter and drafter else None,
            "suites": tuple(suite.config(hashes[name]) for name, suite in questions.suites.items()),
            "tokenizer_sha256": codec.tokenizer_sha256,
            "chunks": chunks([key for key in questions.encoded if key not in out], ask.batch_size),
            "clusters": {key: prompt.cluster for key, prompt in questions.prompts.items()},
            "backend": verifier.backend,
            "float32_check": ask.checks_float32,
            "generation_config_not_followed": not_followed(verifier.generation_config, greedy=ask.sampling.greedy),
            "race_width": ask.race_ends_at,
            "gammas": tuple(sorted({ask.gamma, *ask.gammas})) if ask.sweeps else (),
            "batch_sizes": tuple(sorted({ask.batch_size, *ask.batch_sizes})) if ask.sweeps else (),
            "end_warnings": (
                *unused_end(verifier.eos_ids, codec, ask.verifier.name),
                *lost_stops(questions.prompts.values(), codec, ask.verifier.name),
            ),
            "vocabulary_warnings": drafter.warnings if isinstance(drafter, ModelDrafter) else (),
        },
    )
    _check_sweeps(made)
    return made


def unused_end(eos_ids: frozenset[int], codec: Codec, name: str) -> tuple[str, ...]:
    """A line where the model names no end-of-text id, or not the one that its tokenizer calls so."""
    token, own = codec.tokenizer.eos_token, codec.tokenizer.eos_token_id
    if eos_ids and (own is None or own in eos_ids):
        return ()
    ends = f"end-of-text id {', '.join(map(str, sorted(eos_ids)))}" if eos_ids else "no end-of-text id"
    other = "" if own is None else f"; its tokenizer's {token!a} (id {own}) ends no text"
    return (f"{name} names {ends}{other}. Set eos_token_id in its generation_config.json if that is wrong.",)


def lost_stops(prompts: Iterable[Prompt], codec: Codec, name: str) -> tuple[str, ...]:
    """A line for each stop string of a suite at which texts cannot end, because the tokenizer loses it."""
    lost: dict[tuple[str, str], list[str]] = {}
    for prompt in prompts:
        for stop in filter(codec.loses, prompt.stops):
            languages = lost.setdefault((prompt.suite, stop), [])
            if prompt.language not in languages:
                languages.append(prompt.language)
    return tuple(
        f"{suite} ({', '.join(languages)}): the tokenizer of {name} cannot write the stop string {stop!a}; "
        "no text ends there."
        for (suite, stop), languages in lost.items()
    )


def _check_sweeps(config: RunConfig) -> None:
    """Refuse a batch that half of a task's raced prompts cannot fill: it would be timed as what it is not."""
    largest = max(config.batch_sizes, default=0)
    for chunk, keys in sweep_keys(config).items():
        if len(keys) // 2 < largest:
            raise FairspecError(
                f"batch_size={largest}: half of the {len(keys)} raced prompts of {PromptKey(chunk).task} do not "
                f"fill it. Sweep smaller ones, or raise --limit and --race_prompts to {2 * largest}."
            )
    if config.gammas and not sweep_keys(config):
        raise FairspecError("race_prompts=0: a sweep is timed on raced prompts. Give more.")


def _steps(ask: RunOptions, questions: RunPrompts) -> int:
    """Steps of the verifier, at most, that the run will take."""
    limits: dict[str, list[int]] = {}
    for prompt in questions.encoded.values():
        limits.setdefault(prompt.group, []).append(prompt.max_new_tokens)
    raced = (
        [max_new_tokens for mine in limits.values() for max_new_tokens in mine[: ask.race_prompts]]
        if ask.drafter
        else []
    )
    return most_steps(
        (max_new_tokens for mine in limits.values() for max_new_tokens in mine), ask.batch_size, raced, ask.race_rounds
    )


def load_run_verifier(ask: RunOptions) -> Model:
    """The verifier under the name it was asked for by. Raises `FairspecError`."""
    wanted = ask.verifier
    loaded = load_model(
        wanted.source, revision=wanted.revision, dtype=ask.dtype, device=ask.device, options=wanted.options
    )
    return replace(loaded, name=wanted.name)


def load_run_drafter(ask: RunOptions, verifier: Model) -> Drafter | None:
    """The drafter likewise, checked to fit the verifier. Raises `FairspecError`."""
    if ask.drafter is None:
        return None
    wanted = ask.drafter
    return load_drafter(
        wanted.kind,
        wanted.source,
        wanted.options,
        verifier,
        name=wanted.name,
        revision=wanted.revision,
        dtype=ask.dtype,
        device=ask.device,
    )


def _model_config(ask: ModelSpec, identity: str | None, model: Described | None) -> ModelConfig:
    kind = drafter_kind(ask.kind)
    return _made(
        ModelConfig,
        name=ask.name,
        kind=ask.kind,
        revision=identity,
        parameters=model.parameters if model else None,
        options=dict(ask.options),
        proper=kind.proper,
        answers=kind.answers,
        packed=bool(model and model.packed),
    )


def _made(record: type[R], /, **values: Any) -> R:
    try:
        return record(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise FairspecError(f"{'.'.join(map(str, first['loc']))}={first.get('input')}: {first['msg']}.") from None
