"""A run on two vLLM servers, by their addresses: scored, resumed, agreed with, and refused where it must be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_vllm import Fake, served
from safetensors.numpy import load_file, save_file
from tiny_pair import lasting, save_pair

import fairspec_bench as fairspec
import fairspec_bench as fb
from fairspec_bench.api.experiments import agreement_page
from fairspec_bench.cli.main import main
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.scoring.executors.serving.metered_server import read_metrics
from fairspec_bench.scoring.executors.serving.vllm_server import Server

GAMMA = 3
ASKED: dict[str, Any] = {
    "languages": ("en", "te"),
    "limit": 6,
    "max_new_tokens": 24,
    "gamma": GAMMA,
    "race_prompts": 6,
    "race_rounds": 3,
    "race_width": 0.0,
    "batch_size": (3, 1),
    "backend": "vllm",
}
Servers = tuple[Fake, Fake, str, str]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    verifier, drafter = save_pair(tmp_path_factory.mktemp("pair"))
    return str(verifier), str(drafter)


@contextmanager
def both(pair: tuple[str, str]) -> Iterator[Servers]:
    """The server without a drafter and the one with it."""
    verifier, drafter = fairspec.load_pair(*pair)
    plain, drafted = Fake(verifier, None, GAMMA), Fake(verifier, drafter, GAMMA)
    with ExitStack() as stack:
        yield plain, drafted, stack.enter_context(served(plain)), stack.enter_context(served(drafted))


@pytest.fixture
def servers(pair: tuple[str, str]) -> Iterator[Servers]:
    with both(pair) as found:
        yield found


def score(pair: tuple[str, str], servers: Servers, out: Path, **changes: Any):
    addresses = {"model_args": {"base_url": servers[2]}, "drafter_args": {"base_url": servers[3]}}
    return fairspec.run(*pair, ["embedded_math"], out, **{**ASKED, **addresses, **changes})


@pytest.fixture(scope="module")
def scored(pair: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored") / "run"
    with both(pair) as found:
        score(pair, found, out)
    return out


def lines(folder: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{stage}.jsonl").read_text().splitlines()]


def test_the_run_has_the_texts_that_this_engine_makes(scored: Path, pair: tuple[str, str], tmp_path: Path) -> None:
    ours = {**ASKED, "backend": "eager", "race_rounds": 0, "batch_size": 3}
    fairspec.run(*pair, ["embedded_math"], tmp_path / "ours", cache=None, **ours)
    kept = ("key", "ids", "finish", "prompt_sha")
    texts = [
        [{name: line[name] for name in kept} for line in lines(each, "reference")]
        for each in (scored, tmp_path / "ours")
    ]
    assert texts[0] == texts[1]
    assert lines(scored, "answer") == [
        {**line, "target_nats": None, "target_bytes": None} for line in lines(tmp_path / "ours", "answer")
    ]


def test_the_report_has_what_was_served_and_says_what_was_not(scored: Path) -> None:
    report = fb.report(scored)
    (suite,) = report.suites
    for task in suite.tasks:
        mine = [line for line in lines(scored, "race") if line["key"].startswith(f"{task.task}/")]
        blocks = [block for line in mine for block in line["blocks"]]
        tested = sum(min(block["emitted"], GAMMA) for block in blocks)
        accepted = sum(block["accepted"] for block in blocks)
        observed = task.measures["acceptance_observed"]
        assert observed.value is not None
        assert observed.value == pytest.approx(accepted / tested, rel=1e-6)
        assert 0 < accepted < tested
        # Its interval is the machine's: six prompts on a loaded one may give none.
        assert task.measures["speedup"].value is not None
        assert task.measures["misfit"].value is None
        assert not [flag for flag in task.flags if flag.startswith("incomplete")]
    assert suite.across["unfairness"].value is None
    (note,) = [note for note in report.notes if note.startswith("decoded by vLLM")]
    assert "0 of 12 with drafts, 0 of 12 without" in note
    assert suite.sweep is not None
    for cell in suite.sweep.cells:
        assert cell.latency_p50.value <= cell.latency_p95.value
        assert cell.tokens_per_second.low < cell.tokens_per_second.value
    for line in lines(scored, "sweep"):
        alone = sum(line["latency_ns"]) <= line["decode_ns"]
        assert alone == (line["batch_size"] == 1), "requests at once wait together, others after each other"


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_texts(
    scored: Path, pair: tuple[str, str], servers: Servers, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(scored, out)
    done = (out / "chunks.jsonl").read_text().splitlines(keepends=True)
    (out / "chunks.jsonl").write_text("".join(done[:3]))
    before = servers[0].requests
    score(pair, servers, out)
    assert servers[0].requests > before
    assert lasting(out) == lasting(scored)


def test_two_engines_that_agree_are_said_to(scored: Path) -> None:
    found = fb.agree(scored)
    assert found.holds
    for task in found.tasks:
        assert task.prompts == task.same_text == task.same_text_drafted == task.same_rounds == 6
        assert task.served == task.live
        assert task.live_inside == task.replayed
        assert 0 < task.replayed.accepted_by_position[0] < task.replayed.rounds
    assert "Everything agrees." in agreement_page(found)


@pytest.mark.parametrize(
    ("which", "wrong", "what"), [(1, "rounds", "rounds"), (1, "text", "text with drafts"), (0, "text", "text")]
)
def test_an_engine_that_differs_is_found_out(
    pair: tuple[str, str], tmp_path: Path, which: int, wrong: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with both(pair) as found:
        found[which].wrong = wrong
        score(pair, found, tmp_path / "run", race_rounds=1, batch_size=3)
    differences = [each for task in fb.agree(tmp_path / "run").tasks for each in task.differences]
    assert what in {each.what for each in differences}
    if what == "text":
        assert all(each.position and each.gap for each in differences if each.what == "text")
    with pytest.raises(SystemExit) as stopped:
        main(["agree", str(tmp_path / "run")])
    assert stopped.value.code == 1
    assert differences[0].key in capsys.readouterr().out


@pytest.mark.parametrize(
    ("which", "wrong", "said"),
    [
        (1, "others", "others use it"),
        (0, "busy", "busy with 1 requests"),
        (1, "short", "ended after"),
        (0, "count prompt_tokens_total nan", "vllm:prompt_tokens_total: the engine reports nan, which is not a count"),
        (0, "count prompt_tokens_total -5", "vllm:prompt_tokens_total: the engine reports -5.0, which is not a count"),
        (1, "count num_drafts NaN", "num_drafts_total: the engine reports nan, which is not a count"),
        (1, "count num_accepted_tokens_per_pos +Inf", 'position="0": the engine reports inf, which is not a count'),
        (
            0,
            "others",
            "served 12 requests with 794 prompt and 144 output tokens where 6, 794",
        ),
        (0, "restart 3", "794 and 144 were asked here: was it restarted? Run again."),
        (0, "restart 8", "its counters fell from (6, "),
        (1, "restart 8", "its counters fell from (8, "),
        (0, "drop prompt_tokens_total", "/metrics has no vllm:prompt_tokens_total"),
        (0, "drop num_requests_running", "/metrics has no vllm:num_requests_running"),
        (1, "drop num_draft_tokens_total", "/metrics has no vllm:spec_decode_num_draft_tokens_total"),
        (0, "no-key", "HTTP 401 (unauthorized). Set VLLM_API_KEY"),
    ],
)
def test_a_server_that_cannot_be_trusted_is_refused(
    pair: tuple[str, str], servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int, wrong: str,
    said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("fairspec_bench.scoring.executors.serving.metered_server.SETTLE", 0.2)
    servers[which].wrong = wrong
    with pytest.raises(FairspecError, match=r"^http") as refused:
        score(pair, servers, tmp_path / "run")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("vanish", "backend=vllm: the engine with the drafter reports no counts of speculation"),
        ("jump", "the engine counted 10"),
    ],
)
def test_counts_of_speculation_that_cannot_be_are_refused(
    pair: tuple[str, str], servers: Servers, tmp_path: Path, wrong: str, said: str
) -> None:
    servers[1].wrong = wrong
    with pytest.raises(FairspecError) as refused:
        score(pair, servers, tmp_path / "run")
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("idle", "this server drafted nothing for these prompts, by its own counts (decodes): embedded_math/en "),
        ("depth", "this server's draft length changed: 2."),
    ],
)
def test_a_server_that_does_not_draft_by_gamma_is_named_and_no_figure_pretends_that_it_did(
    pair: tuple[str, str], servers: Servers, tmp_path: Path, wrong: str, said: str
) -> None:
    servers[1].wrong = wrong
    report = score(pair, servers, tmp_path / "run", race_rounds=2, batch_size=3)
    (note,) = [note for note in report.notes if note.startswith("this server")]
    assert note.startswith(said)
    for task in report.suites[0].tasks:
        assert task.task in note
        assert task.measures["acceptance_observed"].value is None
        assert task.measures["speedup"].value is not None


def test_a_drafter_that_is_never_right_past_some_length_is_named(
    pair: tuple[str, str], servers: Servers, scored: Path, tmp_path: Path
) -> None:
    """vLLM proposes id 0 past a drafter's context (vllm-project/vllm#58080): slow for long prompts, with no word."""
    lengths = sorted({line["context"] for line in lines(scored, "race")})
    limit = lengths[len(lengths) // 2]
    assert limit < lengths[-1]
    servers[1].wrong = f"past {limit}"
    report = score(pair, servers, tmp_path / "run")
    (note,) = [note for note in report.notes if note.startswith("no draft was accepted")]
    assert note.startswith(f"no draft was accepted for prompts of more than {limit} tokens (")
    assert not any(note.startswith("no draft") for note in fairspec.report(scored).notes)


@pytest.fixture
def counting(servers: Servers) -> Servers:
    """Servers that say what they drafted for each request."""
    for fake in servers[:2]:
        fake.per_request = True
    return servers


def test_counts_of_each_request_are_those_of_the_totals_and_have_intervals_under_load(
    pair: tuple[str, str], counting: Servers, scored: Path, tmp_path: Path
) -> None:
    report = score(pair, counting, tmp_path / "run")
    races = [{line["key"]: line.get("counters") for line in lines(run, "race") if line["mode"] == "speculative"}
             for run in (scored, tmp_path / "run")]  # fmt: skip
    assert races[0] == races[1]
    tested, accepted = 0, 0
    for line in lines(tmp_path / "run", "sweep"):
        each = line.get("request_counters", [])
        assert len(each) == (line["prompts"] if line["gamma"] else 0)
        if each:
            assert sum(one["drafts"] for one in each) == line["counters"]["drafts"]
        if line["gamma"] and line["batch_size"] == 3 and line["chunk"].startswith("embedded_math/te"):
            tested += sum(one["rounds"] + sum(one["accepted_by_position"][: GAMMA - 1]) for one in each)
            accepted += sum(one["accepted"] for one in each)
    cells = {(cell.task, cell.batch_size, cell.gamma): cell for cell in report.suites[0].sweep.cells}
    found = cells["embedded_math/te", 3, GAMMA].acceptance_observed
    assert found.value == pytest.approx(accepted / tested)
    assert 0 < found.low < found.value < found.high < 1
    assert cells["embedded_math/te", 3, 0].acceptance_observed is None
    assert "observed acceptance under load" in fairspec.export(report, "md").decode()


def test_a_server_that_others_use_gives_acceptance_and_no_verdict_on_speed(
    pair: tuple[str, str], counting: Servers, scored: Path, tmp_path: Path
) -> None:
    for fake in counting[:2]:
        fake.wrong = "others"
    shared = {
        f"{side}_args": {"base_url": url, "shared": True}
        for side, url in zip(("model", "drafter"), counting[2:], strict=True)
    }
    report = score(pair, counting, tmp_path / "run", **shared)
    for task, alone in zip(report.suites[0].tasks, fairspec.report(scored).suites[0].tasks, strict=True):
        counted = task.measures["acceptance_observed"]
        assert counted.value == pytest.approx(alone.measures["acceptance_observed"].value)
        assert "race: no verdict on speed" in task.flags
    assert report.race_verdict.status == "shared"
    counting[1].per_request = False
    with pytest.raises(FairspecError, match="shared, but counts no speculation for each request"):
        score(pair, counting, tmp_path / "other", **shared)


@pytest.mark.parametrize("cumulative", [True, False])
def test_an_sglang_server_is_read_by_its_documented_answers(
    pair: tuple[str, str], counting: Servers, scored: Path, tmp_path: Path, cumulative: bool
) -> None:
    for fake in counting[:2]:
        fake.cumulative = cumulative
    report = score(pair, counting, tmp_path / "run", backend="sglang", race_rounds=1, batch_size=3)
    races = [{line["key"]: line.get("counters") for line in lines(run, "race") if line["mode"] == "speculative"}
             for run in (scored, tmp_path / "run")]  # fmt: skip
    assert races[0] == races[1]
    assert any(note.startswith("decoded by SGLang") for note in report.notes)
    counting[1].per_request = False
    with pytest.raises(FairspecError, match="meta_info has no spec_verify_ct"):
        score(pair, counting, tmp_path / "other", backend="sglang")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("histogram", "contradict each other"), ("renamed", "the counts of a request are no counts ([")],
)
def test_counts_of_a_request_that_cannot_be_are_refused(
    pair: tuple[str, str], counting: Servers, tmp_path: Path, wrong: str, said: str
) -> None:
    counting[1].wrong = wrong
    with pytest.raises(FairspecError, match=r"^http") as refused:
        score(pair, counting, tmp_path / "run")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_the_draft_vocabulary_lacks_is_counted_by_language(
    pair: tuple[str, str], servers: Servers, tmp_path: Path
) -> None:
    """A drafter that can propose only even ids: the share is that of odd ids among the references' tokens."""
    pruned = tmp_path / "pruned"
    shutil.copytree(pair[1], pruned)
    tensors = load_file(pruned / "model.safetensors")
    save_file({**tensors, "d2t": np.arange(100, dtype=np.int64)}, pruned / "model.safetensors", {"format": "pt"})
    report = score((pair[0], str(pruned)), servers, tmp_path / "run", race_rounds=1, batch_size=3)
    for task in report.suites[0].tasks:
        mine = [line["ids"][1:] for line in lines(tmp_path / "run", "reference") if line["key"].startswith(task.task)]
        odd = [token % 2 == 1 or token >= 200 for ids in mine for token in ids]
        found = task.measures["outside_draft_vocabulary"]
        assert found.value == pytest.approx(sum(odd) / len(odd))
        assert 0 < found.value < 1


