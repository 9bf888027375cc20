"""Every option of a run and of fine-tuning, declared once: type, default, range, help, group, where it is recorded.

The command line (`cli.parameters`), the Python signatures (`takes`), the checks (`check_values`) and docs/OPTIONS.md
follow from the fields below, so that a new option is one line here. Imports nothing heavy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from fairspec_bench.schemas.backends import BACKENDS
from fairspec_bench.schemas.base import FairspecError, Option, unknown
from fairspec_bench.schemas.config import MAX_GAMMA, MOST_SWEPT, Backend, Dtype, Executor, SamplingParams

RACE_WIDTH = 0.03
GREEDY = SamplingParams()
Arguments = Mapping[str, str | int | float | bool]
"""Further options of a model, as in `--model_args revision=main,attention=eager`."""


# --------------------------------------------------------------------------- options that several commands share

Verifier = Annotated[str, Option("Folder, Hub id or embedded:verifier.", argument=True)]
Drafter = Annotated[
    str | None, Option("Folder, Hub id, embedded:drafter, lookup, lookup:3 or oracle:0.8.", argument=True)
]
ModelArgs = Annotated[
    Arguments | None, Option("k=v,k=v for the verifier: revision, quantization… (docs/MODELS.md).", "Models")
]
DrafterArgs = Annotated[Arguments | None, Option("k=v,k=v for the drafter.", "Models")]
Device = Annotated[
    str, Field(pattern=r"^(cpu|cuda(:\d+)?)$"), Option("cpu, cuda or cuda:N.", "Models", recorded="device")
]
DTYPE = Option("float32, bfloat16 or float16. auto: bfloat16 on a GPU, else float32.", "Models", recorded="dtype")
Languages = Annotated[
    tuple[str, ...] | None,
    Option("Languages, comma-separated. Default: the suite's own.", "Prompts", "suites.languages"),
]
Limit = Annotated[
    int | None, Field(ge=1), Option("Only the first N prompts of each language.", "Prompts", "suites.limit")
]
MaxNewTokens = Annotated[
    int | None,
    Field(ge=1),
    Option("Most output tokens. Default: the suite's own.", "Prompts", "suites.max_new_tokens"),
]
ChatTemplate = Annotated[
    bool,
    Option(
        "Render prompts with the tokenizer's chat template.", "Prompts", "chat_template", name="apply_chat_template"
    ),
]
ChatTemplateArgs = Annotated[
    dict[str, JsonValue] | None,
    Option(
        'What else the template reads, as a JSON object: {"enable_thinking": false}.', "Prompts", "chat_template_args"
    ),
]
BATCH_SIZE = "Rows decoded together."


# --------------------------------------------------------------------------- a run


@dataclass(frozen=True)
class ModelSpec:
    """A model as requested: `name` is what reports call it, `source` the folder or Hub id that holds it."""

    name: str
    source: str
    kind: str = "model"
    revision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def model_spec(text: str, source: str | None = None, options: Mapping[str, Any] | None = None) -> ModelSpec:
    """A causal LM by folder or Hub id; the option `revision` is its commit on the Hub."""
    rest = dict(options or {})
    revision = rest.pop("revision", None)
    return ModelSpec(text, source or text, revision=None if revision is None else str(revision), options=rest)


@dataclass(frozen=True)
class PairOptions:
    """The two models, as given; `RunOptions` holds what they resolve to."""

    verifier: Verifier
    drafter: Drafter
    model_args: ModelArgs = None
    drafter_args: DrafterArgs = None


@dataclass(frozen=True)
class RunOptions:
    """The options of a run.

    `None` means: the suite's own value (`languages`, `limit`, `num_fewshot`, `max_new_tokens`), all prompts
    (`race_prompts`), whichever backend is expected to be fastest (`backend`). Several values of `gamma` or
    `batch_size`: the first is the run's own, the others, in `gammas` and `batch_sizes`, are swept.
    """

    verifier: ModelSpec
    drafter: ModelSpec | None
    suites: Annotated[
        tuple[str, ...],
        Option("A suite; repeatable. `fairspec tasks` lists them.", "Prompts", "suites", name="suite", repeat=True),
    ]
    languages: Languages = None
    limit: Limit = None
    num_fewshot: Annotated[
        int | None, Field(ge=0), Option("Exemplars. Default: the suite's own.", "Prompts", "suites.num_fewshot")
    ] = None
    max_new_tokens: MaxNewTokens = None
    chat_template: ChatTemplate = False
    chat_template_args: ChatTemplateArgs = None
    gamma: Annotated[
        int,
        Field(ge=1, le=MAX_GAMMA),
        Option(
            "Drafts per block. Of 4,1,2 the first is the run's, all are swept.", "Decoding", "gamma", sweep="gammas"
        ),
    ] = 4
    batch_size: Annotated[
        int,
        Field(ge=1),
        Option(
            f"{BATCH_SIZE} Of 8,1,4 the first is the run's, all are swept.",
            "Decoding",
            "batch_size",
            "",
            "batch_sizes",
        ),
    ] = 8
    sampling: SamplingParams = GREEDY
    seed: Annotated[int, Option("Seed of sampling and of the order of the races.", "Decoding", "seed")] = 0
    device: Device = "cpu"
    dtype: Annotated[Literal["auto"] | Dtype, DTYPE] = "auto"
    backend: Annotated[
        Backend | None,
        Option(
            "How blocks are run: eager, compile, graph; or an engine: vllm, llamacpp, sglang. auto: the fastest here.",
            "Models",
            "backend",
            choices=tuple(BACKENDS),
        ),
    ] = None
    float32_check: Annotated[
        bool | None,
        Option(
            "Whether greedy outputs of a half type are compared with float32's, which loads the verifier in float32 "
            "too. Default: if half.",
            "Models",
            "float32_check",
        ),
    ] = None
    race_prompts: Annotated[
        int | None, Field(ge=0), Option("Prompts per language that are timed.", "Timing", "race_prompts")
    ] = 50
    race_rounds: Annotated[
        int, Field(ge=0), Option("Rounds of each race; 0: nothing is timed.", "Timing", "race_rounds")
    ] = 5
    race_width: Annotated[
        float | None,
        Field(ge=0),
        Option(
            "A language's race ends once its speed-up is known to ± this share of itself; 0: with its prompts. "
            f"Default: {RACE_WIDTH}, or 0 with --shard.",
            "Timing",
            "race_width",
        ),
    ] = None
    race_budget: Annotated[
        float | None, Field(gt=0), Option("Or once so many seconds of a language are timed.", "Timing", "race_budget")
    ] = None
    shard: Annotated[
        tuple[int, int] | None,
        Option("i/n: only the i-th of n shards; `fairspec merge` joins them.", "Where", "shard"),
    ] = None
    gammas: tuple[int, ...] = ()
    batch_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for option, rest in (("gamma", "gammas"), ("batch_size", "batch_sizes")):
            if isinstance(values := getattr(self, option), tuple):
                if not values:
                    raise FairspecError(f"{option}: no value. Give at least one.")
                object.__setattr__(self, option, values[0])
                object.__setattr__(self, rest, values[1:])
        if self.backend == "auto":
            object.__setattr__(self, "backend", None)
        if self.dtype == "auto":
            object.__setattr__(self, "dtype", "bfloat16" if self.device.startswith("cuda") else "float32")

    @property
    def race_ends_at(self) -> float | None:
        """The relative width at which a race ends; `None` if no width ends it, or there is no race."""
        if not self.race_rounds or self.drafter is None:
            return None
        if self.race_width is None:
            return None if self.shard else RACE_WIDTH
        return self.race_width or None

    @property
    def sweeps(self) -> bool:
        """Whether there is another γ or batch size beside the run's own."""
        return bool({*self.gammas} - {self.gamma} or {*self.batch_sizes} - {self.batch_size})

    @property
    def checks_float32(self) -> bool:
        """Whether outputs are compared with the float32 verifier's: by default where they could differ."""
        half = self.dtype != "float32" and self.sampling.greedy
        return half if self.float32_check is None else self.float32_check

    @property
    def recorded(self) -> dict[str, Any]:
        """The fields of `run.json` that hold an option as it was given."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if (option := _declared(type(self)).get(each.name)) and option.recorded == each.name
        } | {"sampling": self.sampling}


@dataclass(frozen=True)
class ExecutionOptions:
    """Where a run is written, and which executor makes it."""

    out: Annotated[Path | None, Option("Run folder. Default: runs/VERIFIER--DRAFTER.", "Where")] = None
    executor: Annotated[Executor, Option("Which executor: local, or ray (docs/SCALING.md).", "Where")] = "local"
    workers: Annotated[
        int | None, Field(ge=1), Option("With --executor ray. Default: one a GPU, or one a machine.", "Where")
    ] = None


# --------------------------------------------------------------------------- fine-tuning, auditing, reproducing


@dataclass(frozen=True)
class MitigateOptions:
    """How a drafter is fine-tuned on the verifier's own output."""

    verifier: Verifier
    drafter: Annotated[str, Option("Folder, Hub id or embedded:drafter: a model.", argument=True)]
    method: Annotated[str, Option("`fairspec methods` lists them.", "Training")] = "s-cdf"
    out: Annotated[
        Path | None, Option("Folder of the fine-tuned drafter. Default: drafters/DRAFTER-METHOD.", "Where")
    ] = None
    prompts: Annotated[
        tuple[str, ...],
        Option("embedded_math, embedded_story or a folder of <task>.txt; repeatable.", "Prompts", repeat=True),
    ] = ()
    languages: Annotated[
        tuple[str, ...] | None, Option("Tasks, comma-separated. Default: all of --prompts.", "Prompts")
    ] = None
    limit: Annotated[
        int | None, Field(ge=1), Option("Most prompts per task; a fifth is held out. Default: 80.", "Prompts")
    ] = None
    max_new_tokens: MaxNewTokens = None
    chat_template: ChatTemplate = False
    chat_template_args: ChatTemplateArgs = None
    steps: Annotated[int, Field(ge=1), Option("Training steps.", "Training")] = 60
    lr: Annotated[
        float | None, Field(gt=0), Option("Learning rate. Default: 2e-3 for the embedded pair, else 2e-5.", "Training")
    ] = None
    per_task: Annotated[int, Field(ge=1), Option("Prompts of each task in a step.", "Training")] = 3
    seed: Annotated[int, Option("Seed of the batches.", "Training")] = 0
    lora: Annotated[
        int | None, Field(ge=1), Option("Train adapters of this rank instead (needs peft).", "Training")
    ] = None
    batch_size: Annotated[int, Field(ge=1), Option(BATCH_SIZE, "Models")] = 48
    device: Device = "cpu"
    dtype: Annotated[Dtype, DTYPE] = "float32"
    model_args: ModelArgs = None
    drafter_args: DrafterArgs = None


