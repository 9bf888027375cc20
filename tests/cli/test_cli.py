"""The command line: each command does its job through the API, prints where things are, and starts fast."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny_pair import contents, lasting, save_pair
from transformers import RwkvConfig

import fairspec_bench
from fairspec_bench.api import doctor
from fairspec_bench.api.demo import SIZES, SUITES
from fairspec_bench.api.options import run_options
from fairspec_bench.api.reports import FORMATS
from fairspec_bench.cli.main import main
from fairspec_bench.schemas.base import FairspecError

Fairspec = tuple[int, str, str]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRSPEC_CACHE_DIR", str(tmp_path / "cache"))


class Shell:
    """Runs `fairspec` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Fairspec:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        return int(left.value.code or 0), out, err


@pytest.fixture
def fairspec(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def small(pair: tuple[Path, Path]) -> list[object]:
    options = "--suite embedded_math --languages en,te --limit 3 --max_new_tokens 8 --gamma 2"
    options += " --race_prompts 1 --race_rounds 1"
    return [*pair, *options.split(), "--race_width", 0]


@pytest.fixture(scope="module")
def run_folder(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in ("run", *small(pair), "--out", out)])
    assert left.value.code == 0
    return out


# --------------------------------------------------------------------------- starting


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running `code`."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


MENDING = ("mitigate", "methods", "reproduce", "pairs", "study", "submit")
HEAVY = {"torch", "transformers", "lm_eval", "datasets", "pandas", "numpy", "scipy"}


@pytest.mark.parametrize(
    "code",
    [
        "import fairspec_bench",
        "from fairspec_bench.cli.main import main; main(['--help'])",
        "from fairspec_bench.cli.main import main; main(['run', '--help'])",
        "from fairspec_bench.cli.main import main; main(['run', '--gama', '4'])",
        "from fairspec_bench import run, plan, build_site",
    ],
)
def test_starting_loads_nothing_heavy(code: str) -> None:
    assert not loaded_by(code) & HEAVY


def test_help_names_every_command(fairspec: Shell) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        status, out, _ = fairspec(*arguments)
        assert status == 0
        for command in ("demo", "doctor", "tasks", "plan", "run", "report", "site", "testbed", "merge", *MENDING):
            assert f"\n  {command} " in out


def test_options_are_called_as_in_lm_eval(fairspec: Shell) -> None:
    _, out, _ = fairspec("run", "--help")
    for option in ("limit", "batch_size", "device", "seed", "num_fewshot", "apply_chat_template", "model_args"):
        assert f"--{option} " in out


def test_plan_takes_the_options_of_run_but_those_of_its_execution(fairspec: Shell) -> None:
    (_, plan, _), (_, run, _) = fairspec("plan", "--help"), fairspec("run", "--help")
    flags = [set(re.findall(r"^  (--\w+)", out, re.MULTILINE)) for out in (plan, run)]
    assert len(flags[0]) > 20
    assert flags[1] - flags[0] == {"--out", "--executor", "--workers"}
    assert not flags[0] - flags[1]
    for heading in ("Models:", "Prompts:", "Decoding:", "Timing:", "Where:"):
        assert f"\n{heading}\n" in run
    assert "Example:" in run


