"""The one table of what is measured: name → definition, unit and function, gathered from the rooms of the entries.

Knows which rooms there are. A new measure is an entry in its room; nothing here changes.
"""

from __future__ import annotations

from fairspec_bench.measure import acceptance, speed, validity
from fairspec_bench.measure.table import Measure
from fairspec_bench.measure.unfairness import ACROSS, Across
from fairspec_bench.records import RunConfig


def measures(gamma: int) -> dict[str, Measure]:
    """The one table of measures of a task, name → definition, unit and function: each room's own list, in order."""
    rooms = (acceptance.measures(gamma), speed.measures(gamma), validity.measures())
    return {measure.name: measure for room in rooms for measure in room}


def measures_of(config: RunConfig) -> dict[str, Measure]:
    """Those that a run's report has: without the ones that the run did not ask for."""
    table = measures(config.gamma)
    return {name: each for name, each in table.items() if each.asked_by is None or getattr(config, each.asked_by)}


def across() -> dict[str, Across]:
    """The one table of figures across tasks."""
    return {figure.name: figure for figure in ACROSS}