@dataclass(frozen=True)
class ReproduceOptions:
    """What `reproduce` adds to the options of a run."""

    pair: Annotated[str, Option("A pair of `fairspec pairs`, or VERIFIER,DRAFTER.", argument=True)] = "embedded"
    out: Annotated[Path | None, Option("Folder. Default: runs/reproduce-PAIR.", "Where")] = None
    suites: Annotated[
        tuple[str, ...], Option("Default: the pair's own suites.", "Prompts", name="suite", repeat=True)
    ] = ()
    prompts: Annotated[
        tuple[str, ...],
        Option("Fine-tune on a folder of <task>.txt; the embedded pair has its own.", "Training", repeat=True),
    ] = ()
    seeds: Annotated[int, Field(ge=0), Option("How many times the drafter is fine-tuned.", "Training")] = 3
    steps: Annotated[int, Field(ge=1), Option("Training steps of each.", "Training")] = 60
    lr: Annotated[
        float | None, Field(gt=0), Option("Learning rate. Default: 2e-3 for the embedded pair, else 2e-5.", "Training")
    ] = None
    training_limit: Annotated[int | None, Field(ge=1), Option("Most training prompts a task.", "Training")] = None
    others: Annotated[
        tuple[Path, ...],
        Option(
            "Run folder of another pair, to compare the order of languages; repeatable.",
            "Claims",
            name="other",
            repeat=True,
        ),
    ] = ()


