"""Which backend runs a run's blocks: the one asked for, or the one that pays here.

Knows the work ahead only as counts of steps. A choice follows from what was asked and where, never from a clock: a run
that goes on chooses the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from fairspec_bench.engine.backends import compiler_works
from fairspec_bench.engine.drafting import Drafter
from fairspec_bench.engine.loop import Request, decode
from fairspec_bench.engine.model import Model
from fairspec_bench.records import Backend, FairspecError, Rule

COMPILE_PAYS_FROM = 400_000
"""Steps × layers, at most, from which compiling is worth its minute or two: it saves some tenths of a millisecond per
layer and step, and outputs are mostly much shorter than their caps."""


def choose(
    asked: Backend | None, verifier: Model, drafter: Drafter | None, rule: Rule, gamma: int, steps: int
) -> tuple[Backend, str | None]:
    """The backend for a run of at most so many `steps` of the verifier, and a word where it is not the obvious one.

    Raises `FairspecError` for one asked for that cannot work here.
    """
    if asked == "graph" and verifier.spread:
        raise FairspecError("backend=graph: a verifier spread over several devices cannot be recorded. Use eager.")
    if asked == "compile":
        if reason := _cannot_compile(verifier, drafter, rule, gamma):
            raise FairspecError(f"backend=compile: does not work here ({reason}). Use --backend eager.")
        return asked, None
    if asked is not None:
        return asked, None
    if verifier.spread:
        return "eager", "the verifier is spread over several devices: no graph, and no rank for its times"
    if any(model.quantized for model in (verifier, drafter.model if drafter else None) if model):
        return "eager", "quantized weights: steps run as they are, for what their kernels do may depend on data"
    if verifier.device.type == "cuda":
        return "graph", None
    if steps * verifier.layers < COMPILE_PAYS_FROM:
        return "eager", None
    if reason := _cannot_compile(verifier, drafter, rule, gamma):
        return "eager", f"steps are not compiled ({reason}): slower, else the same"
    return "compile", None


def most_steps(caps: Iterable[int], batch_size: int, raced: Iterable[int], rounds: int) -> int:
    """Steps of the verifier at most: the texts in batches, then each raced text by itself, with a drafter and without.

    `caps` and `raced` are the longest outputs of all prompts and of the raced ones.
    """
    return sum(caps) // batch_size + 3 * rounds * sum(raced)


def _cannot_compile(verifier: Model, drafter: Drafter | None, rule: Rule, gamma: int) -> str | None:
    """Why a short text cannot be decoded in compiled steps, `None` if it can: they are those of the race."""
    if reason := compiler_works():
        return reason
    model = replace(verifier, backend="compile")
    token = min(set(range(len(verifier.eos_ids) + 1)) - verifier.eos_ids)
    asked, text = [Request("trial", (token, token), 3, 0)], {"trial": (token,) * 3}
    try:
        for one in (None, drafter):
            list(decode(model, one, asked, rule=rule, gamma=gamma, batch_size=1, seed=0, reference=text))
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None
