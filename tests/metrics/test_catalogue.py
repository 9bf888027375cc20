"""One catalogue of measures: complete, in METRICS.md by name, and nothing named there that is not measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fairspec_bench.metrics.catalogue import definitions, glossary
from fairspec_bench.metrics.measure import Definition

METRICS = Path(__file__).parents[2] / "docs" / "METRICS.md"
TABLES = ("Per task", "Across tasks: unfairness")


def sections() -> dict[str, str]:
    """The sections of METRICS.md by their headings."""
    parts = re.split(r"^## (.+)$", METRICS.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def named(text: str) -> set[str]:
    """Names in backticks, without the index of `name[j]`; single letters are symbols."""
    return set(re.findall(r"`([a-z][a-z0-9_]{2,})(?:\[j\])?`", text))


def test_every_name_in_the_tables_of_metrics_is_a_measure() -> None:
    for title in TABLES:
        rows = re.findall(r"^\| (.+?) \| ", sections()[title], flags=re.M)[1:]
        assert len(rows) > 5
        assert named(" ".join(rows)) <= set(definitions()), title


def test_every_measure_is_in_metrics() -> None:
    assert set(definitions()) - named(METRICS.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("each", definitions().values(), ids=list(definitions()))
def test_a_definition_is_one_sentence_that_stands_alone(each: Definition) -> None:
    assert each.label
    assert each.unit
    assert each.definition.endswith(".")
    assert ". " not in each.definition.replace("i.i.d. ", "")
    assert not each.definition.lower().startswith(("the same", "its "))


def test_the_glossary_has_every_definition_once() -> None:
    names = [each.name for group in glossary().values() for each in group]
    assert sorted(names) == sorted(definitions())
