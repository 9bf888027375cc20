"""The identifier on real text: right in every language, silent where it cannot know, not led by what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairspec_bench.suites.embedded import LANGUAGES
from fairspec_bench.suites.language_id import MIN_LETTER_BYTES, identify
from fairspec_bench.suites.sources import registry


def sentences(folder: Path, language: str) -> list[str]:
    return (folder / f"ntrex/{language}.txt").read_text(encoding="utf-8").split("\n")[:1997:10]


@pytest.mark.parametrize("language", LANGUAGES)
def test_real_text_is_recognised(data_dir: Path, language: str) -> None:
    mgsm = registry.load("mgsm", language)
    texts = {
        "mgsm": [item.question for item in mgsm.test[::2]],
        "exemplars": [shot.reasoning for shot in mgsm.shots],
        "multiq": [item.question for item in registry.load("multiq", language).test],
        "ntrex": sentences(data_dir, language),
    }
    least = {"mgsm": 0.992, "exemplars": 1.0, "multiq": 0.985, "ntrex": 0.985}
    for source, each in texts.items():
        found = [identify(text, language) for text in each]
        verdicts = [code for code in found if code is not None]
        assert verdicts.count(language) / len(verdicts) >= least[source], source


@pytest.mark.parametrize("suite", ["embedded_math", "embedded_story"])
def test_built_in_text_is_recognised(suite: str) -> None:
    for language in LANGUAGES:
        items = registry.load(suite, language).test[::5]
        found = [identify(item.question, language) for item in items]
        verdicts = [code for code in found if code is not None]
        assert verdicts.count(language) >= 0.98 * len(verdicts), language


def test_another_language_is_seen_whatever_was_expected(data_dir: Path) -> None:
    for language in LANGUAGES:
        for expected in LANGUAGES:
            found = [identify(text, expected) for text in sentences(data_dir, language)[:8]]
            assert sum(code in (language, None) for code in found) >= 7, (language, expected)


def test_short_texts_digits_and_formulas_get_no_verdict() -> None:
    formula = r"\frac{1}{2} \cdot \text{ } = \boxed{18}"
    for text in ("", "18", "5 + 6 = 11", "Yes.", "水の化学式はH2Oです。", formula, "7" * 500):
        assert identify(text, "ja") is None
    assert identify("x" * (MIN_LETTER_BYTES - 1)) is None


def test_digits_do_not_count_as_letters(data_dir: Path) -> None:
    """The planted bug: counted by bytes of text, a sum with one English word would get a verdict."""
    assert identify("5 + 6 = 11, 11 - 3 = 8, 8 * 12 = 96, 96 / 4 = 24 ok", "te") is None


def test_chinese_keeps_the_name_it_was_asked_by(data_dir: Path) -> None:
    text = registry.load("multiq", "zh-TW").test[1].question * 2
    assert identify(text, "zh-TW") == "zh-TW"
    assert identify(text, "zh") == "zh"
    assert identify(text, "en") == "zh"


def test_no_verdict_on_a_language_it_does_not_know() -> None:
    text = "This is a rather long sentence, written in plain English."
    assert identify(text, "ee") is None
    assert identify(text, "ig") == "en"
    assert identify(text) == "en"