def test_the_public_face_is_what_it_says() -> None:
    for name in fairspec_bench.__all__:
        assert getattr(fairspec_bench, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = fairspec_bench.nothing_of_the_kind


# --------------------------------------------------------------------------- commands


def test_run_prints_tables_and_where(fairspec: Shell, pair: tuple[Path, Path], run_folder: Path) -> None:
    before = contents(run_folder)
    status, out, err = fairspec("run", *small(pair), "--out", run_folder)
    assert status == 0
    assert "acceptance" in out
    assert out.rstrip().endswith(f"fairspec report {run_folder} --full")
    assert contents(run_folder) == before
    assert err == ""


def test_progress_is_plain_lines_where_there_is_no_terminal(
    fairspec: Shell, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    status, _, err = fairspec("run", *small(pair), "--race_rounds", 0, "--out", tmp_path / "run")
    assert status == 0
    lines = err.splitlines()
    assert lines[0] == "  0% reference embedded_math/en/000"
    assert len(lines) == 8
    assert all(line[3] == "%" for line in lines)


def test_report_in_every_format_and_of_two_runs(fairspec: Shell, run_folder: Path) -> None:
    status, table, _ = fairspec("report", run_folder)
    assert status == 0
    assert "embedded_math" in table
    _, text, _ = fairspec("report", run_folder, "--format", "json")
    assert text == (run_folder / "report.json").read_text()
    _, text, _ = fairspec("report", run_folder, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["language"] for row in rows} >= {"en", "te"}
    frame = fairspec_bench.report_frame(fairspec_bench.report(run_folder))
    assert len(rows) == len(frame)
    _, text, _ = fairspec("report", run_folder, run_folder, "--format", "json")
    (suite,) = json.loads(text)["suites"]
    assert suite["differences"]["acceptance"]["embedded_math/en"]["value"] == 0
    status, table, _ = fairspec("report", run_folder, run_folder)
    assert "second − first" in table


def test_report_goes_to_a_file(fairspec: Shell, run_folder: Path, tmp_path: Path) -> None:
    pair = (run_folder, run_folder)
    for runs, made in ((pair[:1], fairspec_bench.report(run_folder)), (pair, fairspec_bench.compare(*pair))):
        for format in FORMATS:
            out = tmp_path / f"{len(runs)}.{format}"
            status, said, _ = fairspec("report", *runs, "--format", format, "--out", out)
            assert (status, said) == (0, f"written: {out}\n")
            assert out.read_bytes() == fairspec_bench.export(made, format)
            if format != "parquet":
                assert fairspec("report", *runs, "--format", format, "--full")[1].split() == out.read_text().split()
        frame = pd.read_parquet(tmp_path / f"{len(runs)}.parquet")
        pd.testing.assert_frame_equal(frame, fairspec_bench.report_frame(made))


def test_parts_merge_into_the_run(fairspec: Shell, pair: tuple[Path, Path], run_folder: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"part{number}" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        status, out, _ = fairspec("run", *small(pair), "--shard", f"{number}/2", "--out", part)
        assert status == 0
        assert out == f"shard {number}/2 done: {part}. When all are: fairspec merge OUT SHARD…\n"
    status, out, _ = fairspec("merge", tmp_path / "merged", *parts)
    assert status == 0
    assert out.rstrip().endswith(f"fairspec report {tmp_path / 'merged'} --full")
    assert lasting(tmp_path / "merged") == lasting(run_folder)


def test_site_build_says_where(fairspec: Shell, run_folder: Path, tmp_path: Path) -> None:
    status, out, _ = fairspec("site", "build", run_folder, "--out", tmp_path / "site")
    assert (status, out) == (0, f"page: {tmp_path / 'site/index.html'}\n")
    assert "first" in (tmp_path / "site/index.html").read_text()


def test_plan_prints_tokens_memory_disk_hours_and_assumptions(fairspec: Shell, pair: tuple[Path, Path]) -> None:
    status, out, _ = fairspec("plan", *small(pair))
    assert status == 0
    for word in ("embedded_math/te", "memory: weights", "disk: ", "hours: ", "assumed: every output is as long as"):
        assert word in out


def test_tasks_lists_suites_and_shows_one_prompt_whole(fairspec: Shell) -> None:
    _, out, _ = fairspec("tasks")
    assert [line.split()[0] for line in out.splitlines()] == [
        "aya",
        "aya_edited",
        "aya_written",
        "embedded_domain",
        "embedded_math",
        "embedded_story",
        "mgsm",
        "multiq",
    ]
    status, out, _ = fairspec("tasks", "embedded_math")
    assert status == 0
    assert "licence Apache-2.0" in out
    prompt = fairspec_bench.load_suite("embedded_math", languages=["bn"], limit=1).prompts[0]
    assert out.endswith(f"{prompt.text}\n")


def test_doctor_says_what_is_missing_and_what_to_do(
    fairspec: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAIRSPEC_DATA_DIR", str(tmp_path))
    status, out, _ = fairspec("doctor")
    assert status == 0
    assert "ok      embedded pair: loads and fits" in out
    assert "absent  suite mgsm: no data" in out
    assert "absent  hub: HF_HUB_OFFLINE is set" in out
    last = out.splitlines()[-1]
    assert last.startswith("You can run: fairspec run VERIFIER DRAFTER --suite embedded_")
    assert "mgsm" in last.partition("Without data: ")[2]

    def broken(name: str) -> None:
        raise FairspecError("the embedded pair is gone.")

    monkeypatch.setattr("fairspec_bench.models.hub.local_folder", broken)
    status, out, _ = fairspec("doctor")
    assert status == 1
    assert "MISSING embedded pair: the embedded pair is gone." in out
    assert out.splitlines()[-1] == "You can run nothing yet: embedded pair above."


def test_doctor_examines_a_pair_without_its_weights(
    fairspec: Shell, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", loaded)
    verifier, drafter = pair
    status, out, _ = fairspec("doctor", verifier, drafter)
    assert status == 0
    assert f"OK      verifier: {verifier}: llama, full attention, 512 positions, 300 ids" in out
    assert "M parameters: weights of" in out
    assert "OK      vocabulary: the same token by the same id" in out
    assert "OK      stop strings: the tokenizer writes those of" in out
    assert "REFUSED" not in out

    def changed(name: str, file: str, **values: object) -> Path:
        folder = shutil.copytree(drafter, tmp_path / name)
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return folder

    status, out, _ = fairspec("doctor", changed("other end", "generation_config.json", eos_token_id=2), "lookup")
    assert status == 0
    assert "NOTE    end of text: " in out
    assert "OK      drafter: lookup: a drafter of kind lookup" in out
    for name, values, reason in [
        ("recurrent", RwkvConfig(vocab_size=300).to_dict(), "cannot be rolled back"),
        ("alibi", {"model_type": "bloom"}, "bloom has ALiBi"),
    ]:
        status, out, _ = fairspec("doctor", verifier, changed(name, "config.json", **values))
        assert status == 2
        assert f"REFUSED drafter: {tmp_path / name}: {values['model_type']}" in out
        assert reason in out
    other = shutil.copytree(drafter, tmp_path / "other words")
    text = (other / "tokenizer.json").read_text()
    state = json.loads(text)
    vocabulary = state["model"]["vocab"]
    one, two = sorted(vocabulary, key=vocabulary.__getitem__)[20:22]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (other / "tokenizer.json").write_text(json.dumps(state))
    status, out, _ = fairspec("doctor", verifier, other)
    assert status == 2
    assert f"REFUSED vocabulary: {other}: its vocabulary is not that of {verifier}: id 20 is" in out
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    status, out, _ = fairspec("doctor", other)
    assert status == 2
    assert f"REFUSED verifier: {other}: its weights are pickled" in out


def test_demo_scores_the_embedded_pair_and_builds_the_site(
    fairspec: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = {"languages": ("en", "te"), "limit": 2, "max_new_tokens": 12, "race_rounds": 0}
    training = {"prompts": ("embedded_math",), "languages": ("en", "te"), "limit": 5, "steps": 2}
    monkeypatch.setitem(SIZES, "quick", (SUITES, options, training))
    status, out, err = fairspec("demo", "--quick", "--out", tmp_path / "demo")
    assert status == 0
    shares = [int(each.split("%")[0]) for each in err.splitlines() if "%" in each]
    assert shares == sorted(shares)
    assert "score again: " in err
    run, page = tmp_path / "demo/embedded-pair-quick", tmp_path / "demo/site/index.html"
    after = tmp_path / "demo/embedded-pair-fine-tuned-quick"
    assert out.rstrip().endswith(f"After fine-tuning with s-CDF: fairspec report {after}\npage: {page}")
    assert f"Every table: fairspec report {run} --full" in out
    assert "Before and after fine-tuning: <bdi>embedded_math</bdi>" in page.read_text(encoding="utf-8")
    tuned, report = fairspec_bench.report(after), fairspec_bench.report(run)
    assert tuned.config.verifier == report.config.verifier
    assert tuned.config.drafter != report.config.drafter
    assert report.config.verifier.name == "embedded:verifier"
    assert str(report.config.verifier.revision).startswith("weights-sha256:")
    assert [suite.suite for suite in report.suites] == list(SUITES)


def test_mitigate_mends_and_says_where(fairspec: Shell, pair: tuple[Path, Path], tmp_path: Path) -> None:
    options = ("--languages", "en,te", "--limit", 5, "--max_new_tokens", 12, "--steps", 2, "--lr", "1e-3")
    given = ("mitigate", *pair, "--method", "uniform", "--prompts", "embedded_math", *options, "--out", tmp_path / "d")
    status, out, err = fairspec(*given)
    assert status == 0
    assert out.rstrip().endswith(f"drafter: {tmp_path / 'd'}")
    assert "training, held-out cost" in err
    assert (tmp_path / "d" / "model.safetensors").exists()
    _, out, _ = fairspec("methods")
    assert {line.split()[0] for line in out.splitlines()} >= {"s-cdf", "uniform", "group-dro", "ngram"}
    assert fairspec("mitigate", *pair, "--out", tmp_path / "e")[0::2] == (
        2,
        "fairspec: no prompts to fine-tune on. Give --prompts NAME or a folder of <task>.txt.\n",
    )
    _, _, err = fairspec("mitigate", *pair, "--prompts", "embedded_math", "--steps", 0, "--out", tmp_path / "e")
    assert err == "fairspec: steps=0: must be at least 1.\n"


def test_pairs_are_listed_with_what_they_need(fairspec: Shell) -> None:
    status, out, _ = fairspec("pairs")
    assert status == 0
    assert "Qwen/Qwen2.5-3B ← Qwen/Qwen2.5-0.5B" in out
    assert "revision not pinned" in out


@pytest.mark.slow
def test_reproduce_judges_eight_claims(fairspec: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = ("--suite", "embedded_math", "--languages", "en,te", "--limit", 2, "--race_rounds", 0)
    training = ("--seeds", 1, "--steps", 2, "--training_limit", 5)
    status, out, _ = fairspec("reproduce", *small, *training, "--out", tmp_path / "r", "--json")
    assert status == 0
    claims = {claim["id"]: claim for claim in json.loads(out)["claims"]}
    assert list(claims) == list("abcdefgh")
    assert claims["h"]["verdict"] == "holds"
    assert claims["b"]["verdict"] == "not testable here"
    status, table, _ = fairspec("reproduce", *small, *training, "--out", tmp_path / "r")
    assert status == 0
    assert table.rstrip().endswith(f"runs: {tmp_path / 'r'}")
    status, _, err = fairspec("reproduce", "no-such-pair")
    assert (status, err.startswith("fairspec: unknown pair 'no-such-pair'. Known: ")) == (2, True)


def test_a_submission_is_made_and_its_blanks_refused(fairspec: Shell, tmp_path: Path) -> None:
    run, folder = Path(__file__).parents[2] / "docs/results/embedded-pair", tmp_path / "plain-drafter"
    assert fairspec("submit", "new", folder, "--run", run)[0] == 0
    assert fairspec("submit", "pack", folder)[0] == 0
    status, out, _ = fairspec("submit", "check", folder)
    assert status == 1
    assert "submission.toml" in out
    assert "Fix: " in out
    _, text, _ = fairspec("submit", "check", folder, "--json")
    assert json.loads(text)["findings"]


def test_a_study_says_what_it_needs_first(fairspec: Shell, tmp_path: Path) -> None:
    status, _, err = fairspec("study", "compare-methods", "--out", tmp_path)
    assert status == 2
    assert err.rstrip().endswith(f"Run first: fairspec study causal --out {tmp_path}.")
    assert fairspec("study", "weather", "--out", tmp_path)[2].startswith(
        "fairspec: unknown study 'weather'. Known: causal"
    )


def test_testbed_passes_everything_on(fairspec: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {}

    def train(text: Path, out: Path, **options: object) -> tuple[Path, Path]:
        given.update(options, text=text)
        return out / "verifier", out / "drafter"

    monkeypatch.setattr("fairspec_bench.testbed.pair.train_on_text", train)
    status, out, _ = fairspec("testbed", "--text", tmp_path, "--skew", "1.5", "--scale", "small", "--out", tmp_path)
    assert (status, out) == (0, f"verifier: {tmp_path / 'verifier'}\ndrafter:  {tmp_path / 'drafter'}\n")
    assert (given["text"], given["skew"], given["scale"], given["seed"]) == (tmp_path, 1.5, "small", 0)


def test_every_option_of_run_reaches_the_run(fairspec: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that is parsed and then forgotten would be seen here."""
    asked = {}

    def run(verifier: str, drafter: str, suites: list[str], out: Path, **options: object) -> None:
        del options["on_progress"], options["say"]
        assert (options.pop("executor"), options.pop("workers")) == ("ray", 3)
        asked.update(vars(run_options(verifier, drafter, suites, **options)), out=out)
        raise FairspecError("seen.")

    monkeypatch.setattr("fairspec_bench.api.runs.run", run)
    options = (
        "--suite a --suite b --languages en,ja --gamma 7 --limit 9 --batch_size 3 --device cuda:1 --dtype bfloat16 "
        "--seed 5 --temperature 0.7 --top_k 20 --top_p 0.9 --num_fewshot 2 --apply_chat_template "
        '--chat_template_args {"a":1} '
        "--model_args revision=abc,attention=eager --drafter_args temperature=0.5 --max_new_tokens 99 "
        "--race_prompts 11 --race_rounds 6 --race_width 0.05 --race_budget 60 --shard 2/3 --backend graph "
        "--executor ray --workers 3"
    )
    status, _, err = fairspec("run", "org/big", "org/small", *options.split())
    assert (status, err) == (2, "fairspec: seen.\n")
    verifier, drafter, sampling = asked.pop("verifier"), asked.pop("drafter"), asked.pop("sampling")
    assert (verifier.source, verifier.revision, verifier.options) == ("org/big", "abc", {"attention": "eager"})
    assert (drafter.source, drafter.kind, drafter.options) == ("org/small", "model", {"temperature": 0.5})
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.7, 20, 0.9)
    assert asked == {
        "suites": ("a", "b"), "languages": ("en", "ja"), "gamma": 7, "limit": 9, "batch_size": 3, "device": "cuda:1",
        "dtype": "bfloat16", "seed": 5, "num_fewshot": 2, "chat_template": True, "max_new_tokens": 99,
        "chat_template_args": {"a": 1},
        "race_prompts": 11, "race_rounds": 6, "race_width": 0.05, "race_budget": 60.0, "gammas": (), "batch_sizes": (),
        "shard": (2, 3),
        "float32_check": None, "backend": "graph", "out": Path("runs/big--small"),
    }  # fmt: skip


def test_load_pair_gives_models_that_fit(pair: tuple[Path, Path]) -> None:
    verifier, drafter = fairspec_bench.load_pair(*map(str, pair))
    assert drafter.model is not None
    assert verifier.vocab_size == drafter.model.vocab_size


# --------------------------------------------------------------------------- errors


def test_a_bug_is_one_line_too_and_debug_shows_where(fairspec: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr(doctor, "doctor", broken)
    status, _, err = fairspec("doctor")
    assert status == 2
    assert err == "fairspec: internal error: ZeroDivisionError: first second (--debug shows where)\n"
    with pytest.raises(ZeroDivisionError):
        main(["--debug", "doctor"])
    monkeypatch.setattr("fairspec_bench.api.suites.list_suites", lambda: (_ for _ in ()).throw(FairspecError("known.")))
    with pytest.raises(FairspecError):
        main(["tasks", "--debug"])


def test_no_room_hides_a_name_of_the_face() -> None:
    """Importing a subpackage sets its name on the package: a function called like a subpackage would vanish."""
    import pkgutil

    import fairspec_bench

    assert not {package.name for package in pkgutil.iter_modules(fairspec_bench.__path__)} & set(fairspec_bench.__all__)


# --------------------------------------------------------------------------- submissions and tracks


def test_a_stranger_begins_a_submission_and_is_told_what_is_missing(fairspec: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "submissions" / "mine"
    status, out, _ = fairspec("submit", "new", folder, "--track", "embedded", "--drafter", "lookup", "--name", "Mine")
    assert status == 0
    assert out == f"written: {folder}/submission.toml\nfill its blanks (...) before the check\n"
    status, _, err = fairspec("submit", "new", folder, "--track", "nowhere", "--drafter", "lookup")
    assert (status, "is there already" in err) == (2, True)
    status, _, err = fairspec("submit", "new", tmp_path / "other", "--track", "nowhere", "--drafter", "lookup")
    assert (status, err.startswith("fairspec: unknown track 'nowhere'. Known: embedded")) == (2, True)
    assert fairspec("submit", "check")[0] == 2
    status, out, _ = fairspec("submit", "check", folder)
    assert status == 1
    assert re.search(r": refused: (\d\d+|[2-9]) faults$", out.rstrip())
    assert fairspec("submit", "check", tmp_path / "none")[1].endswith(f"{tmp_path / 'none'}: refused: 1 fault\n")


def test_a_blank_is_named_beside_files(fairspec: Shell, tmp_path: Path) -> None:
    """With --file and all fields but one, the hint was lost: files were counted as a field."""
    run, file = Path(__file__).parents[2] / "docs/results/embedded-pair", tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    fields = [f"--{field}=x" for field in ("name", "description", "author", "contact", "licence", "url")]
    given = ("submit", "new", tmp_path / "one", "--run", run, "--file", file, *fields)
    assert fairspec(*given)[1].endswith("fill its blanks (...) before the check\n")
    given = ("submit", "new", tmp_path / "two", "--run", run, "--file", file, *fields, "--training_data=x")
    assert fairspec(*given)[1] == f"written: {tmp_path / 'two/submission.toml'}\n"


def test_a_submission_is_reported_as_it_is_packed(fairspec: Shell, tmp_path: Path) -> None:
    submission = Path(shutil.copytree(Path(__file__).parents[2] / "submissions/plain", tmp_path / "plain"))
    before = contents(submission)
    for folder in (submission, submission / "run"):
        status, out, _ = fairspec("report", folder, "--format", "csv")
        assert status == 0
        assert "acceptance" in out
    assert contents(submission) == before


def test_tracks_are_listed_and_a_new_one_needs_its_words(fairspec: Shell, tmp_path: Path) -> None:
    status, out, _ = fairspec("track")
    assert (status, out.startswith("embedded")) == (0, True)
    status, _, err = fairspec("track", tmp_path)
    assert (status, "needs RUN NAME" in err) == (2, True)


def test_serving_what_is_not_there_is_one_line(fairspec: Shell, tmp_path: Path) -> None:
    status, _, err = fairspec("site", "serve", tmp_path)
    assert (status, err) == (2, f"fairspec: {tmp_path}: no site there. First: fairspec site build --out {tmp_path}.\n")


@pytest.mark.parametrize(
    ("device", "dtype", "found"),
    [("cpu", "auto", "float32"), ("cuda:1", "auto", "bfloat16"), ("cuda", "float32", "float32")],
)
def test_a_gpu_runs_in_bfloat16_unless_asked(device: str, dtype: str, found: str) -> None:
    assert run_options("v", "d", ["mgsm"], device=device, dtype=dtype).dtype == found
