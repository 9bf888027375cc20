"""Training prompts: where they come from, that none is a suite's question, and what a bad folder says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.suites.embedded import problem
from fairspec_bench.suites.suite import load_suite
from fairspec_bench.suites.training_prompts import refuse_suite_prompts, training_prompts


def test_the_built_in_prompts_are_of_every_language_and_of_no_suite() -> None:
    prompts = training_prompts(["embedded_math", "embedded_story"], limit=30)
    tasks = {(prompt.suite, prompt.language) for prompt in prompts}
    assert len(tasks) == 22
    assert {sum(p.suite == s and p.language == lang for p in prompts) for s, lang in tasks if s == "embedded_math"} == {
        30
    }
    found = refuse_suite_prompts(prompts)
    assert {"embedded_math", "embedded_story"} <= set(found.checked)
    # As in the suite: the same stops and max_new_tokens, so that texts end alike.
    asked = load_suite("embedded_math", languages=["te"], limit=1).prompts[0]
    mine = next(prompt for prompt in prompts if (prompt.suite, prompt.language) == ("embedded_math", "te"))
    assert (mine.stops, mine.max_new_tokens) == (asked.stops, asked.max_new_tokens)


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def test_a_folder_gives_a_task_a_file_whatever_it_stands_for(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"prompt": text}) + "\n" for text in ("one\ntwo", "three"))
    folder = write(tmp_path / "domains", law__txt="a\n\nb\na\nc\n", code__jsonl=lines)
    prompts = training_prompts([str(folder)], max_new_tokens=9)
    texts = [(prompt.suite, prompt.language, prompt.text) for prompt in prompts]
    assert texts == [
        ("domains", "code", "one\ntwo"),
        ("domains", "code", "three"),
        ("domains", "law", "a"),
        ("domains", "law", "b"),
        ("domains", "law", "c"),
    ]
    assert {prompt.max_new_tokens for prompt in prompts} == {9}
    assert [p.text for p in training_prompts([str(folder)], languages=["law"], limit=2)] == ["a", "b"]


@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: text,
        lambda text: text.upper(),
        lambda text: "  " + text.replace(" ", "  ") + "\n",
        lambda text: "Some other text.\n\n" + text,
    ],
)
def test_a_question_of_a_suite_is_refused_however_it_is_dressed(disguise: object, tmp_path: Path) -> None:
    question = problem("en", 3, "test").question
    folder = write(tmp_path / "f", en__jsonl=json.dumps({"prompt": disguise(question)}) + "\n")  # type: ignore[operator]
    with pytest.raises(FairspecError, match=r"is a question of suite embedded_math\. Remove it"):
        refuse_suite_prompts(training_prompts([str(folder)]))


def test_mgsm_questions_are_refused_where_the_data_is_at_hand(data_dir: Path, tmp_path: Path) -> None:
    question = (data_dir / "mgsm" / "mgsm_sw.tsv").read_text(encoding="utf-8").splitlines()[0].split("\t")[0]
    folder = write(tmp_path / "f", sw__txt=question + "\n")
    with pytest.raises(FairspecError, match="question of suite mgsm"):
        refuse_suite_prompts(training_prompts([str(folder)]))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no training prompts in"),
        ({"en__jsonl": '{"text": "a"}\n'}, r'en.jsonl:1: not an object with a field "prompt"'),
        ({"en__jsonl": '{"prompt": "a"}\n[1]\n'}, r"en.jsonl:2: not an object"),
        ({"en__jsonl": '{"prompt": 3}\n'}, r"en.jsonl:1: prompt is not text"),
    ],
)
def test_a_bad_folder_is_one_line(files: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(FairspecError, match=says) as caught:
        training_prompts([str(write(tmp_path / "f", **files))])
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FairspecError, match=r"no such folder\. Known names: embedded_math"):
        training_prompts([str(tmp_path / "nowhere")])
    with pytest.raises(FairspecError, match="no training prompts for 'xx'"):
        training_prompts(["embedded_math"], languages=["en", "xx"], limit=1)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "en.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FairspecError, match="not UTF-8"):
        training_prompts([str(tmp_path / "f")])
