"""From a drafter's name, as written on a command line, to its `ModelSpec`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from fairspec_bench.engine.drafters.kinds import DRAFTER_KINDS
from fairspec_bench.models.gguf import is_gguf
from fairspec_bench.models.hub import local_folder
from fairspec_bench.schemas.base import FairspecError, unknown
from fairspec_bench.schemas.options import ModelSpec, model_spec


def drafter_spec(text: str, source: str | None = None, options: Mapping[str, Any] | None = None) -> ModelSpec:
    """A drafter as written on a command line: a folder, a Hub id, `lookup`, `lookup:3`, `layers:8` or `oracle:0.8`.

    A folder may name its kind (`fairspec_drafter.json`); else it holds a causal LM. Raises `FairspecError`.
    """
    kind, _, value = text.partition(":")
    entry = DRAFTER_KINDS.get(kind) if source is None else None
    if entry is None or entry.needs_files:
        spec = model_spec(text, source, options)
        folder = None if is_gguf(spec.source) else local_folder(spec.source)
        named = [name for name, each in DRAFTER_KINDS.items() if not each.needs_files]
        if folder is None and source is None and get_close_matches(kind, named, 1):
            raise unknown("drafter", text, [*named, "a folder", "a Hub id"])
        if folder is None or not (folder / "fairspec_drafter.json").is_file():
            return spec
        from fairspec_bench.engine.drafters.base import kind_of

        return replace(spec, kind=kind_of(folder) or spec.kind)
    given, option = dict(options or {}), entry.option
    if value and option is None:
        raise FairspecError(f"{text}: {kind} takes no value. Give {kind}.")
    if value and option:
        try:
            given[option.name] = option.read(value)
        except ValueError:
            example = f"{kind}:{option.example}"
            raise FairspecError(f"{text}: {value!r} is no {option.name}. Example: {example}.") from None
    if option and isinstance(given.get(option.name), int | float):
        option.check(given[option.name])
    return ModelSpec(kind, kind, kind, options=given)
