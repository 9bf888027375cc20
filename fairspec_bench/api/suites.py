"""Suites: listed, loaded, described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairspec_bench.schemas.prompts import Prompt

if TYPE_CHECKING:
    from fairspec_bench.suites.listing import SuiteInfo
    from fairspec_bench.suites.suite import Suite, SuiteStatus


def list_suites() -> tuple[SuiteInfo, ...]:
    """Every suite by name, without reading data."""
    from fairspec_bench.suites import listing

    return listing.list_suites()


def load_suite(name: str, **options: Any) -> Suite:
    """The prompts of a suite and their grading; options are those of `fairspec_bench.suites.suite.load_suite`.

    Raises `FairspecError`.
    """
    from fairspec_bench.suites import suite

    return suite.load_suite(name, **options)


def describe_suite(name: str) -> tuple[SuiteStatus, Prompt | None]:
    """What is at hand of a suite, and its first prompt whole (`None` where the data is missing)."""
    from fairspec_bench.suites import suite

    status = suite.describe(name)
    if status.problem:
        return status, None
    return status, suite.load_suite(name, languages=status.info.languages[:1], limit=1).prompts[0]