def test_servers_in_each_others_place_are_refused(pair: tuple[str, str], servers: Servers, tmp_path: Path) -> None:
    plain, drafted = servers[2:]
    with pytest.raises(FairspecError, match="speculates, so it is no baseline"):
        score(pair, servers, tmp_path / "a", model_args={"base_url": drafted})
    with pytest.raises(FairspecError, match="counts no speculation"):
        score(pair, servers, tmp_path / "b", drafter_args={"base_url": plain})


def test_another_gamma_than_the_servers_is_refused(pair: tuple[str, str], servers: Servers, tmp_path: Path) -> None:
    with pytest.raises(FairspecError, match=r"drafts 3 tokens. Give --gamma 3"):
        score(pair, servers, tmp_path / "run", gamma=4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": 0.7}, "greedy only"),
        ({"gamma": (3, 2)}, "one gamma a run"),
        ({"drafter_args": {}}, "Give both"),
        ({"model_args": {"base_url": "http://h", "trust_remote_code": True}}, "trust_remote_code: not an option"),
        ({"model_args": {"base_url": "ftp://h"}}, "no address"),
    ],
)
def test_what_a_serving_engine_cannot_do_is_refused_before_it_starts(
    pair: tuple[str, str], servers: Servers, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(FairspecError) as refused:
        score(pair, servers, tmp_path / "run", **changes)
    assert said in str(refused.value)
    assert servers[0].requests == 0


def test_no_server_is_said_in_one_line() -> None:
    with pytest.raises(FairspecError, match=r"no answer .*Is the server running"):
        Server("http://127.0.0.1:9", speculates=False)


def test_metrics_are_read_by_name_and_labels() -> None:
    text = '# TYPE a counter\na_total{x="1",y="}"} 3.0\na_total{x="2"} 4\nb 1e3\nbroken{ 1\nc nothing\n'
    assert read_metrics(text) == {"a_total": {'x="1",y="}"': 3.0, 'x="2"': 4.0}, "b": {"": 1000.0}}
