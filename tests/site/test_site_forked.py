"""Pages made in several processes are those made in one; an error comes through."""

from __future__ import annotations

import os

import pytest

from fairspec_bench.site.forked import FEWEST, forked


def pages(part: int, of: int) -> dict[str, str]:
    return {str(number): f"page {number}" for number in range(FEWEST)[part::of]}


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_any_number_of_processes_makes_the_same(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    asked: list[tuple[int, int]] = []

    def make(part: int, of: int) -> dict[str, str]:
        asked.append((part, of))
        return pages(part, of)

    assert forked(make, FEWEST) == pages(0, 1)
    assert asked == [(0, cores)]  # the other parts were made elsewhere


def test_few_pages_are_made_here() -> None:
    assert forked(lambda part, of: {f"{part}/{of}": str(os.getpid())}, FEWEST - 1) == {"0/1": str(os.getpid())}


def test_a_process_that_dies_loses_nothing_and_hides_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    parent = os.getpid()

    def dies(part: int, of: int) -> dict[str, str]:
        if os.getpid() != parent:
            os._exit(1)
        return pages(part, of)

    assert forked(dies, FEWEST) == pages(0, 1)

    def fails(part: int, of: int) -> dict[str, str]:
        if part == 1:
            raise ZeroDivisionError
        return {}

    with pytest.raises(ZeroDivisionError):
        forked(fails, FEWEST)
