"""From what a caller gives to the options of a run, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.models import hub
from fairspec_bench.schemas import io
from fairspec_bench.schemas.options import (
    Arguments,
    PairOptions,
    RunOptions,
    check,
    model_spec,
    named,
    parameters,
    sampling_params,
)

RUN = (*parameters(PairOptions), *parameters(RunOptions))
"""The options of a run, by the names that commands and Python functions give them."""


def run_options(
    verifier: str,
    drafter: str | None,
    suites: Sequence[str],
    *,
    model_args: Arguments | None = None,
    drafter_args: Arguments | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    **options: Any,
) -> RunOptions:
    """The options of a run; `options` are those of docs/OPTIONS.md. Raises `FairspecError` for an unknown one."""
    return RunOptions(
        verifier=model_spec(verifier, options=model_args),
        drafter=drafter_spec(drafter, options=drafter_args) if drafter else None,
        suites=tuple(suites),
        sampling=sampling_params(temperature, top_k, top_p),
        **named(RunOptions, options),
    )


def check_run(options: RunOptions) -> None:
    """Refuse wrong values, suites, languages and models without loading any. Raises `FairspecError`."""
    from fairspec_bench.suites.suite import check_languages

    check(options)
    for suite in options.suites:
        check_languages(suite, options.languages)
    check_model(options.verifier.source)
    if options.drafter and drafter_kind(options.drafter.kind).needs_files:
        check_model(options.drafter.source)


def check_model(name: str) -> None:
    """Raises `FairspecError` for a name that is no folder, GGUF file, embedded model or Hub id."""
    hub.check_name(name)


def cache_folder() -> Path:
    """Where references are kept for other runs: `FAIRSPEC_CACHE_DIR`, else the user's cache folder."""
    return io.cache_folder("references")
