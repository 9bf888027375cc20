"""Numbers in every script and separator style, and texts that run in circles."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.filters.extraction import RegexFilter

from fairspec_bench.suite import answers, data
from fairspec_bench.suite.answers import looping, number
from fairspec_bench.suite.embedded import LANGUAGES

ZEROS = {"bn": "০", "te": "౦", "th": "๐", "hi": "०", "ar": "٠", "fullwidth": "０"}


def in_script(text: str, script: str) -> str:
    zero = ord(ZEROS[script])
    return "".join(chr(zero + int(c)) if c.isdigit() else c for c in text)


def grouped(value: int, separator: str) -> str:
    return f"{value:,}".replace(",", separator)


def indian(value: int) -> str:
    digits, sign = str(abs(value)), "-" * (value < 0)
    head, tail = digits[:-3], digits[-3:]
    pairs = re.findall(r"\d{1,2}(?=(?:\d\d)*$)", head)
    return sign + ",".join([*pairs, tail])


STYLES: dict[str, Callable[[int], str]] = {
    "plain": str,
    "1,000": lambda v: grouped(v, ","),
    "1.000": lambda v: grouped(v, "."),
    "1 000": lambda v: grouped(v, " "),
    "1 000 narrow": lambda v: grouped(v, "\u202f"),
    "1 000 no-break": lambda v: grouped(v, "\u00a0"),
    "1'000": lambda v: grouped(v, "'"),
    "1’000": lambda v: grouped(v, "’"),
    "1,00,000": indian,
    "18.00": lambda v: f"{v}.00",
    "18,00": lambda v: f"{v},00",
    "1,000.00": lambda v: f"{v:,}.00",
    "1.000,00": lambda v: grouped(v, ".") + ",00",
    "1 000,5 of cents 0": lambda v: grouped(v, " ") + ",0",
    "$": lambda v: f"${v:,}",
    "€ after": lambda v: grouped(v, ".") + " €",
    "৳": lambda v: f"৳{indian(v)}",
    "%": lambda v: f"{v} %",
    "TeX": lambda v: rf"$\boxed{{{grouped(v, '{,}')}}}$",
    "bold": lambda v: f"**{v}**",
    "unit squared": lambda v: f"{v} m²",
    **{f"{script} digits": lambda v, s=script: in_script(str(v), s) for script in ZEROS},  # type: ignore[misc]
    **{f"{script} grouped": lambda v, s=script: in_script(indian(v), s) for script in ("bn", "te", "hi")},  # type: ignore[misc]
    "full-width comma": lambda v: in_script(f"{v:,}", "fullwidth").replace(",", "，"),
    "Arabic separators": lambda v: in_script(f"{v:,}.0", "ar").replace(",", "٬").replace(".", "٫"),
}
FRAMES = ("The answer is {}.", "答えは{}です。", "উত্তর হল {}।", "Ответ — {}.", "3 + 2 = 5. సమాధానం {}", "8 - 3 =\n{}")


@pytest.mark.parametrize("style", STYLES)
def test_every_mgsm_target_is_read_in_every_style(data_dir: Path, style: str) -> None:
    targets = [item.answer for item in data.load("mgsm", "en").test]
    for frame in FRAMES:
        read = [number(frame.format(STYLES[style](int(target)))) for target in targets]
        assert sum(map(str.__eq__, map(str, read), targets)) == len(targets) == 250


def test_stock_extraction_fails_on_what_is_asked_here(data_dir: Path) -> None:
    """The planted rival: lm-eval's own flexible extraction reads none of these, so the test above is not empty."""
    stock = RegexFilter(regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    targets = [item.answer for item in data.load("mgsm", "en").test]
    for style in ("18.00", "18,00", "bn digits", "te digits", "th digits", "fullwidth digits"):
        read = stock.apply([[STYLES[style](int(t))] for t in targets], [])
        assert sum(r[0] == t for r, t in zip(read, targets, strict=True)) == 0


def test_exemplar_answers_in_all_languages(data_dir: Path) -> None:
    for language in LANGUAGES:
        shots = data.load("mgsm", language).shots
        wrong = [shot.number for shot in shots if number(shot.reasoning) != shot.answer]
        assert wrong == [], language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-5", "-5"),
        ("−5", "-5"),
        ("= –5", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("−€1.234,50", "-1234.5"),
        ("８－５=－３", "-3"),
        ("8-5", "5"),
        ("8 - 5", "5"),
        ("3–5", "5"),
        ("COVID-19", "19"),
        ("Ответ —11", "11"),
        ("-0.00", "0"),
        ("答えは-5です", "-5"),
        ("คำตอบคือ-5", "-5"),
        ("কোভিড-১৯", "19"),
        ("(8)-5", "5"),
        ("0.125", "0.125"),
        ("0,125", "0.125"),
        (".75", "0.75"),
        ("$.75", "0.75"),
        ("2.125", "2125"),
        ("1,2,3", "3"),
        ("1, 2, 3", "3"),
        ("in 2020 300 people", "300"),
        ("8万ドル", "80000"),
        ("1.5万元", "15000"),
        ("3億", "300000000"),
        ("3千克", "3"),
        ("007", "7"),
        ("9.బొమ్మలున్నాయి", "9"),
        ("½ m²", None),
        ("twelve", None),
        ("", None),
    ],
)
def test_signs_decimals_and_what_is_no_number(text: str, expected: str | None) -> None:
    assert number(text) == expected


