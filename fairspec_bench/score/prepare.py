"""From what a user asks to what will be run: prompts as ids, the ones that do not fit left out, shards, configuration.

Knows suites, the codec and models' limits. Makes no tokens and writes no files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from fairspec_bench.codec import Codec, prompts_sha256
from fairspec_bench.engine.backends import BACKENDS
from fairspec_bench.engine.drafters import DRAFTERS, load_drafter
from fairspec_bench.engine.drafting import Drafter, kind_of
from fairspec_bench.engine.model import DTYPES, MAX_GAMMA, Model, load_model
from fairspec_bench.records import (
    MOST_SWEPT,
    Backend,
    Dropped,
    Encoded,
    FairspecError,
    ModelConfig,
    Prompt,
    Record,
    Rule,
    RunConfig,
)
from fairspec_bench.score.backend import choose, most_steps
from fairspec_bench.score.folder import sweep_keys
from fairspec_bench.suite.tasks import Suite, load_suite

RACE_WIDTH = 0.03
SHARD_BATCHES = 4
SHARD_LEAST = 8
GREEDY = Rule()
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class ModelAsk:
    """A model as asked for: `name` is what reports call it, `source` the folder or Hub id where it lies."""

    name: str
    source: str
    kind: str = "model"
    revision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """Everything a user can say about a run. `None` leaves a suite's own value; `race_prompts=None` races all.

    `float32_check`: whether greedy texts of a half type are held against the float32 verifier's; `None`: they are.
    `race_width`: to what share of itself a language's speed-up must be known for its race to end, 0: it does not end
    by that; `None`: 0.03, or 0 for a part of a run, which knows only its own timings. `race_budget`: seconds. `gammas`
    and `batch_sizes` beside the run's own are swept. `backend`: how blocks are run, `None`: as pays here.
    """

    verifier: ModelAsk
    drafter: ModelAsk | None
    suites: tuple[str, ...]
    languages: tuple[str, ...] | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    cap: int | None = None
    gamma: int = 4
    rule: Rule = GREEDY
    seed: int = 0
    batch_size: int = 8
    dtype: str = "float32"
    device: str = "cpu"
    chat_template: bool = False
    race_prompts: int | None = 50
    race_rounds: int = 5
    part: tuple[int, int] | None = None
    float32_check: bool | None = None
    race_width: float | None = None
    race_budget: float | None = None
    gammas: tuple[int, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    backend: Backend | None = None

    @property
    def race_ends_at(self) -> float | None:
        """The width at which a race ends, `None` if none does, or there is none."""
        if not self.race_rounds or self.drafter is None:
            return None
        if self.race_width is None:
            return None if self.part else RACE_WIDTH
        return self.race_width or None

    @property
    def sweeps(self) -> bool:
        """Whether there is another γ or batch size beside the run's own."""
        return bool({*self.gammas} - {self.gamma} or {*self.batch_sizes} - {self.batch_size})

    @property
    def checks_float32(self) -> bool:
        """Whether the texts are held against the float32 verifier's: by default where they could differ."""
        half = self.dtype != "float32" and self.rule.greedy
        return half if self.float32_check is None else self.float32_check


