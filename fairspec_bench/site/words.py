"""How figures, measures, languages and rules are put into words.

Knows the glossary and the names of languages. Knows no reports and no HTML. A figure without data is an en dash, never
0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter

from fairspec_bench.records import Estimate, Record, Rule
from fairspec_bench.site.parts import NO_DATA

Kind = Literal["ratio", "share", "times", "number"]
NOTHING = Estimate()
LARGE = 1e4  # from here on every kind is written as a plain number
SIGNS: Mapping[Kind, str] = {"ratio": "", "share": " %", "times": "×", "number": ""}


class Measure(Record):
    """One entry of the glossary: how a measure is called, written and defined."""

    name: str
    label: str
    symbol: str
    kind: Kind
    unit: str
    scope: Literal["task", "validity", "across"]
    definition: str

    @property
    def heading(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class Vocabulary:
    """The glossary by name, and languages by code: English name and the language's own."""

    measures: Mapping[str, Measure]
    languages: Mapping[str, tuple[str, str]]

    @classmethod
    def parse(cls, measures: bytes, languages: bytes) -> Vocabulary:
        """From the two JSON files of `leaderboard/`."""
        entries = TypeAdapter(tuple[Measure, ...]).validate_json(measures)
        names = TypeAdapter(dict[str, tuple[str, str]]).validate_json(languages)
        return cls({entry.name: entry for entry in entries}, names)

    def measure(self, name: str) -> Measure:
        """The entry of `name`; a measure unknown here keeps its own name and no definition."""
        known = self.measures.get(name)
        return known or Measure(name=name, label=name, symbol="", kind="number", unit="", scope="task", definition="")

    def language(self, code: str) -> str:
        return self.languages.get(code, (code, ""))[0]


def figure(value: float | None, kind: Kind) -> str:
    """A value in words: `0.734`, `1.2 %`, `1.42×`, three significant digits, or an en dash for no data."""
    if value is None:
        return NO_DATA
    return f"{bare(value, kind)}{SIGNS[kind] if abs(value) < LARGE else ''}"


def bare(value: float, kind: Kind) -> str:
    """`figure` without its sign, for the ends of an interval that follows the signed value."""
    if kind == "number" or abs(value) >= LARGE:
        return _significant(value)
    if kind == "ratio":
        return f"{value:.3f}"
    return f"{100 * value:.1f}" if kind == "share" else f"{value:.2f}"


def signed(value: float) -> str:
    """A difference of ratios with its sign: `+0.012`, `−0.034`."""
    return f"{value:+.3f}".replace("-", "−") if abs(value) < 1e4 else f"{value:+.2e}".replace("-", "−")


def _significant(value: float) -> str:
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e6 or size < 1e-4:
        return f"{value:.2e}"
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 1:
        return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return f"{value:.{2 - math.floor(math.log10(size))}f}"


def rule_words(rule: Rule) -> str:
    """The decoding rule in a few words."""
    if rule.greedy:
        return "greedy"
    limits = [f"top-k {rule.top_k}"] * bool(rule.top_k) + [f"top-p {rule.top_p:g}"] * (rule.top_p < 1)
    return ", ".join([f"temperature {rule.temperature:g}", *limits])
