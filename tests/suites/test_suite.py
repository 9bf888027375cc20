"""Suites as a run sees them: prompts, clusters, keys, options, grades, refusals and what `fairspec tasks` prints."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.suites.embedded import DOMAINS, LANGUAGES, grammar
from fairspec_bench.suites.listing import list_suites, tasks_folder
from fairspec_bench.suites.sources import aya, base, registry
from fairspec_bench.suites.suite import Suite, describe, load_suite

ROOT = Path(__file__).resolve().parents[2]
SUITES = ("embedded_math", "embedded_story", "mgsm", "multiq")


@pytest.fixture(scope="module")
def suites(data_dir: Path) -> dict[str, Suite]:
    return {name: load_suite(name, limit=3) for name in SUITES}


def published(data_dir: Path, language: str) -> list[str]:
    """The exemplars exactly as published: question, newline, answer."""
    known = json.loads((data_dir / "mgsm/exemplars.json").read_text(encoding="utf-8"))["exemplars"][language]
    return [known[str(n)]["q"] + "\n" + known[str(n)]["a"] for n in range(1, 9)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_mgsm_prompts_are_byte_equal_with_the_published_exemplars(data_dir: Path, language: str) -> None:
    shots = published(data_dir, language)
    suite = load_suite("mgsm", languages=[language])
    questions = [item.question for item in registry.load("mgsm", language).test]
    question_header = shots[0][: shots[0].index(registry.load("mgsm", language).shots[0].question)]
    answer_header = shots[0].split("\n")[1].removesuffix(registry.load("mgsm", language).shots[0].reasoning).rstrip(" ")
    head = "\n\n".join(shots) + "\n\n" + question_header
    assert [prompt.text for prompt in suite.prompts] == [f"{head}{q}\n{answer_header}" for q in questions]
    assert len(suite.prompts) == 250
    for prompt in suite.prompts:
        assert prompt.stops == ("\n" + question_header.rstrip(" "),)


def test_a_changed_delimiter_would_be_seen(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: with a space after the Japanese header the prompt is no longer the published one."""
    shutil.copytree(tasks_folder(), tmp_path / "tasks")
    path = tmp_path / "tasks/mgsm/fairspec_mgsm_ja.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace('target_delimiter: ""', 'target_delimiter: " "'))
    monkeypatch.setattr("fairspec_bench.suites.suite.tasks_folder", lambda: tmp_path / "tasks")
    text = load_suite("mgsm", languages=["ja"], limit=1).prompts[0].text
    assert text is not None
    assert not text.startswith("\n\n".join(published(data_dir, "ja")))


def test_keys_clusters_and_order(suites: dict[str, Suite]) -> None:
    for name, suite in suites.items():
        assert suite.languages == LANGUAGES
        keys = [f"{name}/{language}/{k}" for language in LANGUAGES for k in range(3)]
        assert [prompt.key for prompt in suite.prompts] == keys
        clusters = [prompt.cluster for prompt in suite.prompts]
        assert clusters == clusters[:3] * len(LANGUAGES)
        assert len(set(clusters)) == 3
        assert all(prompt.cluster.startswith(f"{name}/") for prompt in suite.prompts)


def test_embedded_prompts_end_with_their_header_and_stop_at_the_next_question(suites: dict[str, Suite]) -> None:
    for prompt in suites["embedded_math"].prompts:
        words = grammar(prompt.language)
        assert prompt.text is not None
        assert prompt.text.endswith("\n" + words["answer"])
        assert prompt.stops == ("\n" + words["question"].rstrip(),)
    assert {prompt.stops for prompt in suites["embedded_story"].prompts} == {()}
    assert all(prompt.target for prompt in suites["embedded_story"].prompts)


def test_hash_covers_all_questions_whatever_the_limit(suites: dict[str, Suite]) -> None:
    for name, suite in suites.items():
        assert dict(suite.data_sha256) == {lang: base.data_sha256(registry.load(name, lang).test) for lang in LANGUAGES}


# --------------------------------------------------------------------------- options


def test_options(data_dir: Path) -> None:
    suite = load_suite("mgsm", languages=["te", "en", "te"], limit=2, num_fewshot=1, max_new_tokens=7)
    assert suite.languages == ("te", "en")
    assert len(suite.prompts) == 4
    assert {prompt.max_new_tokens for prompt in suite.prompts} == {suite.max_new_tokens} == {7}
    assert suite.prompts[2].text is not None
    assert suite.prompts[2].text.startswith(published(data_dir, "en")[0] + "\n\nQuestion: Janet")
    config = suite.config({"te": "0" * 64, "en": "1" * 64})
    assert (config.num_fewshot, config.max_new_tokens, config.limit, config.languages) == (1, 7, 2, ("te", "en"))
    bare = load_suite("mgsm", languages=["en"], limit=1, num_fewshot=0).prompts[0].text
    assert bare is not None
    assert bare.startswith("Question: Janet")