@dataclass(frozen=True)
class Questions:
    """The prompts of a run, in order, as text and as ids."""

    suites: Mapping[str, Suite]
    prompts: Mapping[str, Prompt]
    encoded: Mapping[str, Encoded]


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to begin."""

    config: RunConfig
    verifier: Model
    drafter: Drafter | None
    codec: Codec
    questions: Questions
    dropped: tuple[Dropped, ...]
    float32_verifier: Callable[[], Model]
    """Loads the same verifier in float32, for as long as the caller keeps it."""
    note: str | None = None
    """What a user should know of how blocks are run."""


def model_ask(text: str, source: str | None = None, options: Mapping[str, Any] | None = None) -> ModelAsk:
    """A causal LM by folder or Hub id; the option `revision` is its commit on the Hub."""
    rest = dict(options or {})
    revision = rest.pop("revision", None)
    return ModelAsk(text, source or text, revision=None if revision is None else str(revision), options=rest)


def drafter_ask(text: str, source: str | None = None, options: Mapping[str, Any] | None = None) -> ModelAsk:
    """A drafter as written on a command line: a folder, a Hub id, `lookup`, `lookup:3`, `oracle` or `oracle:0.8`.

    A folder may say of what kind it is (`fairspec_drafter.json`); else it is a model's. Raises `FairspecError`.
    """
    kind, _, value = text.partition(":")
    setting = DRAFTERS[kind].value if kind in DRAFTERS and source is None else None
    if setting is None:
        asked = model_ask(text, source, options)
        return replace(asked, kind=kind_of(Path(asked.source).expanduser()) or asked.kind)
    given = dict(options or {})
    if value:
        try:
            given[setting.option] = setting.read(value)
        except ValueError:
            example = f"{kind}:{setting.example}"
            raise FairspecError(f"{text}: {value!r} is no {setting.option}. Example: {example}.") from None
    return ModelAsk(kind, kind, kind, options=given)


def prepare(ask: Ask) -> Prepared:
    """Load and check everything a run needs, the quick checks first. Raises `FairspecError` in one line."""
    check(ask)
    suites = load_suites(ask)
    codec = Codec(ask.verifier.source, revision=ask.verifier.revision, chat_template=ask.chat_template)
    questions = encode(suites, codec)
    verifier = load_verifier_asked(ask)
    drafter = load_drafter_asked(ask, verifier)
    dropped = drop(questions, [model for model in (verifier, drafter.model if drafter else None) if model])
    backend, word = choose(ask.backend, verifier, drafter, ask.rule, ask.gamma, _steps(ask, questions))
    verifier = replace(verifier, backend=backend)
    config = configure(ask, questions, dropped, codec, verifier, drafter)
    in_float32 = partial(load_verifier_asked, replace(ask, dtype="float32"))
    return Prepared(config, verifier, drafter, codec, questions, dropped, in_float32, word)


def check(ask: Ask) -> None:
    """Refuse what can be refused before anything is loaded."""
    for name, value, least in (
        ("batch_size", ask.batch_size, 1),
        ("race_rounds", ask.race_rounds, 0),
        ("race_prompts", ask.race_prompts or 0, 0),
        *(("gamma", gamma, 1) for gamma in (ask.gamma, *ask.gammas)),
        *(("batch_size", size, 1) for size in ask.batch_sizes),
        ("race_width", ask.race_width or 0, 0),
    ):
        if value < least:
            raise FairspecError(f"{name}={value}: must be at least {least}.")
    if (most := max(ask.gamma, *ask.gammas, 0)) > MAX_GAMMA:
        raise FairspecError(f"gamma={most}: must be at most {MAX_GAMMA}.")
    if ask.race_budget is not None and not ask.race_budget > 0:
        raise FairspecError(f"race_budget={ask.race_budget:g}: must be more than 0 seconds.")
    _check_whole(ask)
    if ask.backend not in (None, *BACKENDS):
        raise FairspecError(f"backend={ask.backend}: unknown. Known: {', '.join(BACKENDS)}.")
    if ask.dtype not in DTYPES:
        raise FairspecError(f"dtype={ask.dtype}: unknown. Known: {', '.join(DTYPES)}.")
    if ask.float32_check and ask.dtype == "float32":
        raise FairspecError("float32_check: the run is in float32 itself. Leave it out, or choose another --dtype.")
    if ask.float32_check and not ask.rule.greedy:
        raise FairspecError("float32_check: of greedy texts only. Leave it out, or give --temperature 0.")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", ask.device):
        raise FairspecError(f"device={ask.device}: unknown. Known: cpu, cuda, cuda:N.")
    if ask.part and not 1 <= ask.part[0] <= ask.part[1]:
        raise FairspecError(f"shard {ask.part[0]}/{ask.part[1]}: the first number must be from 1 to the second.")
    if not ask.suites:
        raise FairspecError("no suite chosen. Give --suite NAME; `fairspec tasks` lists them.")
    if len(set(ask.suites)) < len(ask.suites):
        raise FairspecError("a suite is given twice. Name each once.")


def _check_whole(ask: Ask) -> None:
    """Refuse what a part of a run cannot do, and sweeps of nothing."""
    for name, asked in (("race_width", ask.race_width), ("race_budget", ask.race_budget), ("a sweep", ask.sweeps)):
        if asked and ask.part:
            raise FairspecError(f"{name}: needs the whole race of a language, a part has not. Leave out it or --shard.")
    if not ask.sweeps:
        return
    if ask.drafter is None:
        raise FairspecError("a sweep: compares with and without a drafter. Name a drafter, or give one batch size.")
    if not ask.race_rounds:
        raise FairspecError("race_rounds=0: a sweep is timed in rounds. Give at least 1, or one gamma and batch_size.")
    for name, values in (("gamma", ask.gammas), ("batch_size", ask.batch_sizes)):
        if len(set(values)) > MOST_SWEPT:
            raise FairspecError(f"{name}: {len(set(values))} values. At most {MOST_SWEPT} are swept.")


def load_suites(ask: Ask) -> dict[str, Suite]:
    """The suites asked for, by name."""
    return {
        name: load_suite(
            name,
            languages=ask.languages,
            limit=ask.limit,
            num_fewshot=ask.num_fewshot,
            cap=ask.cap,
            apply_chat_template=ask.chat_template,
        )
        for name in ask.suites
    }


def encode(suites: Mapping[str, Suite], codec: Codec) -> Questions:
    """All prompts as ids."""
    prompts = {prompt.key: prompt for suite in suites.values() for prompt in suite.prompts}
    return Questions(suites, prompts, {key: codec.encode(prompt) for key, prompt in prompts.items()})


def drop(questions: Questions, models: Sequence[Limited]) -> tuple[Dropped, ...]:
    """The prompts that some model cannot continue up to their cap. Raises `FairspecError` if none is left."""
    dropped = []
    for key, prompt in questions.encoded.items():
        reasons = (model.refusal(len(prompt.ids), prompt.cap) for model in models)
        if reason := next(filter(None, reasons), None):
            dropped.append(Dropped(key=key, reason=reason))
    if len(dropped) == len(questions.encoded):
        raise FairspecError(f"no prompt fits: {dropped[0].reason}. Choose another model, --num_fewshot or --cap.")
    return tuple(dropped)


def shards(keys: Sequence[str], batch_size: int) -> dict[str, tuple[str, ...]]:
    """Keys cut into shards, none across tasks: few batches each, so that a kill costs little, yet rows are refilled."""
    size = max(SHARD_LEAST, SHARD_BATCHES * batch_size)
    by_task: dict[str, list[str]] = {}
    for key in keys:
        by_task.setdefault(key.rpartition("/")[0], []).append(key)
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


class Drafts(Protocol):
    """And of a drafter, with its model if it has one."""

    @property
    def identity(self) -> str | None: ...

    @property
    def model(self) -> Described | None: ...


class Limited(Protocol):
    """What has limits to what it can continue."""

    def refusal(self, prompt: int, cap: int) -> str | None: ...


def configure(
    ask: Ask,
    questions: Questions,
    dropped: Sequence[Dropped],
    codec: Codec,
    verifier: Described,
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
        verifier=_model_config(ask.verifier, verifier.identity, verifier),
        drafter=_model_config(ask.drafter, drafter.identity, drafter.model) if ask.drafter and drafter else None,
        suites=tuple(suite.config(hashes[name]) for name, suite in questions.suites.items()),
        tokenizer_sha256=codec.tokenizer_sha256,
        chat_template=ask.chat_template,
        rule=ask.rule,
        gamma=ask.gamma,
        seed=ask.seed,
        batch_size=ask.batch_size,
        dtype=ask.dtype,
        device=ask.device,
        race_prompts=ask.race_prompts,
        race_rounds=ask.race_rounds,
        shards=shards([key for key in questions.encoded if key not in out], ask.batch_size),
        clusters={key: prompt.cluster for key, prompt in questions.prompts.items()},
        part=ask.part,
        backend=verifier.backend,
        float32_check=ask.checks_float32,
        race_width=ask.race_ends_at,
        race_budget=ask.race_budget,
        gammas=tuple(sorted({ask.gamma, *ask.gammas})) if ask.sweeps else (),
        batch_sizes=tuple(sorted({ask.batch_size, *ask.batch_sizes})) if ask.sweeps else (),
    )
    _check_sweeps(made)
    return made


def _check_sweeps(config: RunConfig) -> None:
    """Refuse a batch that half of a task's raced prompts cannot fill: it would be timed as what it is not."""
    largest = max(config.batch_sizes, default=0)
    for shard, keys in sweep_keys(config).items():
        if len(keys) // 2 < largest:
            raise FairspecError(
                f"batch_size={largest}: half of the {len(keys)} raced prompts of {shard.rpartition('/')[0]} do not "
                f"fill it. Sweep smaller ones, or raise --limit and --race_prompts to {2 * largest}."
            )
    if config.gammas and not sweep_keys(config):
        raise FairspecError("race_prompts=0: a sweep is timed on raced prompts. Give more.")


