"""Texts that repeat themselves."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairspec_bench.suites import grading
from fairspec_bench.suites.embedded import LANGUAGES
from fairspec_bench.suites.grading import looping
from fairspec_bench.suites.sources import registry

# --------------------------------------------------------------------------- running in circles


def real_texts(folder: Path, language: str) -> list[str]:
    """Texts by people: MGSM exemplar answers and questions, MultiQ questions, NTREX sentences and whole documents."""
    mgsm = registry.load("mgsm", language)
    names = [line.split("\t")[-1] for line in (folder / "ntrex/DOCUMENT_IDS.tsv").read_text().splitlines()]
    sentences = (folder / f"ntrex/{language}.txt").read_text(encoding="utf-8").split("\n")[: len(names)]
    documents = defaultdict(list)
    for name, sentence in zip(names, sentences, strict=True):
        documents[name].append(sentence)
    return [
        *(shot.reasoning for shot in mgsm.shots),
        *(item.question for item in mgsm.test),
        *(item.question for item in registry.load("multiq", language).test),
        *sentences[::4],
        *(" ".join(document)[:4000] for document in list(documents.values())[::4]),
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_real_text_loops(data_dir: Path, language: str) -> None:
    texts = real_texts(data_dir, language)
    assert len(texts) > 950
    assert [text for text in texts if looping(text)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_built_in_answers_do_not_loop(language: str) -> None:
    for suite in ("embedded_math", "embedded_story"):
        assert not any(looping(item.answer) for item in registry.load(suite, language).test)


@pytest.mark.parametrize("language", LANGUAGES)
def test_loops_are_found_wherever_they_are_cut(data_dir: Path, language: str) -> None:
    for shot in registry.load("mgsm", language).shots:
        unit = shot.reasoning[-20:] + " "
        for copies in (3, 5, 20):
            assert looping(shot.reasoning + unit * copies)
        assert looping((shot.reasoning + unit * 6)[:-7])
        assert not looping(shot.reasoning + " " + unit)


def test_a_counting_loop_is_a_loop() -> None:
    assert looping("".join(f"{n}. The next number is {n + 1}.\n" for n in range(30)))


def test_a_loop_with_variations_is_found_by_its_windows() -> None:
    names = ("Anna", "Ben", "Carl")
    sentences = (f"{names[n % 3]} went to the market to buy apples, and {names[n * n % 3]} stayed. " for n in range(20))
    text = "".join(sentences) + "That is all."
    assert not grading._ends_in_copies(text)
    assert looping(text)


def test_short_tails_are_no_loops() -> None:
    for text in ("1000000", "ha ha ha ha", "=" * 40, "จริงๆๆๆๆ", "No. No. No."):
        assert not looping(text)


def test_the_published_telugu_slip_is_no_loop(data_dir: Path) -> None:
    """Telugu exemplar 3 ends in a word written three times over; it is published so and must not be flagged."""
    worked = json.loads((data_dir / "mgsm/exemplars.json").read_text(encoding="utf-8"))["exemplars"]["te"]["3"]["a"]
    assert worked.endswith("లుచాక్లెట్\u200cలుచాక్లెట్\u200cలు")
    assert not looping(worked)


@given(st.text("ab", max_size=60))
def test_z_function_against_its_definition(text: str) -> None:
    def common(i: int) -> int:
        return next((k for k in range(len(text) - i) if text[k] != text[i + k]), len(text) - i)

    assert grading._z_function(text) == [0, *(common(i) for i in range(1, len(text)))][: len(text)]


@pytest.mark.parametrize("text", [" " * 64, "の" * 58 + "ムの", "\ufffd的" * 21, "ok then: " + "ха" * 12 + "! Done."])
def test_dense_scripts_blanks_and_loops_that_end_are_loops(text: str) -> None:
    assert looping(text)
    assert not looping(text[: len(text) // 8])