@dataclass(frozen=True)
class AuditOptions:
    """What `submit audit` samples."""

    auditor: Annotated[str, Option("Who audits; shown on the board.", "Audit")]
    sample: Annotated[
        int,
        Field(ge=1),
        Option("Prompts of each language scored again; fewer give no mark of audited drafts.", "Audit"),
    ] = 45
    fresh: Annotated[int, Field(ge=0), Option("Unseen prompts of each language; 0 for none.", "Audit")] = 10
    races: Annotated[int, Field(ge=0), Option("Raced prompts of each language raced again; 0 for none.", "Audit")] = 1
    private: Annotated[
        Path | None,
        Option(
            "Folder of <language>.txt, a question a line, that no submitter has seen. Not for embedded suites.", "Audit"
        ),
    ] = None
    seed: Annotated[int | None, Option("Of the sample. Default: drawn now.", "Audit")] = None


# --------------------------------------------------------------------------- what follows from the declarations


@dataclass(frozen=True)
class Parameter:
    """A declared option: its name in commands and Python, its type with constraints, default and `Option`."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is MISSING

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it may have, where they are few: `auto` stands for `None`."""
        alternatives = [alternative for alternative in _alternatives(self.plain) if get_origin(alternative) is Literal]
        values = self.option.choices or tuple(value for each in alternatives for value in get_args(each))
        return ("auto", *values) if values and type(None) in _alternatives(self.plain) else values

    @property
    def plain(self) -> Any:
        """Its type without constraints."""
        return get_args(self.type)[0] if get_origin(self.type) is Annotated else self.type

    @property
    def python(self) -> Any:
        """Its type in Python, where a swept option also takes several values."""
        several: Any = Sequence
        return self.plain | several[self.plain] if self.option.sweep else self.plain

    @property
    def range(self) -> str:
        """The constraint on its value in a few words, empty where there is none."""
        bounds = {
            key: value
            for item in getattr(self.type, "__metadata__", ())
            for part in getattr(item, "metadata", ())
            for key in ("ge", "gt", "le")
            if (value := getattr(part, key, None)) is not None
        }
        words = {"ge": "at least", "gt": "more than", "le": "at most"}
        return ", ".join(f"{words[key]} {value}" for key, value in bounds.items())

    def check(self, value: Any) -> None:
        """Raises `FairspecError` for a value of the wrong type or out of range."""
        if self.option.sweep and isinstance(value, tuple | list):
            for each in value:
                self.check(each)
            return
        if self.choices and isinstance(value, str) and value not in self.choices:
            raise unknown(self.name, value, self.choices)
        try:
            _adapter(self.type).validate_python(value)
        except ValidationError as error:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise FairspecError(f"{self.name}={shown}: {_why(error)}.") from None


