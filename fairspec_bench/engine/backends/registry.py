"""Any backend by its name: the entries of `schemas.backends.BACKENDS` that run this engine's blocks."""

from __future__ import annotations

from importlib import import_module

from fairspec_bench.engine.backends.base import StepRunner
from fairspec_bench.schemas import backends

BACKENDS = tuple(name for name, kind in backends.BACKENDS.items() if not kind.serves)


def step_runner(backend: str) -> type[StepRunner]:
    """The class that runs the blocks of a backend."""
    module, _, name = (backends.BACKENDS[backend].steps or "").partition(":")
    found: type[StepRunner] = getattr(import_module(module), name)
    return found
