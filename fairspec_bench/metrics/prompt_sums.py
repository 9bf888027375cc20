"""Sums per prompt: all that is needed to compare a run with another, prompt by prompt.

Of a checked submission these and the report are kept, and nothing else of its lines.
"""

from __future__ import annotations

import math

import numpy as np

from fairspec_bench.metrics import bootstrap
from fairspec_bench.metrics.catalogue import measures
from fairspec_bench.metrics.comparison import COMPARED
from fairspec_bench.metrics.measure import StatTable, column, rounded
from fairspec_bench.metrics.run_data import Lines, Sheets, load_run_data, suite_sheets
from fairspec_bench.schemas.config import RunConfig, SuiteConfig
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.submission import PromptSums


def prompt_sums(config: RunConfig, lines: Lines) -> PromptSums:
    """The sums of every replayed prompt, sorted by key. Raises `FairspecError` for lines that contradict each other."""
    data = load_run_data(config, lines)
    names = compared_columns(config.gamma)
    keys, clusters = list[str](), list[str]()
    columns: dict[str, list[float | None]] = {name: [] for name in names}
    for suite in config.suites:
        sheets, order = suite_sheets(data, suite), data.keys(suite.name)
        for language in suite.languages:
            task = f"{suite.name}/{language}"
            keys += (mine := [key for key in order if PromptKey(key).task == task])
            clusters += map(data.cluster, mine)
            for name in names:
                columns[name] += map(_kept, sheets.prompts[task].columns[name].tolist())
    kept = sorted((key, place) for place, key in enumerate(keys) if key in data.replays)
    return PromptSums(
        keys=tuple(key for key, _ in kept),
        clusters=tuple(clusters[place] for _, place in kept),
        columns={name: tuple(values[place] for _, place in kept) for name, values in columns.items()},
    )


def sheets_of(sums: PromptSums, suite: SuiteConfig, keys: frozenset[str] | None = None) -> Sheets:
    """The sheets of one suite's tasks, as `suite_sheets` lays them out; only of these `keys`, where given."""
    places = [
        place
        for place, key in enumerate(sums.keys)
        if PromptKey(key).suite == suite.name and (keys is None or key in keys)
    ]
    tasks = np.array([PromptKey(sums.keys[place]).task for place in places])
    names = [f"{suite.name}/{language}" for language in suite.languages]
    clusters = [sums.clusters[place] for place in places]
    parts = bootstrap.partition(
        {name: [cluster for cluster, task in zip(clusters, tasks, strict=True) if task == name] for name in names}
    )
    rows = parts.rows(clusters)
    columns = {name: column(values[place] for place in places) for name, values in sums.columns.items()}
    whole = {name: StatTable(rows, parts.sizes[parts.stratum[name]], columns).only(tasks == name) for name in names}
    return Sheets(parts, whole, {})


def compared_columns(gamma: int) -> tuple[str, ...]:
    """The columns of the measures that two runs are compared by, sorted."""
    table = measures(gamma)
    return tuple(sorted({name for each in COMPARED for name in table[each].columns}))


def _kept(value: float) -> float | None:
    return None if math.isnan(value) else rounded(value)
