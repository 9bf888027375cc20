"""What a run will take before it is started: tokens, memory, disk, hours.

Estimated from prompts as ids, the configuration of the models and, where the weights are at hand, a few timed steps:
`Plan.assumptions` says what the estimate rests on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.engine.speculative import Decoded, as_request, decode
from fairspec_bench.models import hub
from fairspec_bench.models.model import DTYPES, Model
from fairspec_bench.models.positions import max_positions
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.generation_settings import not_followed, warning
from fairspec_bench.schemas.options import ModelSpec, RunOptions, check
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.schemas.stages import MODES, unit_keys
from fairspec_bench.scoring.prepare import RunContext, RunPrompts, encode, load_codec, load_suites, prepare
from fairspec_bench.scoring.stages import MAKERS, Pace, Workload

MEASURED_TOKENS = 8
REPLAY_BYTES = 2**30
BYTES_PER_ID = 7
BYTES_PER_BETA = 21
BYTES_PER_BLOCK = 45
BYTES_PER_LINE = 400
BYTES_PER_DEPARTURE = 180
NS_PER_HOUR = 3.6e12


@dataclass(frozen=True)
class TaskPlan:
    """One language of a suite. Tokens are counted, output tokens are at most `max_new_tokens`."""

    task: str
    prompts: int
    dropped: int
    prompt_tokens: int
    longest_prompt: int
    most_output_tokens: int


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


def plan_run(ask: RunOptions) -> Plan:
    """Estimate a run. Weights that lie in a folder or the Hub's cache are timed; others are not fetched.

    Raises `FairspecError` for what the run itself would refuse, as far as it can be known without weights.
    """
    check(ask)
    asks = [model for model in (ask.verifier, ask.drafter) if model and drafter_kind(model.kind).causal_lm]
    if all(_weights_here(model) for model in asks):
        prepared = prepare(ask)
        models = [prepared.verifier] + ([m] if prepared.drafter and (m := prepared.drafter.model) else [])
        sizes = [_size(model.hf.config, ask.dtype) for model in models]
        gone = {line.key for line in prepared.dropped}
        tasks = _tasks(prepared.questions, gone)
        return Plan(
            tasks=tasks,
            memory_bytes=_memory(sizes, tasks, ask),
            disk_bytes=_disk(prepared.questions, gone, ask),
            hours=_hours(prepared, models),
            assumptions=(
                *_COMMON,
                _TIMED.format(steps=MEASURED_TOKENS, device=ask.device),
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
    return Plan(tasks, _memory(sizes, tasks, ask), _disk(questions, gone, ask), None, assumptions)


_COMMON = (
    "every output is as long as max_new_tokens allows: the most there can be",
    f"replay works in pieces of about {REPLAY_BYTES // 2**20} MiB",
    "references already cached cost nothing; they are counted all the same",
)
_TIMED = (
    "times are of {steps} tokens decoded just now on {device}; drafted decoding counts as slow as plain, and a race "
    "as if it went to its end"
)
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
    import torch
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
            )
        )
    return tuple(made)


def _memory(sizes: Iterable[_Size], tasks: Sequence[TaskPlan], ask: RunOptions) -> dict[str, int]:
    """Bytes on the device: weights, the caches of a full batch at its longest, working space, the float32 verifier."""
    sizes = list(sizes)
    max_new_tokens = max((task.most_output_tokens // task.prompts for task in tasks if task.prompts), default=0)
    gammas, batch_sizes = {ask.gamma, *ask.gammas}, {ask.batch_size, *ask.batch_sizes}
    longest = max((task.longest_prompt for task in tasks), default=0) + max_new_tokens + max(gammas) + 1
    # A sweep keeps the buffers of every configuration, so that none is timed while it makes them.
    rows = sum(batch_sizes) * (1 + len(gammas)) if ask.sweeps else ask.batch_size
    found = {
        "weights": sum(size.parameters for size in sizes) * DTYPES[ask.dtype].itemsize,
        "caches": sum(size.cache_bytes for size in sizes) * longest * rows,
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


# --------------------------------------------------------------------------- hours


def _hours(prepared: RunContext, models: Sequence[Model]) -> dict[str, float]:
    """Hours by stage, for the part of the run that was asked for."""
    config, encoded = prepared.config, prepared.questions.encoded
    paces = [_pace(model, prepared) for model in models]
    exact = _pace(prepared.float32_verifier(), prepared) if config.float32_check else None
    spent: dict[str, float] = {}
    for unit, keys in unit_keys(config).items():
        prompts = [encoded[key] for key in keys]
        load = Workload(config, prompts, paces[0], paces[1] if len(paces) > 1 else None, exact)
        spent[unit.stage] = spent.get(unit.stage, 0.0) + MAKERS[unit.stage].ns(load) / NS_PER_HOUR
    return spent


def _pace(model: Model, prepared: RunContext) -> Pace:
    """Time a few steps on the longest prompts, which cost most; the first pass warms up."""
    chunks = prepared.config.chunks.values()
    prompts = sorted((prepared.questions.encoded[key] for keys in chunks for key in keys), key=lambda p: -len(p.ids))
    size = prepared.config.batch_size
    alone, batch = _timed(model, prompts[:1], prepared), _timed(model, prompts[:size], prepared)
    prefill = sum(done.prefill_ns for done in batch) / sum(len(prompt.ids) for prompt in prompts[:size])
    return Pace(prefill, _step(batch), _step(alone))


def _timed(model: Model, prompts: Sequence[Encoded], prepared: RunContext) -> list[Decoded]:
    for _ in range(2):
        requests = [
            as_request(prompt, max_new_tokens=min(prompt.max_new_tokens, MEASURED_TOKENS)) for prompt in prompts
        ]
        done = list(
            decode(
                model,
                None,
                requests,
                sampling=prepared.config.sampling,
                gamma=0,
                batch_size=max(1, len(prompts)),
                seed=prepared.config.seed,
                exact_times=True,
            )
        )
    return done


def _step(done: Sequence[Decoded]) -> float:
    """Nanoseconds of one step, whose time all rows of a batch share."""
    steps = [item.decode_ns / len(item.blocks) for item in done if item.blocks]
    return max(steps, default=0.0)
