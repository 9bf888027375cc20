"""What the task files call: their data, the number in an answer, and metrics of answers to open questions.

Works in plain `lm-eval --include_path tasks`, from a checkout as from the installed package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets

try:
    import fairspec_bench  # noqa: F401
except ModuleNotFoundError:
    sys.path.append(str(Path(__file__).resolve().parents[1]))

from fairspec_bench.suites.grading import looping
from fairspec_bench.suites.numerals import INVALID, number
from fairspec_bench.suites.sources import registry


def load(suite: str, language: str, **_: Any) -> datasets.DatasetDict:
    """The questions of one language as `test`, its exemplars as `shots`. lm-eval adds the metadata as keywords."""
    found = registry.load(suite, language)
    parts = {"test": found.test, "shots": found.shots}
    rows = {name: [{**asdict(item), "language": language} for item in items] for name, items in parts.items() if items}
    return datasets.DatasetDict({name: datasets.Dataset.from_list(part) for name, part in rows.items()})


def numbers(responses: Iterable[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A filter: the last number of every response in canonical digits."""
    return [
        [number(text, doc.get("language")) or INVALID for text in texts]
        for texts, doc in zip(responses, docs, strict=True)
    ]


def describe(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Metrics of an open answer: its length in characters and whether it repeats itself."""
    return {"chars": float(len(results[0])), "looping": float(looping(results[0]))}
