"""A model with a chat template through a whole run: what it is asked, resumed as it began, refused without one."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from tiny_pair import lasting, save_pair
from transformers import AutoTokenizer

import fairspec_bench as fairspec
from fairspec_bench.cli.main import main
from fairspec_bench.models import hub
from fairspec_bench.models.codec import Codec
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.io import ids_sha256, read_record
from fairspec_bench.schemas.lines import Reference
from fairspec_bench.scoring import prepare as preparing
from fairspec_bench.scoring.run import Progress
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.suites.suite import load_suite

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
COMMIT = "5" * 40


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pair whose verifier's tokenizer was saved with a template, as Transformers saves it."""
    verifier, drafter = save_pair(tmp_path_factory.mktemp("pair"))
    tokenizer = AutoTokenizer.from_pretrained(verifier)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(verifier)
    assert (verifier / "chat_template.jinja").is_file()
    return verifier, drafter


def arguments(pair: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    options = "--suite embedded_math --languages en,te --limit 4 --max_new_tokens 12 --batch_size 2"
    options += " --race_prompts 1 --race_rounds 1"
    return ["run", *map(str, pair), *options.split(), "--out", str(out), *more]


def status(arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_a_whole_run(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRSPEC_CACHE_DIR", str(tmp_path / "cache"))
    chat, plain = tmp_path / "chat", tmp_path / "plain"
    assert status(arguments(pair, chat, "--apply_chat_template")) == 0
    assert status(arguments(pair, plain)) == 0
    config = read_record(chat / "run.json", RunConfig)
    assert config.chat_template
    asked = load_suite("embedded_math", languages=["en", "te"], limit=4).prompts
    codec = Codec(str(pair[0]), chat_template=True)
    sent = {reference.key: reference.prompt_sha for reference in RunFolder(chat).lines("reference", Reference)}
    assert len(sent) == 8
    for prompt in asked:
        rendered = f"[user] {prompt.text}\n[assistant] "
        ids = codec.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        assert sent[prompt.key] == ids_sha256(ids)
        assert codec.decode(ids) == rendered
    other = {reference.key: reference.prompt_sha for reference in RunFolder(plain).lines("reference", Reference)}
    assert all(other[key] != sha for key, sha in sent.items())
    assert fairspec.report(chat).config.chat_template

    capsys.readouterr()
    assert status(["report", str(chat), "--full"]) == 0
    assert "embedded_math/te" in capsys.readouterr().out.replace(" ", "")
    assert status(arguments(pair, chat)) == 2
    said = capsys.readouterr().err
    assert "holds another run" in said
    assert said.strip().count("\n") == 0


def test_arguments_of_the_template_are_recorded(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thinking = Path(shutil.copytree(pair[0], tmp_path / "verifier"))
    opens = "{% if add_generation_prompt and enable_thinking is not defined %}<think>\n{% endif %}"
    (thinking / "chat_template.jinja").write_text(TEMPLATE + opens)
    pair, chat = (thinking, pair[1]), "--apply_chat_template"
    assert status(arguments(pair, tmp_path / "on", chat)) == 0
    assert capsys.readouterr().out.count("opens a thinking block (<think>)") == 1
    assert status(arguments(pair, tmp_path / "off", chat, "--chat_template_args", '{"enable_thinking": false}')) == 0
    assert "thinking block" not in capsys.readouterr().out
    on, off = (read_record(tmp_path / each / "run.json", RunConfig) for each in ("on", "off"))
    assert (on.chat_template_args, off.chat_template_args) == (None, {"enable_thinking": False})
    assert "chat_template_args" not in (tmp_path / "on" / "run.json").read_text()
    assert on.suites[0].prompts_sha256["te"] != off.suites[0].prompts_sha256["te"]
    assert status(arguments(pair, tmp_path / "off", chat)) == 2
    assert "holds another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--chat_template_args", '{"enable_thinking": false}'], "only with a chat template"),
        (["--apply_chat_template", "--chat_template_args", "enable_thinking=false"], "no JSON object"),
        (["--apply_chat_template", "--chat_template_args", "[1]"], "no JSON object"),
        (["--apply_chat_template", "--chat_template_args", '{"enable_thinking": false}'], "does not read"),
    ],
)
def test_arguments_of_the_template_are_refused_at_once(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(preparing, "load_model", lambda *a, **k: pytest.fail("loaded"))
    assert status(arguments(pair, tmp_path / "out", *given)) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.strip().count("\n") == 0


def test_stopped_it_goes_on_to_the_same_bytes(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "CHUNK_LEAST", 2)
    monkeypatch.setattr(preparing, "CHUNK_BATCHES", 1)
    options: dict[str, Any] = {
        "languages": ("en", "te"), "limit": 4, "max_new_tokens": 12, "batch_size": 2, "race_rounds": 0,
        "apply_chat_template": True,
    }  # fmt: skip

    def run(out: Path, stop_at: int | None) -> None:
        seen = 0

        def watch(progress: Progress) -> None:
            nonlocal seen
            seen += 1
            if seen == stop_at:
                raise KeyboardInterrupt

        fairspec.run(str(pair[0]), str(pair[1]), ["embedded_math"], out, cache=None, on_progress=watch, **options)

    run(tmp_path / "whole", None)
    for stop_at in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped", stop_at)
    assert lasting(tmp_path / "stopped") != lasting(tmp_path / "whole")
    run(tmp_path / "stopped", None)
    assert lasting(tmp_path / "stopped") == lasting(tmp_path / "whole")


def test_without_a_template_it_is_refused_at_once(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = (pair[1], pair[1])
    for command in (arguments(plain, tmp_path / "out", "--apply_chat_template"),):
        assert status(command) == 2
        said = capsys.readouterr().err
        assert "the tokenizer has no chat template. Leave out --apply_chat_template" in said
        assert said.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_the_template_comes_from_the_hub_without_the_weights(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Hub of one model: what is asked for is copied into the cache, and nothing else."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "reachable", lambda: True)
    snapshot = tmp_path / "models--org--chat" / "snapshots" / COMMIT

    def snapshot_download(
        name: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool = False
    ) -> str:
        if local_files_only and not snapshot.is_dir():
            raise LocalEntryNotFoundError("not cached")
        for path in pair[0].iterdir():
            if not local_files_only and any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                snapshot.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, snapshot)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert Codec("org/chat", chat_template=True).tokenizer.chat_template == TEMPLATE
    assert not list(snapshot.glob("*.safetensors"))
    assert hub.locate("org/chat") == (snapshot, COMMIT)
    assert list(snapshot.glob("*.safetensors"))