def _steps(ask: Ask, questions: Questions) -> int:
    """Steps of the verifier, at most, that the run will take."""
    caps: dict[str, list[int]] = {}
    for prompt in questions.encoded.values():
        caps.setdefault(prompt.group, []).append(prompt.cap)
    raced = [cap for mine in caps.values() for cap in mine[: ask.race_prompts]] if ask.drafter else []
    return most_steps((cap for mine in caps.values() for cap in mine), ask.batch_size, raced, ask.race_rounds)


def load_verifier_asked(ask: Ask) -> Model:
    """The verifier under the name it was asked for by. Raises `FairspecError`."""
    wanted = ask.verifier
    loaded = load_model(
        wanted.source, revision=wanted.revision, dtype=ask.dtype, device=ask.device, options=wanted.options
    )
    return replace(loaded, name=wanted.name)


def load_drafter_asked(ask: Ask, verifier: Model) -> Drafter | None:
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


def _model_config(ask: ModelAsk, identity: str | None, model: Described | None) -> ModelConfig:
    return _made(
        ModelConfig,
        name=ask.name,
        kind=ask.kind,
        revision=identity,
        parameters=model.parameters if model else None,
        options=dict(ask.options),
    )


def make_rule(temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0) -> Rule:
    """A decoding rule from a user's numbers. Raises `FairspecError` for one out of range."""
    return _made(Rule, temperature=temperature, top_k=top_k, top_p=top_p)


def _made(record: type[R], /, **values: Any) -> R:
    try:
        return record(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise FairspecError(f"{'.'.join(map(str, first['loc']))}={first.get('input')}: {first['msg']}.") from None
