"""The sources by suite: those of every module in this folder, found by looking, so that a new one is one file.

A module holds `SOURCES`, a mapping from the name of a suite to its `Source`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.suites.sources.base import Data, Source

_NO_SOURCE = {"base", "registry"}


@cache
def sources() -> Mapping[str, Source]:
    """Every suite's source."""
    modules = sorted(module.name for module in iter_modules([str(Path(__file__).parent)]))
    found: dict[str, Source] = {}
    for name in modules:
        if name not in _NO_SOURCE:
            found |= import_module(f"{__package__}.{name}").SOURCES
    return found


def load(suite: str, language: str) -> Data:
    """The data of one language of a suite.

    Raises:
        FairspecError: The suite has no source, or its data is missing or damaged: what, where, what to do.
    """
    if suite not in sources():
        raise FairspecError(f"{suite}: no source of questions. Add one under fairspec_bench/suites/sources/.")
    return sources()[suite].load(language)


def every_language(suite: str) -> tuple[str, ...] | None:
    """All languages of the data at hand, of a suite that may have more than it runs by default; else `None`.

    Raises `FairspecError` as `load` does.
    """
    languages = sources()[suite].languages
    return languages() if languages else None