def parameters(declaration: type, only: Iterable[str] = ()) -> tuple[Parameter, ...]:
    """The options that a dataclass or record declares, those of a nested `SamplingParams` among them.

    `only` keeps those with these names.
    """
    wanted = set(only)
    found = tuple(_parameters(declaration))
    return tuple(each for each in found if each.name in wanted) if wanted else found


def unswept(parameter: Parameter) -> Parameter:
    """The same option with one value only."""
    return replace(parameter, option=replace(parameter.option, help=parameter.option.help.split(" Of ")[0], sweep=""))


def sampling_params(temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0) -> SamplingParams:
    """The sampling parameters of these values. Raises `FairspecError` for one out of range."""
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    for each in parameters(SamplingParams):
        each.check(given[each.name])
    return SamplingParams(temperature=float(temperature), top_k=top_k, top_p=float(top_p))


def check_values(options: Any) -> None:
    """Check each declared option of an instance. Raises `FairspecError`."""
    hints = _hints(type(options))
    for each in fields(options):
        if option := _declared(type(options)).get(each.name):
            value = getattr(options, each.name)
            swept = getattr(options, option.sweep) if option.sweep else ()
            Parameter(option.name or each.name, hints[each.name], each.default, option).check(
                (value, *swept) if swept else value
            )


def check(options: RunOptions) -> None:
    """Refuse whatever can be refused before anything is loaded. Raises `FairspecError`."""
    check_values(options)
    if options.float32_check and options.dtype == "float32":
        raise FairspecError("float32_check: the run is in float32 itself. Leave it out, or choose another --dtype.")
    if options.float32_check and not options.sampling.greedy:
        raise FairspecError("float32_check: of greedy outputs only. Leave it out, or give --temperature 0.")
    if options.shard and not 1 <= options.shard[0] <= options.shard[1]:
        raise FairspecError(f"shard {options.shard[0]}/{options.shard[1]}: must be i/n with 1 <= i <= n.")
    check_chat_template(options)
    if not options.suites:
        raise FairspecError("no suite chosen. Give --suite NAME; `fairspec tasks` lists them.")
    if len(set(options.suites)) < len(options.suites):
        raise FairspecError("a suite is given twice. Name each once.")
    if options.languages == ():
        raise FairspecError("no language chosen. Name one, or leave --languages out.")
    _check_sweep(options)


