"""The built-in text: splits are disjoint, equations are right in every language, mixes are what they say."""

from __future__ import annotations

import re
from itertools import islice

import pytest
import torch

from fairspec_bench.suites import embedded
from fairspec_bench.suites.embedded import LANGUAGES, Split, plots, problem, signature, story
from fairspec_bench.testbed.corpus import PROMPT_WEIGHT, pad, source, zipf
from fairspec_bench.testbed.tokenizer import EOS_ID, train_tokenizer

EQUATION = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")


def signatures(split: Split, count: int) -> set[str]:
    return {signature(plot.start, plot.events) for plot in islice(plots(split), count)}


def test_splits_share_no_problem() -> None:
    train, tune, test = signatures("train", 20_000), signatures("tune", 2_000), signatures("test", 2_000)
    assert len(tune) == len(test) == 2_000, "a held-out problem comes once"
    assert not train & tune
    assert not train & test
    assert not tune & test


def test_without_the_hash_the_splits_would_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = type("Any", (str,), {"__eq__": lambda self, other: True, "__hash__": str.__hash__})()
    monkeypatch.setattr(embedded, "split_of", lambda text: everything)
    assert signatures("train", 20_000) & signatures("test", 2_000)


def test_story_splits_share_no_scene() -> None:
    openings = {split: {embedded._scene(k, split)[:3] for k in range(300)} for split in ("train", "tune", "test")}
    assert not openings["train"] & openings["test"]
    assert not openings["train"] & openings["tune"]
    assert not openings["tune"] & openings["test"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_equation_is_right_and_ends_in_the_number(language: str) -> None:
    for k in range(150):
        one = problem(language, k)
        equations = EQUATION.findall(one.solution)
        assert equations
        for left, sign, right, result in equations:
            assert (
                int(result)
                == {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]
            )
        assert int(equations[-1][3]) == one.number == int(re.findall(r"\d+", one.solution)[-1])
        assert one.number == problem("en", k).number, "problem k is the same in every language"
        assert "{" not in one.question + one.solution


def test_a_question_holds_every_number_of_its_solution() -> None:
    for language in LANGUAGES:
        for k in range(50):
            one = problem(language, k)
            given = re.findall(r"\d+", one.question)
            for event in embedded._kept("test")[k].events:
                assert str(event.amount) in given


def test_stories_are_told_without_a_gap() -> None:
    for language in LANGUAGES:
        tale = story(language, 7)
        assert "{" not in tale.opening + tale.continuation
        assert tale == story(language, 7)


def test_unknown_language_has_no_grammar() -> None:
    with pytest.raises(KeyError):
        problem("xx", 0)


def test_tokenizer_keeps_digits_single_and_text_whole() -> None:
    texts = [problem(language, k, "train").question for language in LANGUAGES for k in range(30)]
    tokenizer = train_tokenizer(texts, 600, 512)
    assert len(tokenizer("1234").input_ids) == 4
    for language in LANGUAGES:
        text = problem(language, 99).question + problem(language, 99).solution
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_zipf_sums_to_one_and_skew_zero_is_even() -> None:
    assert zipf(("a", "b"), 0.0) == {"a": 0.5, "b": 0.5}
    skewed = zipf(("a", "b", "c"), 2.0)
    assert sum(skewed.values()) == pytest.approx(1.0)
    assert skewed["a"] / skewed["c"] == pytest.approx(9.0)


def test_batches_are_a_function_of_the_step_and_follow_the_mix() -> None:
    tokenizer = train_tokenizer([problem("en", k, "train").question for k in range(50)], 400, 512)
    make = source(tokenizer, {"en": 1.0, "te": 0.0}, 4, 5, problems=50)
    later = source(tokenizer, {"en": 1.0, "te": 0.0}, 4, 5, problems=50)
    first = [make(step)[0] for step in range(18)]
    assert all(later(step)[0].equal(first[step]) for step in (17, 3, 0, 16)), (
        "any order of steps gives the same batches"
    )
    text = tokenizer.decode(first[0].flatten().tolist())
    assert not re.search(r"[\u0c00-\u0c7f]", text)


def test_padding_has_no_weight_and_the_end_counts() -> None:
    ids, weights = pad([([5, 6, 7, EOS_ID], 2), ([5, EOS_ID], 1)])
    expected = torch.tensor([[PROMPT_WEIGHT, PROMPT_WEIGHT, 1, 1], [PROMPT_WEIGHT, 1, 0, 0]])
    assert weights.equal(expected)
    assert ids[1].tolist() == [5, EOS_ID, 0, 0]
