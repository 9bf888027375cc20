"""How measures, languages, figures and files are named on the site.

A figure without data is an en dash, never 0.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from fairspec_bench.engine.drafters.kinds import DRAFTER_KINDS
from fairspec_bench.metrics.catalogue import definitions
from fairspec_bench.metrics.measure import Definition, Kind
from fairspec_bench.reporting.svg import NO_DATA
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.report import Estimate

NOTHING = Estimate()
LARGE = 1e4  # from here on every kind is written as a plain number
SIGNS: Mapping[Kind, str] = {"ratio": "", "share": " %", "times": "×", "number": ""}
HTTPS = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]{1,5})?(/[A-Za-z0-9._~%/?=&#+-]*)?")


@dataclass(frozen=True)
class Labels:
    """Definitions of measures by name; languages by code: the English name and the language's own."""

    measures: Mapping[str, Definition]
    languages: Mapping[str, tuple[str, str]]

    @classmethod
    def load(cls, folder: Path) -> Labels:
        """The catalogue of measures, and the languages of `languages.json` in this folder."""
        names = TypeAdapter(dict[str, tuple[str, str]]).validate_json((folder / "languages.json").read_bytes())
        return cls(definitions(), names)

    def measure(self, name: str) -> Definition:
        """The definition of `name`; an unknown measure is labelled by its name."""
        return self.measures.get(name) or Definition(name, name, "1", "")

    def language(self, code: str) -> str:
        """The English name of a language, else its code."""
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


def span(low: int, high: int) -> str:
    """A range of ranks: `3` or `3–5`."""
    return str(low) if low == high else f"{low}–{high}"


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
