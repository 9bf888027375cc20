"""Aya's three subsets on made-up rows of their published columns, from Parquet, JSON lines and the Hub's client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.tasks import TaskManager
from tiny_pair import save_pair

import fairspec_bench as fairspec
from fairspec_bench.cli.main import main
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.io import read_record
from fairspec_bench.suites.listing import list_suites, tasks_folder
from fairspec_bench.suites.sources import aya, base, registry
from fairspec_bench.suites.suite import describe, load_suite

Row = dict[str, Any]
SCRIPTS = {"ben": "Beng", "jpn": "Jpan", "rus": "Cyrl", "tel": "Telu", "tha": "Thai", "zho": "Hans", "arb": "Arab"}
MACHINE = ("ben", "deu", "eng", "spa", "fra", "jpn", "rus", "swh", "tel", "tha", "zho", "kmr", "ace", "npi")
EDITED = ("arb", "spa", "fra", "hin", "rus", "srp")
WRITTEN = ("arb", "eng", "por", "tel", "tur", "yor", "zho")
SOURCES = (9041, 17, 620)
"""Numbers of Dolly's prompts, in no order."""


def row(language: str, source: int, number: int, script: str | None = None, **changes: object) -> Row:
    made: Row = {
        "id": number,
        "inputs": f"{language} {script or ''} asks {source}?",
        "targets": f"{language} answers.",
        "language": language,
        "script": script or SCRIPTS.get(language, "Latn"),
        "source_id": source,
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def subsets() -> dict[str, list[Row]]:
    """Rows as the dataset's card gives their columns: only translated prompts have a `source_id`."""
    machine = [row(language, source, k) for k, source in enumerate(SOURCES) for language in MACHINE]
    machine += [row("zho", source, 50 + k, "Hant") for k, source in enumerate(SOURCES)]
    machine += [row("ace", source, 60 + k, "Arab") for k, source in enumerate(SOURCES)]
    edited = [row(language, source, k) for language in EDITED for k, source in enumerate(reversed(SOURCES))]
    written = [row(language, k, k, source_id=None) for language in WRITTEN for k in (4, 0, 2)]
    return {"dolly_machine_translated": machine, "dolly_human_edited": edited, "aya_human_annotated": written}


def put(root: Path, form: str) -> None:
    """Write all three subsets under `aya/`, as Parquet where the Hub has it, or as JSON lines."""
    for subset, rows in subsets().items():
        home = root / "aya" / subset
        if form == "parquet":
            home.mkdir(parents=True)
            half = len(rows) // 2
            for number, part in enumerate((rows[:half], rows[half:])):
                datasets.Dataset.from_list(part).to_parquet(str(home / f"test-{number:05d}-of-00002.parquet"))
        else:
            home.parent.mkdir(exist_ok=True)
            lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)
            home.with_suffix(".jsonl").write_text(lines, encoding="utf-8")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    aya._rows_from_hub.cache_clear()
    yield
    aya._rows_from_hub.cache_clear()


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put(tmp_path, "jsonl")
    monkeypatch.setenv(base.DATA_DIR, str(tmp_path))
    return tmp_path


def refusal(suite: str, language: str) -> str:
    with pytest.raises(FairspecError) as caught:
        registry.load(suite, language)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything() -> dict[str, dict[str, base.Data]]:
    return {
        suite: {language: registry.load(suite, language) for language in aya.languages(suite)} for suite in aya.SUBSETS
    }


def test_all_sources_give_the_same_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for form in ("parquet", "jsonl"):
        put(tmp_path / form, form) if form == "parquet" else (tmp_path / form).mkdir()
        if form == "jsonl":
            put(tmp_path / form, form)
        monkeypatch.setenv(base.DATA_DIR, str(tmp_path / form))
        found.append(everything())
    monkeypatch.delenv(base.DATA_DIR)
    made = subsets()

    def load_dataset(name: str, subset: str) -> dict[str, datasets.Dataset]:
        assert name == "CohereLabs/aya_evaluation_suite"
        return {"test": datasets.Dataset.from_list(made[subset])}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found.append(everything())
    assert found[0] == found[1] == found[2]
    assert set(found[0]["aya"]) == {
        "bn",
        "de",
        "en",
        "es",
        "fr",
        "ja",
        "ru",
        "sw",
        "te",
        "th",
        "zh",
        "zh-Hant",
        "ku",
    } | {
        "ace",
        "ace-Arab",
        "ne",
    }


@pytest.mark.parametrize("suite", aya.SUBSETS)
def test_the_group_names_what_the_data_has(suite: str, local: Path) -> None:
    info = next(each for each in list_suites() if each.name == suite)
    assert set(info.languages) <= set(aya.languages(suite))
    if suite != "aya":
        assert set(info.languages) == set(aya.languages(suite))
    assert "not yet tried" in info.title
    assert describe(suite).prompts == dict.fromkeys(info.languages, 3)
    assert describe(suite).problem is None


def test_a_translated_prompt_is_one_problem_in_all_languages(local: Path) -> None:
    clusters = [f"aya/{source}" for source in sorted(SOURCES)]
    for suite in ("aya", "aya_edited"):
        for language in aya.languages(suite):
            items = registry.load(suite, language).test
            assert [item.cluster for item in items] == clusters
            assert [item.number for item in items] == [0, 1, 2]
            assert all(
                item.question.endswith(f" {source}?") for item, source in zip(items, sorted(SOURCES), strict=True)
            )
    assert registry.load("aya", "zh-Hant").test[0].question == "zho Hant asks 17?"
    written = {language: registry.load("aya_written", language).test for language in aya.languages("aya_written")}
    assert [item.cluster for item in written["te"]] == ["aya/te/0", "aya/te/2", "aya/te/4"]
    assert len({item.cluster for items in written.values() for item in items}) == 3 * len(WRITTEN)