@given(st.integers(-(10**12), 10**12), st.sampled_from(sorted(set(STYLES) - {"unit squared"})), st.sampled_from(FRAMES))
def test_any_whole_number_round_trips(value: int, style: str, frame: str) -> None:
    if value < 0 and style in {"$", "৳"}:
        value = -value
    assert number(frame.format(STYLES[style](value))) == str(value)


@settings(max_examples=60)
@given(st.text(max_size=80))
def test_any_text_gives_a_canonical_number_or_none(text: str) -> None:
    found = number(text)
    assert found is None or re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", found)


def test_a_long_run_of_digits_is_read_at_once() -> None:
    assert number("7" * 100_000) == "7" * 100_000
    assert number("1,000" * 20_000) is not None


def test_compatibility_normalisation_would_be_wrong() -> None:
    """The planted bug: NFKC turns m² into m2, whose 2 would be the answer."""
    assert number("18 m²") == "18"
    assert number(unicodedata.normalize("NFKC", "18 m²")) == "2"


# --------------------------------------------------------------------------- running in circles


def real_texts(folder: Path, language: str) -> list[str]:
    """Texts by people: MGSM exemplar answers and questions, MultiQ questions, NTREX sentences and whole documents."""
    mgsm = data.load("mgsm", language)
    names = [line.split("\t")[-1] for line in (folder / "ntrex/DOCUMENT_IDS.tsv").read_text().splitlines()]
    sentences = (folder / f"ntrex/{language}.txt").read_text(encoding="utf-8").split("\n")[: len(names)]
    documents = defaultdict(list)
    for name, sentence in zip(names, sentences, strict=True):
        documents[name].append(sentence)
    return [
        *(shot.reasoning for shot in mgsm.shots),
        *(item.question for item in mgsm.test),
        *(item.question for item in data.load("multiq", language).test),
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
        assert not any(looping(item.answer) for item in data.load(suite, language).test)


@pytest.mark.parametrize("language", LANGUAGES)
def test_loops_are_found_wherever_they_are_cut(data_dir: Path, language: str) -> None:
    for shot in data.load("mgsm", language).shots:
        unit = shot.reasoning[-20:] + " "
        for copies in (3, 5, 20):
            assert looping(shot.reasoning + unit * copies)
        assert looping((shot.reasoning + unit * 6)[:-7])
        assert not looping(shot.reasoning + " " + unit)


def test_a_counting_loop_is_a_loop() -> None:
    assert looping("".join(f"{n}. The next number is {n + 1}.\n" for n in range(30)))


def test_a_loop_with_variations_is_found_by_its_windows() -> None:
    names = ("Anna", "Ben", "Carl")
    told = (f"{names[n % 3]} went to the market to buy apples, and {names[n * n % 3]} stayed. " for n in range(20))
    text = "".join(told) + "That is all."
    assert not answers._ends_in_copies(text)
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

    assert answers._z_function(text) == [0, *(common(i) for i in range(1, len(text)))][: len(text)]


@pytest.mark.parametrize("text", [" " * 64, "の" * 58 + "ムの", "\ufffd的" * 21, "ok then: " + "ха" * 12 + "! Done."])
def test_dense_scripts_blanks_and_loops_that_end_are_loops(text: str) -> None:
    assert looping(text)
    assert not looping(text[: len(text) // 8])