def test_chat_messages(data_dir: Path) -> None:
    turns = load_suite("mgsm", languages=["ja"], limit=1, apply_chat_template=True, system_instruction="S").prompts[0]
    assert turns.text is None
    assert turns.messages is not None
    assert [m.role for m in turns.messages] == ["system", *["user", "assistant"] * 8, "user"]
    pairs = zip(turns.messages[1:-1:2], turns.messages[2:-1:2], strict=True)
    assert [q.content + a.content for q, a in pairs] == published(data_dir, "ja")
    text = load_suite("mgsm", languages=["ja"], limit=1).prompts[0].text
    single = load_suite("mgsm", languages=["ja"], limit=1, apply_chat_template=True, fewshot_as_multiturn=False)
    assert single.prompts[0].messages is not None
    assert [(m.role, m.content) for m in single.prompts[0].messages] == [("user", text)]


def test_any_language_of_multiq(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "multiq").mkdir()
    lines = "id,language,prompt,domain\ngpt-1,ha,Menene sunan?,none\ngpt-1,zh-TW,水的化學式是什麼？,none\n"
    (tmp_path / "multiq/multiq.csv").write_text(lines, encoding="utf-8")
    monkeypatch.setenv(base.DATA_DIR, str(tmp_path))
    suite = load_suite("multiq", languages=["ha", "zh-TW"])
    assert [prompt.text for prompt in suite.prompts] == ["Menene sunan?", "水的化學式是什麼？"]
    assert suite.grade(suite.prompts[0], "Wannan ita ce amsa mai kyau ga tambayar da aka yi yanzu.").language == "ha"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"name": "gsm8k"},
            "unknown suite 'gsm8k'. Did you mean mgsm? Known: aya, aya_edited, aya_written, embedded_domain,",
        ),
        ({"name": "mgsm", "languages": ["ja", "xx"]}, "mgsm: unknown language 'xx'. Known: bn, de, en"),
        ({"name": "mgsm", "languages": ["../en"]}, "unknown language '../en'"),
        ({"name": "mgsm", "languages": []}, "no language chosen"),
        ({"name": "multiq", "languages": ["xx"]}, "multiq: unknown language 'xx'. Known: bn, de"),
        ({"name": "mgsm", "limit": 0}, "limit=0: must be at least 1"),
        ({"name": "mgsm", "max_new_tokens": -1}, "max_new_tokens=-1: must be at least 1"),
        ({"name": "mgsm", "num_fewshot": 9}, "num_fewshot=9: mgsm has 8 exemplars; give 0 to 8"),
        ({"name": "embedded_math", "num_fewshot": 1}, "embedded_math has 0 exemplars"),
    ],
)
def test_refusals_are_one_line(data_dir: Path, arguments: dict[str, object], expected: str) -> None:
    with pytest.raises(FairspecError) as caught:
        load_suite(**arguments)  # type: ignore[arg-type]
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------- grading


def test_a_reference_is_a_text_to_go_on_with_and_no_answer(suites: dict[str, Suite]) -> None:
    targets = {name: suite.target_text(suite.prompts[0]) for name, suite in suites.items()}
    answered = {name for name, suite in suites.items() if suite.has_answers}
    assert answered == {name for name in suites if name.endswith(("math", "mgsm"))}
    assert {name for name, text in targets.items() if text} == {name for name in suites if name == "embedded_story"}


def test_grades(suites: dict[str, Suite]) -> None:
    suite = suites["mgsm"]
    prompt = next(p for p in suite.prompts if p.key == "mgsm/te/2")
    right = suite.grade(prompt, "జోష్ లాభం ౭౦,౦౦౦.00 డాలర్లు. సమాధానం ౭౦,౦౦౦.", keep_text=True)
    assert (right.correct, right.language, right.looping) == (True, "te", False)
    assert right.text is not None
    assert (right.chars, right.bytes) == (len(right.text), len(right.text.encode()))
    for wrong in ("7000", "70000.5", "-70000", "700.00", "no number", ""):
        assert suite.grade(prompt, wrong).correct is False
    assert suite.grade(prompt, "70000").text is None
    for name in ("multiq", "embedded_story"):
        answer = suites[name].grade(suites[name].prompts[0], "18 " * 40)
        assert (answer.correct, answer.language, answer.looping) == (None, None, True)


def test_every_reference_answer_of_the_built_in_problems_is_right() -> None:
    from fairspec_bench.suites.embedded import problem

    suite = load_suite("embedded_math", limit=40)
    for prompt in suite.prompts:
        solution = problem(prompt.language, int(prompt.key.split("/")[2])).solution
        assert suite.grade(prompt, solution).correct is True


# --------------------------------------------------------------------------- what is said of the suites