def test_a_planted_bug_is_seen(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters by row number within a language."""
    monkeypatch.setattr(aya, "_number_column", lambda suite: "id")
    with pytest.raises(AssertionError):
        test_a_translated_prompt_is_one_problem_in_all_languages(local)


def test_prompts_are_the_inputs_and_any_language_may_be_asked_for(local: Path) -> None:
    suite = load_suite("aya", languages=["ku", "sw"], limit=2)
    assert [prompt.text for prompt in suite.prompts] == [
        "kmr  asks 17?",
        "kmr  asks 620?",
        "swh  asks 17?",
        "swh  asks 620?",
    ]
    assert (suite.max_new_tokens, suite.num_fewshot, suite.has_answers) == (2048, 0, False)
    assert suite.prompts[0].target is None
    assert suite.grade(suite.prompts[0], "yes").correct is None
    chat = load_suite("aya_edited", languages=["hi"], limit=1, apply_chat_template=True).prompts[0]
    assert chat.messages is not None
    assert [turn.content for turn in chat.messages] == ["hin  asks 17?"]
    with pytest.raises(FairspecError, match=r"unknown language 'de'\. Known: ar, es, fr, hi, ru, sr"):
        load_suite("aya_edited", languages=["de"])


def test_they_are_plain_lm_eval_tasks(local: Path) -> None:
    manager = TaskManager(include_path=str(tasks_folder()), include_defaults=False)
    for suite, language in (("aya", "te"), ("aya_edited", "sr"), ("aya_written", "yo")):
        task = manager.load([f"fairspec_{suite}_{language}"])["tasks"][f"fairspec_{suite}_{language}"]
        assert len(list(task.test_docs())) == 3


def test_fairspec_tasks_says_that_it_is_not_yet_tried(local: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tasks", "aya"])
    out = capsys.readouterr().out
    assert "not yet tried on the Hub's own files" in out
    assert "licence Apache-2.0, https://huggingface.co/datasets/CohereLabs/aya_evaluation_suite" in out
    assert out.endswith("ben  asks 17?\n")


def test_a_run_resamples_problems(local: Path, tmp_path: Path) -> None:
    verifier, drafter = save_pair(tmp_path / "pair")
    options: dict[str, Any] = {
        "languages": ("en", "ku"),
        "limit": 2,
        "max_new_tokens": 8,
        "batch_size": 2,
        "race_rounds": 0,
    }
    report = fairspec.run(str(verifier), str(drafter), ["aya"], tmp_path / "run", cache=None, **options)
    assert [task.task for task in report.suites[0].tasks] == ["aya/en", "aya/ku"]
    assert read_record(tmp_path / "run/run.json", RunConfig).clusters == {
        f"aya/{language}/{k}": f"aya/{source}" for language in ("en", "ku") for k, source in enumerate((17, 620))
    }


# --------------------------------------------------------------------------- damage

CHANGES: dict[str, tuple[Callable[[Row], Row], str]] = {
    "no source_id": (
        lambda each: {k: v for k, v in each.items() if k != "source_id"},
        ":1: no whole number in source_id",
    ),
    "text for a number": (lambda each: each | {"source_id": "17"}, ":1: no whole number in source_id"),
    "no inputs": (lambda each: {k: v for k, v in each.items() if k != "inputs"}, ":1: no text in inputs"),
    "empty": (lambda each: each | {"inputs": " \n"}, ":1: inputs is empty"),
    "no script": (lambda each: each | {"script": None}, ":1: no text in script"),
    "a list": (lambda each: [each], ":1: no text in inputs"),  # type: ignore[dict-item,return-value]
}


@pytest.mark.parametrize("name", CHANGES)
def test_damaged_rows_name_file_and_line(name: str, local: Path) -> None:
    change, words = CHANGES[name]
    path = local / "aya/dolly_machine_translated.jsonl"
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([json.dumps(change(json.loads(first))), *rest]), encoding="utf-8")
    assert f"{path}{words}" in refusal("aya", "bn")


def test_other_damage_is_one_line(local: Path, tmp_path: Path) -> None:
    path = local / "aya/dolly_machine_translated.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + text.partition("\n")[0], encoding="utf-8")
    assert "source_id 9041 occurs twice in bn" in refusal("aya", "bn")
    path.write_text(text[:-9], encoding="utf-8")
    assert f"{path}:48: not JSON" in refusal("aya", "bn")
    path.write_text(text, encoding="utf-8")
    assert "no language 'xx'. Known: ace, ace-Arab, bn" in refusal("aya", "xx")
    path.unlink()
    assert f"{path}: missing. Get it from huggingface.co/datasets/CohereLabs" in refusal("aya", "bn")
    folder = local / "aya/dolly_machine_translated"
    folder.mkdir()
    assert f"{folder}: no *.parquet in it" in refusal("aya", "bn")
    (folder / "test.parquet").write_bytes(b"PAR1 no PAR1")
    assert "test.parquet: not Parquet" in refusal("aya", "bn")


def test_without_data_it_is_said_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(base.DATA_DIR, str(tmp_path))
    message = refusal("aya_edited", "hi")
    assert "Put dolly_human_edited/*.parquet from huggingface.co/datasets/CohereLabs/aya_evaluation_suite" in message
    assert f"into a folder aya/ and let {base.DATA_DIR} name the folder above it" in message
