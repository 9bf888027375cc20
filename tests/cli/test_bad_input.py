"""Whatever is wrong with what a user gives: one line on stderr that says what, where and what to do, exit status 2.

No traceback, nothing lost: what lay in the folders before lies there after.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_pair import contents, lasting, save_pair

import fairspec_bench as fairspec
from fairspec_bench.cli.main import main
from fairspec_bench.scoring.run_folder import RunFolder, writing

OPTIONS = "--suite embedded_math --languages en,te --limit 3 --max_new_tokens 14 --gamma 2 --race_rounds 0"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def finished(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    fairspec.run(str(pair[0]), str(pair[1]), ["embedded_math"], out, cache=None,
               languages=("en", "te"), limit=3, max_new_tokens=14, gamma=2, race_rounds=0)  # fmt: skip
    return out


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    """A finished run of one's own to damage."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRSPEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


class Refusal:
    """Runs `fairspec` in this process and expects one line of error."""

    def __init__(self, capfd: pytest.CaptureFixture[str]):
        self.capfd = capfd

    def __call__(self, *arguments: object) -> str:
        self.capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        err = [line for line in self.capfd.readouterr().err.splitlines() if "%" not in line[:5]]
        assert left.value.code == 2, err
        assert len(err) == 1, err
        assert err[0].startswith("fairspec: ")
        assert "internal error" not in err[0]
        return err[0].removeprefix("fairspec: ")


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(capfd)


def command(pair: tuple[Path, Path], *more: object) -> list[object]:
    return ["run", *pair, *OPTIONS.split(), *more]


# --------------------------------------------------------------------------- options

WRONG_OPTIONS = {
    "--suite nope": r"unknown suite 'nope'. Known: aya, aya_edited, aya_written, embedded_domain, embedded_math",
    "--suite embedded_math": "a suite is given twice",
    "--languages en,xx": "embedded_math: unknown language 'xx'. Known: bn, de, en",
    "--languages ,": "no language chosen",
    "--gamma 0": "gamma=0: must be at least 1",
    "--gamma 65": "gamma=65: must be at most 64",
    "--gamma four": "--gamma four: not whole numbers",
    "--limit 0": "limit=0: must be at least 1",
    "--max_new_tokens 0": "max_new_tokens=0: must be at least 1",
    "--max_new_tokens 600": "no prompt fits:",
    "--batch_size 0": "batch_size=0: must be at least 1",
    "--num_fewshot 3": "num_fewshot=3: embedded_math has 0 exemplars",
    "--device cuda": "Use --device cpu",
    "--device tpu": "device=tpu: unknown. Known: cpu, cuda, cuda:N",
    "--dtype int8": "unknown dtype 'int8'. Known: auto, float32, bfloat16, float16",
    "--temperature -1": "temperature=-1: must be at least 0",
    "--temperature nan": "temperature=nan: must be a finite number",
    "--top_p 0": "top_p=0: must be more than 0",
    "--top_k -1": "top_k=-1: must be at least 0",
    "--race_rounds -1": "race_rounds=-1: must be at least 0",
    "--race_prompts -1": "race_prompts=-1: must be at least 0",
    "--model_args revision": "'revision': not of the form name=value",
    "--model_args colour=red": "unknown model option 'colour'",
    "--drafter_args temperature=0": "temperature=0.0: must be from 0.01 to 100.0",
    "--shard 0/2": "--shard 0/2: not of the form i/n",
    "--shard 3/2": "--shard 3/2: not of the form i/n",
    "--shard one": "--shard one: not of the form i/n",
    "--apply_chat_template": "the tokenizer has no chat template",
    "--backend grph": "unknown backend 'grph'. Did you mean graph? Known: auto, eager",
    "--executor rai": "unknown executor 'rai'. Did you mean ray? Known: local, ray",
    "--languages en,jp --suite mgsm": "embedded_math: unknown language 'jp'",
    "--race_budget 0": "race_budget=0: must be more than 0",
    "--suites mgsm": "No such option: --suites. Did you mean --suite? See fairspec run --help.",
    "--float32": "No such option: --float32. Did you mean --float32_check? See fairspec run --help.",
}


