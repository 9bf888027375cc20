"""How measures, languages, figures and files are named on the site.

A figure without data is an en dash, never 0.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from babel import Locale, UnknownLocaleError

from fairspec_bench.engine.drafters.kinds import DRAFTER_KINDS
from fairspec_bench.metrics.catalogue import definitions
from fairspec_bench.metrics.measure import Definition, Kind
from fairspec_bench.metrics.speed import ENOUGH_ROUNDS, race_sentence
from fairspec_bench.reporting.svg import NO_DATA
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.report import Estimate, RaceVerdict

NOTHING = Estimate()
LARGE = 1e4  # from here on every kind is written as a plain number
SIGNS: Mapping[Kind, str] = {"ratio": "", "share": " %", "times": "×", "number": ""}
TAG = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?")
CHINESE = {"zh-CN": "zh-Hans", "zh-TW": "zh-Hant"}  # the scripts that these codes stand for in the suites
HTTPS = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]{1,5})?(/[A-Za-z0-9._~%/?=&#+-]*)?")


@dataclass(frozen=True)
class Labels:
    """Definitions of measures by name; languages by code: the English name and the language's own."""

    measures: Mapping[str, Definition]
    languages: Mapping[str, tuple[str, str]]

    @classmethod
    def load(cls) -> Labels:
        """The catalogue of measures, and the languages' names as the CLDR has them."""
        return cls(definitions(), Names())

    def measure(self, name: str) -> Definition:
        """The definition of `name`; an unknown measure is labelled by its name."""
        return self.measures.get(name) or Definition(name, name, "1", "")

    def language(self, code: str) -> str:
        """The English name of a language, else its code."""
        return self.languages.get(code, (code, ""))[0]


class Names(dict[str, tuple[str, str]]):
    """Languages by code, `te` or `zh-TW`: the English name and the language's own, from the CLDR; each read once."""

    def __missing__(self, code: str) -> tuple[str, str]:
        found = self._named(code)
        if found is None:
            raise KeyError(code)
        self[code] = found
        return found

    def get(self, code: str, default: Any = None) -> Any:
        try:
            return self[code]
        except KeyError:
            return default

    @staticmethod
    def _named(code: str) -> tuple[str, str] | None:
        """The names of a code that is a language tag known to the CLDR."""
        tag = CHINESE.get(code, code).replace("-", "_")
        english = Locale("en").languages.get(tag) if TAG.fullmatch(code) else None
        if english is None:
            return None
        try:
            own = Locale.parse(tag, resolve_likely_subtags=False).languages.get(tag)
        except (UnknownLocaleError, ValueError):
            own = None
        return english, own or english


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


def span(low: int, high: int) -> str:
    """A range of ranks: `3` or `3–5`."""
    return str(low) if low == high else f"{low}–{high}"


def name_list(names: Sequence[str]) -> str:
    """Names in a sentence: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def timer_words(verdict: RaceVerdict) -> str:
    """Whether the clock of a race can be trusted: how far the baseline raced against itself is from 1."""
    ratio = verdict.ratio
    if not verdict.quiet or ratio.low is None or ratio.high is None:
        return race_sentence(verdict)
    few = f", but only {verdict.rounds} rounds" if verdict.rounds < ENOUGH_ROUNDS else ""
    return f"timer check passed (±{100 * max(abs(ratio.low - 1), abs(ratio.high - 1)):.1f} %){few}"


def sampling_words(sampling: SamplingParams) -> str:
    """The sampling parameters in a few words."""
    if sampling.greedy:
        return "greedy"
    limits = [f"top-k {sampling.top_k}"] * bool(sampling.top_k) + [f"top-p {sampling.top_p:g}"] * (sampling.top_p < 1)
    return ", ".join([f"temperature {sampling.temperature:g}", *limits])


def kind_title(name: str) -> str:
    """What a kind of drafter is called; an unknown one by its name."""
    kind = DRAFTER_KINDS.get(name)
    return name if kind is None else kind.title


def is_web_address(url: str) -> bool:
    """Whether `url` is plain https, so that a page may link to it."""
    return HTTPS.fullmatch(url) is not None


def slugify(name: str) -> str:
    """`name` in a-z, 0-9 and single hyphens, at most 60 characters; `run` if nothing is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:60].strip("-") or "run"


def unique_slugs(names: Iterable[str]) -> list[str]:
    """A slug for each name, in their order; a name that is a slug keeps it, the second of one slug gets a number."""
    wanted = list(names)
    taken = {name for name in wanted if slugify(name) == name}
    found, own = [], set(taken)
    for name in wanted:
        slug, number = slugify(name), 2
        if name in own:
            own.remove(name)
            found.append(name)
            continue
        candidate = slug
        while candidate in taken:
            candidate, number = f"{slug}-{number}", number + 1
        taken.add(candidate)
        found.append(candidate)
    return found