def check_chat_template(options: RunOptions | MitigateOptions) -> None:
    """Raises `FairspecError` for arguments of a chat template that is not used."""
    if options.chat_template_args is not None and not options.chat_template:
        raise FairspecError("chat_template_args: only with a chat template. Give --apply_chat_template too.")


def _check_sweep(options: RunOptions) -> None:
    """Refuse what a shard cannot do, and sweeps of nothing."""
    whole = {"race_width": options.race_width, "race_budget": options.race_budget, "a sweep": options.sweeps}
    for name, given in whole.items():
        if given and options.shard:
            raise FairspecError(f"{name}: needs the whole race of a language. Leave out it or --shard.")
    if not options.sweeps:
        return
    if options.drafter is None:
        raise FairspecError("a sweep: compares with and without a drafter. Name a drafter, or give one batch size.")
    if not options.race_rounds:
        raise FairspecError("race_rounds=0: a sweep is timed in rounds. Give at least 1, or one gamma and batch_size.")
    for name, values in (("gamma", options.gammas), ("batch_size", options.batch_sizes)):
        if len(set(values)) > MOST_SWEPT:
            raise FairspecError(f"{name}: {len(set(values))} values. At most {MOST_SWEPT} are swept.")


F = TypeVar("F", bound=Callable[..., Any])


def takes(*declared: Parameter) -> Callable[[F], F]:
    """Show in a function's signature the options with a default that it takes as `**options`."""

    def show(function: F) -> F:
        own = inspect.signature(function, eval_str=False).parameters.values()
        shown = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=each.default,
                annotation=each.python,
            )
            for each in declared
            if not each.required and each.name not in {parameter.name for parameter in own}
        ]
        kept = [parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD]
        signature = inspect.signature(function, eval_str=False)
        function.__signature__ = signature.replace(parameters=[*kept, *shown])  # type: ignore[attr-defined]
        return function

    return show


def named(declaration: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options under the names of commands and Python → the fields of `declaration`; lists become tuples.

    Raises `FairspecError` for an option that is not declared.
    """
    known = {option.name or name: name for name, option in _declared(declaration).items()}
    for name in given:
        if name not in known:
            raise unknown("option", name, known)
    return {known[name]: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _parameters(declaration: type) -> Iterator[Parameter]:
    hints = _hints(declaration)
    defaults: dict[str, Any] = (
        {each.name: each.default for each in fields(declaration)}
        if is_dataclass(declaration)
        else {name: info.default for name, info in declaration.model_fields.items()}  # type: ignore[attr-defined]
    )
    declared = _declared(declaration)
    for name, default in defaults.items():
        if hints[name] is SamplingParams:
            yield from _parameters(SamplingParams)
        elif option := declared.get(name):
            yield Parameter(option.name or name, hints[name], default, option)


def _hints(declaration: type) -> dict[str, Any]:
    return get_type_hints(declaration, include_extras=True)


def _declared(declaration: type) -> dict[str, Option]:
    """The `Option` of each field that has one."""
    return {
        name: item
        for name, hint in _hints(declaration).items()
        for item in getattr(hint, "__metadata__", ())
        if isinstance(item, Option)
    }


def _alternatives(plain: Any) -> tuple[Any, ...]:
    return (plain,) if get_origin(plain) is Literal else get_args(plain) or (plain,)


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def _why(error: ValidationError) -> str:
    """What is wrong with a value, in the words of this package."""
    first = next(each for each in error.errors(include_url=False) if each["type"] != "none_required")
    bounds = {name: f"{value:g}" for name, value in first.get("ctx", {}).items() if isinstance(value, int | float)}
    words = {
        "greater_than_equal": f"must be at least {bounds.get('ge')}",
        "greater_than": f"must be more than {bounds.get('gt')}",
        "less_than_equal": f"must be at most {bounds.get('le')}",
        "finite_number": "must be a finite number",
        "int_type": "must be a whole number",
        "string_pattern_mismatch": "unknown. Known: cpu, cuda, cuda:N",
    }
    return words.get(first["type"], first["msg"])
