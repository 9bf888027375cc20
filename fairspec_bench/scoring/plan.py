"""What a run will take before it is started: tokens, memory, disk, hours.

Estimated from prompts as ids, the configuration of the models and, where the weights are at hand, a few timed steps:
`Plan.assumptions` says what the estimate rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

import torch

from fairspec_bench.engine.clock import Clock
from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.engine.queue import RequestQueue, RunningRequest
from fairspec_bench.engine.speculative import Decoder, DecodeState, Request, commit, speculative_decode
from fairspec_bench.models import hub
from fairspec_bench.models.kv_cache import PREFIX_BYTES
from fairspec_bench.models.model import DTYPES, Model
from fairspec_bench.models.positions import max_positions
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.generation_settings import not_followed, warning
from fairspec_bench.schemas.options import ModelSpec, RunOptions, check
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.schemas.stages import MODES, decoded_together, unit_keys
from fairspec_bench.scoring.prepare import RunContext, RunPrompts, encode, load_codec, load_suites, prepare
from fairspec_bench.scoring.stages import MAKERS, Pace, Workload
from fairspec_bench.scoring.verifier_states import states_bytes

MEASURED_TOKENS, MEASUREMENTS, ENOUGH_NS = 128, 5, 250_000_000
"""Of a prompt, to be timed; how often anything is, at most, and after how many nanoseconds no more."""
REPLAY_BYTES = 2**30
BYTES_PER_ID = 7
BYTES_PER_BETA = 21
BYTES_PER_BLOCK = 45
BYTES_PER_LINE = 400
BYTES_PER_DEPARTURE = 180
NS_PER_HOUR = 3.6e12
States = Literal["makes", "uses"]


@dataclass(frozen=True)
class TaskPlan:
    """One language of a suite. Tokens are counted, output tokens are at most `max_new_tokens`.

    `shared_tokens` are those that all its prompts begin with, which are prefilled once.
    """

    task: str
    prompts: int
    dropped: int
    prompt_tokens: int
    longest_prompt: int
    most_output_tokens: int
    shared_tokens: int


@dataclass(frozen=True)
class Plan:
    """A run beforehand. `hours` by stage is `None` where the weights are not at hand to be timed."""

    tasks: tuple[TaskPlan, ...]
    memory_bytes: Mapping[str, int]
    disk_bytes: int
    hours: Mapping[str, float] | None
    assumptions: tuple[str, ...]


@dataclass(frozen=True)
class _Size:
    """What a configuration says of a model: parameters, bytes of cache per token, positions."""

    parameters: int
    cache_bytes: int
    positions: int | None
    width: int


def plan_run(ask: RunOptions, states: States | None = None) -> Plan:
    """Estimate a run. Weights that lie in a folder or the Hub's cache are timed; others are not fetched.

    `states`: of several drafters, whether this run makes the references and the verifier's states, or uses those made.

    Raises `FairspecError` for what the run itself would refuse, as far as it can be known without weights.
    """
    check(ask)
    asks = [model for model in (ask.verifier, ask.drafter) if model and drafter_kind(model.kind).causal_lm]
    if all(_weights_here(model) for model in asks):
        # Whether steps can be compiled takes a minute to find out.
        prepared = prepare(replace(ask, backend=ask.backend or ("eager" if ask.device == "cpu" else None)))
        models = [prepared.verifier] + ([m] if prepared.drafter and (m := prepared.drafter.model) else [])
        sizes = [_size(model.hf.config, ask.dtype) for model in models]
        gone = {line.key for line in prepared.dropped}
        tasks = _tasks(prepared.questions, gone)
        return Plan(
            tasks=tasks,
            memory_bytes=_memory(sizes, tasks, ask),
            disk_bytes=_disk(prepared.questions, gone, ask)
            + (_states(sizes[0], tasks, ask) if states == "makes" else 0),
            hours=_hours(prepared, models, states),
            assumptions=(
                *_COMMON,
                _TIMED.format(tokens=MEASURED_TOKENS, device=ask.device),
                *([_EAGER] if ask.backend is None and ask.device == "cpu" else []),
                *_unfollowed(ask, prepared.verifier.generation_config),
            ),
        )
    sizes = [_size(_config(model), ask.dtype) for model in asks]
    codec = load_codec(ask)
    questions = encode(load_suites(ask), codec)
    positions = min((size.positions for size in sizes if size.positions), default=None)
    gone = {k for k, p in questions.encoded.items() if positions and len(p.ids) + p.max_new_tokens > positions}
    tasks = _tasks(questions, gone)
    assumptions = (*_COMMON, _UNTIMED, *_unfollowed(ask, _generation_config(ask.verifier)))
    disk = _disk(questions, gone, ask) + (_states(sizes[0], tasks, ask) if states == "makes" else 0)
    return Plan(tasks, _memory(sizes, tasks, ask), disk, None, assumptions)


_COMMON = (
    "every output is as long as max_new_tokens allows: the most there can be",
    f"replay works in pieces of about {REPLAY_BYTES // 2**20} MiB",
    "references already cached cost nothing; they are counted all the same",
)
_TIMED = (
    "times are of {tokens} tokens of a prompt and of single steps, just now on {device}; drafted decoding counts as "
    "slow as plain, and a race as if it went to its end"
)
_EAGER = "steps run as they are; a long run may compile them, which makes small models faster"
_UNTIMED = "no times: the weights are not here; parameters are counted from the configuration"


# --------------------------------------------------------------------------- sizes


def _weights_here(model: ModelSpec) -> bool:
    folder = hub.local_folder(model.source)
    if folder is not None:
        return any(folder.glob("*.safetensors"))
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    found = (try_to_load_from_cache(model.source, file, revision=model.revision) for file in files)
    return any(isinstance(path, str) for path in found)


def _config(model: ModelSpec) -> Any:
    """A model's configuration without its weights."""
    from transformers import AutoConfig

    folder = hub.local_folder(model.source)
    try:
        return AutoConfig.from_pretrained(
            folder or model.source,
            revision=model.revision,
            local_files_only=folder is not None or not hub.reachable(),
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FairspecError(f"{model.name}: no configuration to plan from ({reason}).") from error


def _generation_config(model: ModelSpec) -> Any:
    """What its `generation_config.json` sets; `None` where it has none."""
    from transformers import GenerationConfig

    folder = hub.local_folder(model.source)
    local = folder is not None or not hub.reachable()
    try:
        return GenerationConfig.from_pretrained(
            str(folder or model.source), revision=model.revision, local_files_only=local
        )
    except (OSError, ValueError):
        return None


def _unfollowed(ask: RunOptions, config: Any) -> tuple[str, ...]:
    word = warning(ask.verifier.name, not_followed(config, greedy=ask.sampling.greedy))
    return (word,) if word else ()


def _size(config: Any, dtype: str) -> _Size:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return _Size(
        parameters=sum(parameter.numel() for parameter in empty.parameters()),
        cache_bytes=2 * text.num_hidden_layers * heads * head * DTYPES[dtype].itemsize,
        positions=max_positions(text),
        width=text.hidden_size,
    )


def _tasks(questions: RunPrompts, gone: set[str]) -> tuple[TaskPlan, ...]:
    by_task: dict[str, list[Encoded]] = {}
    for prompt in questions.encoded.values():
        by_task.setdefault(prompt.group, []).append(prompt)
    made = []
    for task, prompts in by_task.items():
        kept = [prompt for prompt in prompts if prompt.key not in gone]
        made.append(
            TaskPlan(
                task=task,
                prompts=len(kept),
                dropped=len(prompts) - len(kept),
                prompt_tokens=sum(len(prompt.ids) for prompt in kept),
                longest_prompt=max((len(prompt.ids) for prompt in prompts), default=0),
                most_output_tokens=sum(prompt.max_new_tokens for prompt in kept),
                shared_tokens=prompts[0].shared,
            )
        )
    return tuple(made)


def _memory(sizes: Iterable[_Size], tasks: Sequence[TaskPlan], ask: RunOptions) -> dict[str, int]:
    """Bytes on the device: weights, the caches of a full batch at its longest, working space, the float32 verifier."""
    sizes = list(sizes)
    max_new_tokens = max((task.most_output_tokens // task.prompts for task in tasks if task.prompts), default=0)
    gammas, batch_sizes = {ask.gamma, *ask.gammas}, {ask.batch_size, *ask.batch_sizes}
    longest = max((task.longest_prompt for task in tasks), default=0) + max_new_tokens + max(gammas) + 1
    shared = sum(task.shared_tokens for task in tasks)
    # A sweep keeps the buffers of every configuration, so that none is timed while it makes them.
    rows = sum(batch_sizes) * (1 + len(gammas)) if ask.sweeps else ask.batch_size
    found = {
        "weights": sum(size.parameters for size in sizes) * DTYPES[ask.dtype].itemsize,
        "caches": sum(size.cache_bytes for size in sizes) * longest * rows,
        "prefixes": sum(min(PREFIX_BYTES, size.cache_bytes * shared) for size in sizes),
        "working": REPLAY_BYTES,
    }
    if ask.checks_float32:
        wider = DTYPES["float32"].itemsize // DTYPES[ask.dtype].itemsize
        cache = sizes[0].cache_bytes * wider * longest * ask.batch_size
        found["float32_check"] = sizes[0].parameters * DTYPES["float32"].itemsize + cache
    return {**found, "total": sum(found.values())}


def _disk(questions: RunPrompts, gone: set[str], ask: RunOptions) -> int:
    kept = [prompt for key, prompt in questions.encoded.items() if key not in gone]
    raced: dict[str, int] = {}
    total = 0
    for prompt in kept:
        per_token = 2 * BYTES_PER_ID + (0 if ask.sampling.greedy else BYTES_PER_BETA)
        total += 4 * BYTES_PER_LINE + prompt.max_new_tokens * per_token + BYTES_PER_DEPARTURE * ask.checks_float32
        raced[prompt.group] = raced.get(prompt.group, 0) + 1
        if ask.drafter and (ask.race_prompts is None or raced[prompt.group] <= ask.race_prompts):
            total += ask.race_rounds * len(MODES) * (BYTES_PER_LINE + prompt.max_new_tokens * BYTES_PER_BLOCK)
    if ask.sweeps:
        lines = 2 * ask.race_rounds * len({ask.batch_size, *ask.batch_sizes}) * (1 + len({ask.gamma, *ask.gammas}))
        total += len(raced) * lines * BYTES_PER_LINE
    return total


def _states(size: _Size, tasks: Sequence[TaskPlan], ask: RunOptions) -> int:
    """Bytes of the verifier's states that a run of several drafters keeps."""
    return states_bytes(size.width, DTYPES[ask.dtype].itemsize, sum(task.most_output_tokens for task in tasks))


# --------------------------------------------------------------------------- hours


def _hours(prepared: RunContext, models: Sequence[Model], states: States | None = None) -> dict[str, float]:
    """Hours by stage, for the part of the run that was asked for."""
    config, encoded = prepared.config, prepared.questions.encoded
    paces = [_pace(model, prepared) for model in models]
    exact = _pace(prepared.float32_verifier(), prepared) if config.float32_check else None
    spent: dict[str, float] = {}
    known: dict[str, set[tuple[int, ...]]] = {}
    together = decoded_together(config)
    for unit, keys in unit_keys(config).items():
        prompts = [encoded[key] for key in keys]
        before = known.setdefault(unit.stage, set())
        prefixes = {prompt.ids[: prompt.shared] for prompt in prompts} - before
        before |= prefixes
        load = Workload(
            config,
            prompts,
            sum(map(len, prefixes)),
            sum(len(config.chunks[chunk]) for chunk in together[unit.chunk]),
            paces[0],
            paces[1] if len(paces) > 1 else None,
            exact,
            states == "uses",
        )
        spent[unit.stage] = spent.get(unit.stage, 0.0) + MAKERS[unit.stage].ns(load) / NS_PER_HOUR
    return spent


def _pace(model: Model, prepared: RunContext) -> Pace:
    """Times of a piece of a prompt and of single steps, each as deep in a text as it is on average.

    Attention takes longer the more stands before a token, in proportion, so that the mean depth gives the mean time.
    Caches are as large as in the run but empty: nothing is prefilled to get there.
    """
    config = prepared.config
    prompts = [prepared.questions.encoded[key] for keys in config.chunks.values() for key in keys]
    lengths = [len(prompt.ids) for prompt in prompts]
    middle = sum(length**2 for length in lengths) // (2 * sum(lengths))
    steps_at = sum(length + prompt.max_new_tokens // 2 for length, prompt in zip(lengths, prompts, strict=True))
    decoders = [
        Decoder(model, None, sampling=config.sampling, gamma=0, batch_size=size, seed=config.seed)
        for size in (config.batch_size, 1)
    ]
    step, alone = (_step(decoder, steps_at // len(prompts)) for decoder in decoders)
    return Pace(_prefill(model, middle, min(MEASURED_TOKENS, max(lengths))), step, alone)


def _prefill(model: Model, depth: int, count: int) -> float:
    """Nanoseconds of each of `count` tokens of a prompt at this depth."""
    rows, clock = model.rows(1, depth + count), Clock(model.device)
    tokens = torch.zeros(1, count, dtype=torch.long, device=model.device)
    start = tokens.new_full((1,), depth)
    rows.read(tokens[:, :1], start, view=depth + 1, keep=1)

    def once() -> float:
        begun = clock.now()
        rows.read(tokens, start, view=depth + count, keep=1)
        return (clock.now() - begun) / count

    return _typical(once, count)


def _step(decoder: Decoder, depth: int) -> float:
    """Nanoseconds of one step at this depth, whose time all rows of a batch share."""
    size, model = decoder.batch_size, decoder.verifier
    state = _Unfilled(decoder, size, decoder.backend.slots(depth + 3), forced=False)
    requests = [Request(f"row {row}", (0,) * depth, 2, row) for row in range(size)]

    def once() -> float:
        state.steps.clock = clock = Clock(model.device)
        list(speculative_decode(RequestQueue(requests, state.batch, clock, frozenset()), state, 0))
        return float(clock.totals["decode_ns"])

    if model.backend != "eager":
        once()  # compiles or records the step
    return _typical(once, 1)


class _Unfilled(DecodeState):
    """Rows whose prompts are taken as read: a step takes as long, whatever the cache holds."""

    def __init__(self, decoder: Decoder, size: int, slots: int, forced: bool):
        super().__init__(decoder, size, slots, forced)
        self.verifier.read(self.batch.ids[:, :1], self.batch.pos, view=slots, keep=1)

    def prefill(self, row: int, request: Request) -> RunningRequest:
        self.batch.place(row, request, None)
        batch = self.batch.row(row)
        commit(batch, batch.ids[:, :0], torch.zeros_like(batch.pos), torch.zeros_like(batch.pos))
        running = RunningRequest(request, request.max_new_tokens, 0, 0, dict(self.steps.clock.totals), self.models)
        running.extend([0], len(self.models), frozenset())
        return running


def _typical(once: Callable[[], float], parts: int) -> float:
    """The median of a few measurements, each the time of one of `parts`; of a single one where that takes long."""
    found: list[float] = []
    while len(found) < MEASUREMENTS and sum(found) * parts < ENOUGH_NS:
        found.append(once())
    return median(found)