@pytest.mark.parametrize("wrong", WRONG_OPTIONS)
def test_wrong_options(refused: Refusal, pair: tuple[Path, Path], tmp_path: Path, wrong: str) -> None:
    assert WRONG_OPTIONS[wrong] in refused(*command(pair, *wrong.split(), "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_wrong_usage(refused: Refusal, pair: tuple[Path, Path], finished: Path) -> None:
    assert "No such command 'runn'" in refused("runn")
    assert "Missing argument 'verifier'" in refused("run")
    assert "Missing option '--suite'" in refused("run", *pair)
    assert "Missing command" in refused("site")
    assert "unknown suite 'nope'" in refused("tasks", "nope")
    unknown = "unknown format 'xml'. Known: table, csv, json, md, latex, parquet."
    assert refused("report", finished, "--format", "xml") == unknown
    assert refused("advise", finished, "--requests", "3").startswith("advise: the run timed nothing with a drafter.")
    assert refused("advise", finished, "--format", "xml") == unknown.replace(
        "csv, json, md, latex, parquet", "json, md, vllm"
    )
    assert refused("report", finished, "--format", "parquet") == "--format parquet: no text to show. Give --out FILE."
    assert "cannot be written (Is a directory)" in refused("report", finished, "--format", "csv", "--out", finished)
    assert "unknown scale 'huge'. Known: tiny, small" in refused(
        "testbed", "--text", ".", "--out", "o", "--scale", "huge"
    )
    assert "no <language>.txt there" in refused("testbed", "--text", "nowhere", "--out", "o")


# --------------------------------------------------------------------------- models


def test_unknown_and_unfit_models(refused: Refusal, pair: tuple[Path, Path], tmp_path: Path) -> None:
    options = OPTIONS.split()
    assert "./nowhere: no such folder" in refused("run", "./nowhere", pair[1], *options)
    assert "./nowhere: no such folder" in refused("run", pair[0], "./nowhere", *options)
    assert "not in the Hub cache, and the Hub cannot be reached" in refused("run", "org/model", pair[1], *options)
    assert "org/model: " in refused("run", pair[0], "org/model", *options)
    message = refused("run", "embedded:drafer", "lookup", *options)
    assert message.startswith("unknown embedded model 'embedded:drafer'. Did you mean embedded:drafter? Known: ")
    assert "'much' is no acceptance. Example: oracle:0.8" in refused("run", pair[0], "oracle:much", *options)
    assert "acceptance=1.5: must be from 0 to 1" in refused("run", pair[0], "oracle:1.5", *options)
    assert "'x' is no max_ngram" in refused("run", pair[0], "lookup:x", *options)
    other = save_pair(tmp_path / "other", vocabulary=310)
    assert "Choose a drafter with the same tokenizer" in refused("run", pair[0], other[1], *options)


def drop_file(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut_file(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


DAMAGED_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (drop_file("model.safetensors"), "no *.safetensors"),
    "cut weights": (cut_file("model.safetensors"), "cannot be loaded"),
    "no config": (drop_file("config.json"), "no config.json"),
    "cut config": (cut_file("config.json"), "verifier"),
    "no tokenizer": (drop_file("tokenizer.json"), "no tokenizer could be loaded"),
    "cut tokenizer": (cut_file("tokenizer.json"), "no tokenizer could be loaded"),
}


@pytest.mark.parametrize("damage", DAMAGED_MODELS)
def test_damaged_models(refused: Refusal, pair: tuple[Path, Path], tmp_path: Path, damage: str) -> None:
    do, message = DAMAGED_MODELS[damage]
    shutil.copytree(pair[0], tmp_path / "verifier")
    do(tmp_path / "verifier")
    assert message in refused("run", tmp_path / "verifier", pair[1], *OPTIONS.split(), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------- data


def test_missing_and_damaged_data(
    refused: Refusal, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--languages", "en", "--limit", 2]
    monkeypatch.delenv("FAIRSPEC_DATA_DIR", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    assert "FAIRSPEC_DATA_DIR" in refused("run", *pair, "--suite", "mgsm", *options)
    monkeypatch.setenv("FAIRSPEC_DATA_DIR", str(tmp_path / "nowhere"))
    assert "no such folder" in refused("run", *pair, "--suite", "mgsm", *options)
    data = tmp_path / "data/mgsm"
    data.mkdir(parents=True)
    monkeypatch.setenv("FAIRSPEC_DATA_DIR", str(data.parent))
    assert "mgsm_en.tsv: missing. Get it from" in refused("run", *pair, "--suite", "mgsm", *options)
    (data / "mgsm_en.tsv").write_text("a question without an answer\n")
    assert "mgsm_en.tsv:1: no tab" in refused("run", *pair, "--suite", "mgsm", *options)
    (data / "mgsm_en.tsv").write_bytes(b"q\t1\n\xff\t2\n")
    assert "mgsm_en.tsv:2: not UTF-8" in refused("run", *pair, "--suite", "mgsm", *options)
    (data / "mgsm_en.tsv").write_text("q\t1\n")
    assert "holds 1 problems, not 250" in refused("run", *pair, "--suite", "mgsm", *options)


# --------------------------------------------------------------------------- run folders


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return damage


REFERENCE = "reference.jsonl"
REPLAY = "replay.jsonl"
DAMAGED_RUNS: dict[str, tuple[Callable[[Path], None], str]] = {
    "torn finished line": (
        edit(REFERENCE, lambda body: body[:-9]),
        f"{REFERENCE}: 5 whole lines where 6 were finished",
    ),
    "lost line": (edit(REFERENCE, lambda body: body[body.index(b"\n") + 1 :]), f"{REFERENCE}: 5 whole lines where 6"),
    "line of another run": (
        edit(REFERENCE, lambda body: body.replace(b"math/en/1", b"math/en/9")),
        f"{REFERENCE}:2 embedded",
    ),
    "line of another file": (edit(REFERENCE, lambda body: b'{"key":"embedded_math/en/0"}\n' + body), f"{REFERENCE}:1 "),
    "garbage": (edit(REFERENCE, lambda body: b"\xff\xfe\x00\n" + body), f"{REFERENCE}:1 "),
    "NaN": (edit(REPLAY, lambda body: body.replace(b'"kl":', b'"kl":NaN,"k":', 1)), f"{REPLAY}:1 "),
    "endless line": (edit(REFERENCE, lambda body: b" " * 9 * 2**20 + body), f"{REFERENCE}:1: line longer than"),
    "another prompt": (edit(REFERENCE, lambda body: body.replace(b'_sha":"', b'_sha":"0')), "prompt_sha is"),
    "emptied file": (edit(REPLAY, lambda body: b""), f"{REPLAY}: 0 whole lines where 6"),
    "damaged marks": (edit("chunks.jsonl", lambda body: body[5:]), "chunks.jsonl:1 "),
    "damaged configuration": (cut_file("run.json"), "run.json "),
    "another schema": (
        edit("run.json", lambda body: body.replace(b'"schema_version": 2', b'"schema_version": 1')),
        "run.json schema_version",
    ),
    "no configuration": (drop_file("run.json"), "run"),
}


@pytest.mark.parametrize("damage", DAMAGED_RUNS)
def test_damaged_runs(refused: Refusal, pair: tuple[Path, Path], run_folder: Path, damage: str) -> None:
    do, message = DAMAGED_RUNS[damage]
    do(run_folder)
    before = contents(run_folder)
    assert message in refused("report", run_folder)
    assert message in refused(*command(pair, "--out", run_folder))
    assert contents(run_folder) == before


def test_the_remedy_that_an_error_names_works(
    refused: Refusal, pair: tuple[Path, Path], run_folder: Path, finished: Path
) -> None:
    DAMAGED_RUNS["line of another run"][0](run_folder)
    file = run_folder / REFERENCE
    assert f"delete {file} and run again: only that stage is redone" in refused(*command(pair, "--out", run_folder))
    file.unlink()
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in command(pair, "--out", run_folder)])
    assert left.value.code == 0
    assert lasting(run_folder) == lasting(finished)


def test_not_a_run(refused: Refusal, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/precious.txt").write_text("mine")
    for command_line in (("report", "nowhere"), ("report", "notes"), ("site", "build", "notes")):
        assert "run.json: no such file. Is this a run folder?" in refused(*command_line)
    assert "not empty, and not a run folder" in refused(*command(pair, "--out", "notes"))
    assert (tmp_path / "notes/precious.txt").read_text() == "mine"


def test_another_configuration(refused: Refusal, pair: tuple[Path, Path], run_folder: Path) -> None:
    before = contents(run_folder)
    for option, field in {
        "--gamma 3": "gamma: 2 there, 3 here",
        "--seed 1": "seed: 0 there, 1 here",
        "--limit 2": "suites.0.limit: 3 there, 2 here",
        "--max_new_tokens 9": "suites.0.max_new_tokens: 14 there, 9 here",
        "--batch_size 4": "batch_size: 8 there, 4 here",
        "--dtype bfloat16": "verifier.revision",
        "--temperature 1": "sampling.temperature: 0.0 there, 1.0 here",
        "--languages en": "suites.0.languages",
        "--shard 1/2": "shard: None there, [1, 2] here",
    }.items():
        assert f"holds another run ({field}" in refused(*command(pair, *option.split(), "--out", run_folder))
    assert contents(run_folder) == before


def test_two_writers(refused: Refusal, pair: tuple[Path, Path], run_folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    begun, folder = fork.Event(), RunFolder(run_folder)

    def hold() -> None:
        with writing(run_folder, folder.config, folder.environments[0]):
            begun.set()
            signal.pause()

    writer = fork.Process(target=hold)
    writer.start()
    assert begun.wait(20)
    before = contents(run_folder)
    assert "another process is writing here" in refused(*command(pair, "--out", run_folder))
    writer.kill()
    writer.join()
    assert contents(run_folder) == before


def test_unwritable_places(refused: Refusal, pair: tuple[Path, Path], tmp_path: Path, finished: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in ("file", "file/run", "/proc/nowhere"):
        assert "cannot be written" in refused(*command(pair, "--out", place))
    assert refused("site", "build", finished, "--out", "file/site")
    assert "cannot be written" in refused("merge", "file/run", *_parts(pair, tmp_path))
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_loses_nothing(refused: Refusal, pair: tuple[Path, Path], tmp_path: Path, finished: Path) -> None:
    out = tmp_path / "out"
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    largest = max(path.stat().st_size for path in finished.rglob("*.jsonl"))
    config = (finished / "run.json").stat().st_size
    assert config < largest - 100 < largest + 100 < (finished / "report.json").stat().st_size
    done = []
    for limit in (config - 10, largest - 100, largest + 100):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, room[1]))
        try:
            message = refused(*command(pair, "--out", out))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, room)
        assert "cannot be written (File too large)" in message
        kept = RunFolder(out) if (out / "run.json").exists() else None
        done.append(len(kept.done) / len(kept.units) if kept else -1)
    assert done[0] == -1
    assert 0 < done[1] < 1
    assert done[2] == 1
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in command(pair, "--out", out)])
    assert left.value.code == 0
    assert lasting(out) == lasting(finished)


# --------------------------------------------------------------------------- parts


def _parts(pair: tuple[Path, Path], root: Path) -> list[Path]:
    made = [root / f"part{first}" for first in (1, 2)]
    for first, path in enumerate(made, 1):
        if not path.exists():
            fairspec.run(str(pair[0]), str(pair[1]), ["embedded_math"], path, cache=None, shard=(first, 2),
                       languages=("en", "te"), limit=3, max_new_tokens=14, gamma=2, race_rounds=0)  # fmt: skip
    return made


def test_merges_that_cannot_be(refused: Refusal, pair: tuple[Path, Path], tmp_path: Path, finished: Path) -> None:
    one, two = _parts(pair, tmp_path)
    assert "shard 2/2 is missing" in refused("merge", "out", one)
    assert "shard 1/2 again" in refused("merge", "out", one, one)
    assert "a whole run, not a shard" in refused("merge", "out", one, finished)
    assert "no such file. Is this a run folder?" in refused("merge", "out", one, "nowhere")
    config = json.loads((two / "run.json").read_text())
    (two / "run.json").write_text(json.dumps({**config, "seed": 3}))
    assert "a shard of another run than" in (message := refused("merge", "out", one, two))
    assert "(seed: 0 there, 3 here)" in message
    assert not (tmp_path / "out").exists()
