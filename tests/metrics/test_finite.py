"""A number that is not finite never becomes a figure: it is refused where lines become columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fairspec_bench.metrics import spread
from fairspec_bench.metrics.measure import Joint, column
from fairspec_bench.schemas.lines import Replay
from fairspec_bench.schemas.report import Estimate

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf, np.float64("nan")])


@given(st.lists(st.none() | NUMBERS))
def test_a_column_has_nan_for_what_is_missing_alone(values: list[float | None]) -> None:
    assert np.isnan(column(iter(values))).tolist() == [value is None for value in values]


@given(st.lists(st.none() | NUMBERS), NOT_FINITE, st.integers(0))
def test_a_column_refuses_what_is_not_finite(values: list[float | None], bad: float, place: int) -> None:
    """As missing, a bad number would be left out of the sums: the others' mean, a good number."""
    values.insert(place % (len(values) + 1), bad)
    with pytest.raises(ValueError, match="NaN or infinite"):
        column(values)


@pytest.mark.parametrize("name", ["alpha", "kl", "overlap", "cross_entropy", "verifier_entropy"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_line_holds_one(name: str, value: float) -> None:
    line = {
        "key": "s/l/0", "prompt_sha": "0", "contexts": 1, "alpha": 0.5, "overlap": 0.5, "kl": 0.1, "cross_entropy": 0.2,
        "verifier_entropy": 0.1, "draft_ids": (1,), "beta": None, "divergences": 0, "largest_gap": 0.0, "chunk": "c",
    }  # fmt: skip
    Replay(**line)
    with pytest.raises(ValidationError, match=name):
        Replay(**{**line, name: value})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_spread_with_a_task_that_is_not_finite_has_no_figure(bad: float) -> None:
    rows = np.random.default_rng(0).normal(0, 0.1, (60, 3))
    value = np.array([0.4, 0.5, bad])
    made = Joint(("a", "b", "c"), value, rows, np.zeros(60, dtype=np.int64), 60)
    assert spread.estimate(spread.variance, made, 0.5 + rows) == Estimate()
    assert spread.change(spread.variance, [made, made], [rows, rows]) == Estimate()
