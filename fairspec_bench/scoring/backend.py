"""Which backend runs a run's blocks: the one asked for, or the fastest one here.

The choice follows from the options and the hardware, never from a clock, so that a resumed run chooses the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from fairspec_bench.engine.backends.compiled import compiler_works
from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.speculative import Request, decode
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import Backend, SamplingParams

COMPILE_PAYS_FROM = 400_000
"""Steps × layers, at most, from which compiling is worth its minute or two: it saves some tenths of a millisecond per
layer and step, and outputs are mostly much shorter than allowed."""


def choose(
    asked: Backend | None,
    verifier: Model,
    drafter: Drafter | None,
    sampling: SamplingParams,
    gamma: int,
    steps: int,
    seed: int = 0,
) -> tuple[Model, str | None]:
    """The verifier with the backend for a run of at most so many `steps` of it, and a note where that is not obvious.

    What a trial compiled stays with the model, for the races of the run. Raises `FairspecError` for a backend that was
    asked for and cannot work here.
    """
    if asked == "graph" and verifier.spread:
        raise FairspecError("backend=graph: a verifier spread over several devices cannot be recorded. Use eager.")
    if asked == "compile":
        compiled, reason = _compiled(verifier, drafter, sampling, gamma, seed)
        if compiled is None:
            raise FairspecError(f"backend=compile: does not work here ({reason}). Use --backend eager.")
        return compiled, None
    if asked is not None:
        return replace(verifier, backend=asked), None
    eager = replace(verifier, backend="eager")
    if verifier.spread:
        return eager, "the verifier is spread over several devices: no graph, and no rank for its times"
    if any(model.quantized for model in (verifier, drafter.model if drafter else None) if model):
        return eager, "quantized weights: steps run as they are, for what their kernels do may depend on data"
    if verifier.device.type == "cuda":
        return replace(verifier, backend="graph"), None
    if any(model.packed for model in (verifier, drafter.model if drafter else None) if model):
        return eager, "weights are packed for this CPU (oneDNN), and steps not compiled: time goes into the products"
    if steps * verifier.layers < COMPILE_PAYS_FROM:
        return eager, None
    compiled, reason = _compiled(verifier, drafter, sampling, gamma, seed)
    if compiled is None:
        return eager, f"steps are not compiled ({reason}): slower, else the same"
    return compiled, None


def most_steps(limits: Iterable[int], batch_size: int, raced: Iterable[int], rounds: int) -> int:
    """Steps of the verifier at most: the texts in batches, then each raced text by itself, with a drafter and without.

    `limits` and `raced` are the longest outputs of all prompts and of the raced ones.
    """
    return sum(limits) // batch_size + 3 * rounds * sum(raced)


def _compiled(
    verifier: Model, drafter: Drafter | None, sampling: SamplingParams, gamma: int, seed: int
) -> tuple[Model | None, str | None]:
    """The verifier with its steps compiled, tried on a short text as in a race; or `None` and why that fails."""
    if reason := compiler_works():
        return None, reason
    model = replace(verifier, backend="compile")
    token = min(set(range(len(verifier.eos_ids) + 1)) - verifier.eos_ids)
    short, text = [Request("trial", (token, token), 3, 0)], {"trial": (token,) * 3}
    try:
        for one in (None, drafter):
            list(decode(model, one, short, sampling=sampling, gamma=gamma, batch_size=1, seed=seed, reference=text))
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
        return None, (str(error).strip().splitlines() or [type(error).__name__])[0]
    return model, None
