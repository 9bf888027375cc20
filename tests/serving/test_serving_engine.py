"""What arrives from a serving engine, and what may be said of it."""

from __future__ import annotations

import pytest

from fairspec_bench.measure.acceptance import live_drafts
from fairspec_bench.records import Block, Counters, Pieces, Timing
from fairspec_bench.serving.engine import Served, Wanted, blocks_of, difference, left_at


def arrived(*steps: list[int], tokens: int = 8, stop=None) -> tuple[Served, bool]:
    served = Served(Wanted("k", (1, 2), tokens, stop), asked_ns=5)
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
    assert difference(None, counters(1, 1, 1, 1, 1)) is None


def test_where_a_text_leaves_the_reference() -> None:
    assert left_at([1, 2, 3], [1, 2, 3]) is None
    assert left_at([1, 5, 3], [1, 2, 3]) == 2


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
        drafter_prefill_ns=0, decode_ns=1, pieces=Pieces(), shard="s", counters=counted,
        blocks=tuple((made + made)[:blocks]),
    )  # fmt: skip
    assert live_drafts(timing, 4) == found
