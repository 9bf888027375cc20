"""What arrives from a serving engine, and what may be said of it."""

from __future__ import annotations

import math

import pytest

from fairspec_bench.metrics.acceptance import live_drafts
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Block, Counters, StepTimes, Timing
from fairspec_bench.scoring.executors.serving.engine import (
    EngineRequest,
    ServedRequest,
    blocks_of,
    count,
    difference,
    diverged_at,
    refuse_impossible,
)


def arrived(*steps: list[int], tokens: int = 8, stop=None) -> tuple[ServedRequest, bool]:
    served = ServedRequest(EngineRequest("k", (1, 2), tokens, stop), asked_ns=5)
    ended = False
    for number, ids in enumerate(steps):
        assert not ended
        ended = served.arrive(ids, 10 + number)
    return served, ended


def counters(rounds: int, *accepted: int, gamma: int = 4) -> Counters:
    return Counters(rounds=rounds, drafts=gamma * rounds, accepted=sum(accepted), accepted_by_position=accepted)


def test_an_output_ends_with_its_tokens_and_what_goes_beyond_is_cut_off() -> None:
    served, ended = arrived([3], [4, 5, 6], [7, 8, 9, 10, 11])
    assert ended
    assert (served.ids, served.steps) == ([3, 4, 5, 6, 7, 8, 9, 10], [1, 3, 4])
    assert (served.first_ns, served.last_ns, served.latency_ns) == (10, 12, 7)


def test_an_output_ends_where_its_stop_says_and_not_before() -> None:
    served, ended = arrived([3], [4, 99, 6], stop=lambda ids: ids.index(99) + 1 if 99 in ids else None)
    assert ended
    assert (served.ids, served.steps) == ([3, 4, 99], [1, 2])


def test_nothing_arriving_is_no_arrival() -> None:
    served, ended = arrived([3], [], [4])
    assert not ended
    assert served.steps == [1, 1]


def test_blocks_follow_from_arrivals_and_the_last_ones_drafts_beyond_the_text_from_the_counters() -> None:
    served, _ = arrived([3], [4, 5, 6], [7], [8, 9], tokens=7)
    found = blocks_of(served, counters(3, 2, 2, 1, 1))  # 2 in the first block, 0, and 4 in the last: 2 are inside
    assert found == (
        Block(accepted=2, emitted=3, raw_accepted=2),
        Block(accepted=0, emitted=1, raw_accepted=0),
        Block(accepted=2, emitted=2, raw_accepted=4),
    )


@pytest.mark.parametrize(
    "counted",
    [
        pytest.param(counters(2, 2, 2, 1, 1), id="rounds-merged-or-without-drafts"),
        pytest.param(counters(3, 3, 3, 3, 3), id="more-accepted-than-blocks-can-hold"),
        pytest.param(counters(3, 1, 0, 0, 0), id="fewer-accepted-than-arrived"),
    ],
)
def test_arrivals_that_the_counters_contradict_are_no_blocks(counted: Counters) -> None:
    served, _ = arrived([3], [4, 5, 6], [7], [8, 9], tokens=7)
    assert blocks_of(served, counted) == ()


def test_counters_are_of_what_lies_between() -> None:
    assert difference(counters(2, 1, 1, 0, 0), counters(5, 4, 2, 1, 1)) == counters(3, 3, 1, 1, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_what_is_not_a_count_is_refused(value: float) -> None:
    with pytest.raises(FairspecError, match=r"^drafts: the engine reports .*, which is not a count"):
        count("drafts", value)
    assert count("drafts", 3.0) == 3


@pytest.mark.parametrize("after", [counters(1, 4, 2, 1, 1), counters(5, 4, 0, 0, 0), counters(5, 8)])
def test_counters_that_fall_are_refused(after: Counters) -> None:
    with pytest.raises(FairspecError, match=r"counters fell from \(2, 8, 2, 1, 1, 0, 0\) to .*Was it restarted"):
        difference(counters(2, 1, 1, 0, 0), after)


@pytest.mark.parametrize(
    "counted",
    [
        pytest.param(counters(8, 1, 0, 0, 0), id="more-rounds-than-tokens"),
        pytest.param(counters(2, 3, 1, 0, 0), id="a-position-accepted-more-often-than-there-were-rounds"),
        pytest.param(
            Counters(rounds=2, drafts=1, accepted=2, accepted_by_position=(2,)), id="more-accepted-than-drafts"
        ),
    ],
)
def test_counts_that_these_tokens_cannot_give_are_refused(counted: Counters) -> None:
    with pytest.raises(FairspecError, match=r"not of these requests alone"):
        refuse_impossible(counted, 7)
    refuse_impossible(counters(2, 2, 1, 0, 0), 7)


def test_where_a_text_leaves_the_reference() -> None:
    assert diverged_at([1, 2, 3], [1, 2, 3]) is None
    assert diverged_at([1, 5, 3], [1, 2, 3]) == 2


@pytest.mark.parametrize(
    ("blocks", "counted", "found"),
    [
        pytest.param(2, None, (6, 5), id="blocks-of-our-own-loop"),
        pytest.param(2, counters(2, 2, 2, 1, 1), (6, 5), id="every-round-seen-as-a-block-inside-the-text"),
        pytest.param(0, counters(2, 2, 2, 1, 1), (2 + 2 + 2 + 1, 6), id="blocks-unseen"),
        pytest.param(3, counters(2, 2, 1, 0, 0), (2 + 2 + 1, 3), id="a-block-had-no-drafts"),
    ],
)
def test_drafts_are_counted_by_blocks_where_each_was_a_round_of_drafting(
    blocks: int, counted: Counters | None, found: tuple[int, int]
) -> None:
    made = [Block(accepted=3, emitted=4, raw_accepted=3), Block(accepted=2, emitted=2, raw_accepted=3)]
    timing = Timing(
        key="k", prompt_sha="0", mode="speculative", round=0, order=0, context=5, tokens=7, prefill_ns=1,
        drafter_prefill_ns=0, decode_ns=1, step_times=StepTimes(), chunk="s", counters=counted,
        blocks=tuple((made + made)[:blocks]),
    )  # fmt: skip
    assert live_drafts(timing, 4) == found
