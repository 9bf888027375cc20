"""The pair files: whole, right where a mistake would mislead, and invisible to lm-eval and to the list of suites."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.suites import pairs
from fairspec_bench.suites.listing import list_suites, tasks_folder
from fairspec_bench.suites.pairs import list_pairs, load_pair_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tasks_folder(), tmp_path / "tasks")
    monkeypatch.setattr(pairs, "tasks_folder", lambda: tmp_path / "tasks")
    return tmp_path / "tasks" / "pairs"


def test_the_pairs_that_studies_name_are_there() -> None:
    found = {(pair.drafter.model, pair.verifier.model) for pair in list_pairs()}
    assert {
        ("embedded:drafter", "embedded:verifier"),
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-3B"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-4B-Base"),
        ("Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-8B-Base"),
        ("google/gemma-3-270m-it", "google/gemma-3-4b-it"),
        ("google/gemma-3-1b-it", "google/gemma-3-4b-it"),
        ("meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-3B-Instruct"),
        ("meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    } <= found


def test_licences_go_with_their_families() -> None:
    named = {
        "Qwen/Qwen2.5-3B": "Qwen Research License (non-commercial)",
        "google/": "Gemma Terms of Use",
        "meta-llama/Llama-3.2": "Llama 3.2 Community License",
        "meta-llama/Llama-3.1": "Llama 3.1 Community License",
    }
    for pair in list_pairs():
        for model in (pair.verifier, pair.drafter):
            expected = next((name for start, name in named.items() if model.model.startswith(start)), "Apache-2.0")
            assert model.licence == expected
            assert model.gated == model.model.startswith(("google/", "meta-llama/"))
            assert pair.chat_template == model.model.partition("-GGUF:")[0].lower().endswith(("-instruct", "-it"))


def test_one_model_is_described_alike_in_every_file() -> None:
    described: dict[str, set[str]] = {}
    for pair in list_pairs():
        for model in (pair.verifier, pair.drafter):
            described.setdefault(model.model, set()).add(model.model_dump_json())
        assert pair.drafter.parameters < pair.verifier.parameters
        assert pair.pinned == (pair.name == "embedded" or pair.name.endswith("-gguf"))
    assert all(len(ways) == 1 for ways in described.values())


def test_memory_is_weights_and_keys_and_values_in_bfloat16() -> None:
    pair = load_pair_file("qwen2.5-0.5b-3b")
    weights = 2 * (3_085_938_688 + 494_032_768)
    per_token = 4 * (36 * 2 * 128 + 24 * 2 * 64)
    assert pair.memory_bytes == weights + 32_768 * per_token
    assert pair.memory_bytes / 2**30 == pytest.approx(8.17, abs=0.01)
    assert load_pair_file("embedded").memory_bytes < 64 * 2**20


def test_the_paper_is_marked_as_reconstructed() -> None:
    assert all("reconstructed" in pair.about for pair in list_pairs() if "arXiv 2510.02128" in pair.about)
    assert "arXiv 2510.02128" in load_pair_file("qwen2.5-0.5b-3b").about


def test_lm_eval_and_the_list_of_suites_do_not_see_the_pairs() -> None:
    manager = TaskManager(include_path=str(tasks_folder()), include_defaults=False)
    suites = {f"fairspec_{info.name}" for info in list_suites()}
    assert set(manager.all_groups) == suites
    assert manager.all_tasks
    assert all(task.startswith("fairspec_") for task in manager.all_tasks)
    assert not any((tasks_folder() / "pairs").glob("_group.yaml"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("gated: false", "gated: nein"), "gated"),
        (("revision: null", "commit: null"), "revision"),
        (("parameters: 3050000", "parameters: 3.05e6"), "verifier.parameters"),
        (("kv_tokens: 8192", "kv_tokens: 8192\nsize: big"), "size"),
        (("embedded_story", "embedded_tale"), "embedded_tale"),
        (("title:", "- title:"), "not a YAML mapping"),
    ],
)
def test_a_wrong_file_is_one_clear_line(folder: Path, change: tuple[str, str], says: str) -> None:
    path = folder / "embedded.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(FairspecError) as caught:
        load_pair_file("embedded")
    assert says in str(caught.value)
    assert "embedded.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_instead_of_a_mapping_is_refused(folder: Path) -> None:
    (folder / "list.yaml").write_text("- one\n- two\n", encoding="utf-8")
    with pytest.raises(FairspecError, match=r"list\.yaml: not a YAML mapping"):
        load_pair_file("list")


def test_an_unknown_pair_names_the_known_ones() -> None:
    with pytest.raises(FairspecError, match=r"unknown pair 'qwen9'\. Known: embedded, gemma3-1b-4b"):
        load_pair_file("qwen9")
