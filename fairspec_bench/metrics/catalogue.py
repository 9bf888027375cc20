"""The catalogue of everything that is measured: each measure's one definition, which reports, the site and docs use.

A measure of a task is an entry in `acceptance`, `speed` or `validity`, a figure across tasks one in `unfairness`.
"""

from __future__ import annotations

from fairspec_bench.metrics import acceptance, speed, validity
from fairspec_bench.metrics.measure import Definition, Measure
from fairspec_bench.metrics.unfairness import ACROSS, Across
from fairspec_bench.schemas.config import RunConfig


def measures(gamma: int) -> dict[str, Measure]:
    """The measures of a task for blocks of `gamma` drafts, by name, in the order in which reports show them."""
    found = (*acceptance.measures(gamma), *speed.measures(gamma), *validity.measures())
    return {measure.name: measure for measure in found}


def measures_of(config: RunConfig) -> dict[str, Measure]:
    """The measures that a run's report has: without those that the run did not ask for."""
    table = measures(config.gamma)
    return {name: each for name, each in table.items() if each.asked_by is None or getattr(config, each.asked_by)}


def across() -> dict[str, Across]:
    """The figures across tasks, by name."""
    return {figure.name: figure for figure in ACROSS}


def definitions() -> dict[str, Definition]:
    """Every definition by name: measures of a task, by block position, across tasks."""
    return {
        **measures(gamma=1),
        **{
            each.name: each
            for each in (acceptance.BY_POSITION, acceptance.JOINT, acceptance.BY_OUTPUT, acceptance.LENGTHS)
        },
        **across(),
    }


def glossary() -> dict[str, list[Definition]]:
    """Every definition under the heading that documents show it under."""
    every, qualifying = definitions(), (*validity.SHARES, *validity.DTYPE_DIVERGENCE)
    return {
        "For one language": [each for name, each in every.items() if name not in (*qualifying, *across())],
        "Validity: read these beside every figure of that language": [every[name] for name in qualifying],
        "Across languages": list(across().values()),
    }