def test_list_and_describe(data_dir: Path) -> None:
    assert tuple(info.name for info in list_suites()) == (*aya.SUBSETS, "embedded_domain", *SUITES)
    for info in list_suites():
        if info.name in aya.SUBSETS:
            continue  # its data is made up in tests/suites/sources/test_aya.py
        status = describe(info.name)
        assert info.languages == (DOMAINS if info.name == "embedded_domain" else LANGUAGES)
        assert status.problem is None
        assert set(status.prompts.values()) <= {200, 250}
        assert set(status.as_published.values()) == ({True} if info.published_sha256 else {None})
    assert {info.licence for info in list_suites()} == {"Apache-2.0", "CC-BY-4.0"}


def test_describe_without_data_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mgsm").mkdir()
    monkeypatch.setenv(base.DATA_DIR, str(tmp_path))
    status = describe("mgsm")
    assert status.problem is not None
    assert "mgsm_bn.tsv: missing" in status.problem
    assert status.prompts == {}


def test_changed_data_is_seen(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(data_dir / "mgsm", tmp_path / "mgsm", copy_function=shutil.copyfile)
    path = tmp_path / "mgsm/mgsm_en.tsv"
    path.write_bytes(path.read_bytes().replace(b"Janet", b"Janice", 1))
    monkeypatch.setenv(base.DATA_DIR, str(tmp_path))
    assert [lang for lang, same in describe("mgsm").as_published.items() if not same] == ["en"]


def test_files_agree_with_their_groups() -> None:
    for info in list_suites():
        if info.file.name != "_group.yaml":
            continue  # a suite in one file
        folder = tasks_folder() / info.name
        base = (tasks_folder() / f"{info.name}.base").read_text(encoding="utf-8")
        assert f"version: {info.version}\n" in base
        limits, seen = set(), set()
        for path in folder.glob(f"fairspec_{info.name}_*.yaml"):
            task = yaml.safe_load(path.read_text(encoding="utf-8"))
            language = task["task"].removeprefix(f"fairspec_{info.name}_")
            assert task["dataset_kwargs"] == {"suite": info.name, "language": language}
            assert path.stem == task["task"]
            limits.add(task.get("generation_kwargs", {}).get("max_gen_toks"))
            seen.add(language)
        assert len(limits) == 1
        assert seen >= set(info.languages)


RENDERED = {
    ("mgsm", "1.0"): "b82f50b9df64c9ad14da43b06b3cfa28d9e9ef74a9f618a0260562c2d765770c",
    ("multiq", "1.0"): "9444079ecc0d9d03c8a82f87becf7bb7aa8667d182c3acaa0b75ff7a6f596e75",
    ("embedded_math", "1.0"): "d25da550c25b3c9836f9f79a9197d1f88eb686d9a91f694e2b423ca32e2ccdc6",
    ("embedded_story", "1.0"): "15fc8b5920aaa8fd567a3bc00441435d5ee1989c153151dbc7b1876b7b9c75e1",
}


@pytest.mark.parametrize("name", [name for name, _ in RENDERED])
def test_a_changed_prompt_needs_a_new_version(suites: dict[str, Suite], name: str) -> None:
    """If this fails, the prompts changed: raise the version in the base and group file, then pin the new hash here."""
    text = "".join(f"{p.key}\x1f{p.text}\x1f{p.stops}\x1f{p.max_new_tokens}\x1e" for p in suites[name].prompts)
    assert RENDERED[name, suites[name].version] == hashlib.sha256(text.encode()).hexdigest()


def test_caps_leave_room_in_every_language(data_dir: Path, suites: dict[str, Suite]) -> None:
    """Not even a tokenizer of single bytes cuts an exemplar answer; see the task files for measured token counts."""
    for language in LANGUAGES:
        longest = max(len(shot.reasoning.encode()) for shot in registry.load("mgsm", language).shots)
        assert longest <= suites["mgsm"].max_new_tokens


# --------------------------------------------------------------------------- places


def run_elsewhere(code: str, folder: Path, path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_suites_travel_in_the_package(tmp_path: Path) -> None:
    """As the wheel lays them out: `_tasks` inside the package, nothing beside it."""
    shutil.copytree(
        ROOT / "fairspec_bench", tmp_path / "lib/fairspec_bench", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "tasks", tmp_path / "lib/fairspec_bench/_tasks")
    code = (
        "from fairspec_bench.suites import listing, suite\n"
        "print(suite.load_suite('embedded_math', languages=['th'], limit=1).prompts[0].key, listing.tasks_folder())"
    )
    assert run_elsewhere(code, tmp_path, tmp_path / "lib").split() == [
        "embedded_math/th/0",
        str(tmp_path / "lib/fairspec_bench/_tasks"),
    ]


def test_task_files_need_no_installed_package(tmp_path: Path) -> None:
    """As plain lm-eval sees a checkout: the package is on no path."""
    code = (
        "from lm_eval.tasks import TaskManager\n"
        f"manager = TaskManager(include_path={str(ROOT / 'tasks')!r}, include_defaults=False)\n"
        "print(len(manager.load(['fairspec_embedded_math'])['tasks']))"
    )
    assert run_elsewhere(code, tmp_path, tmp_path).split() == ["11"]
