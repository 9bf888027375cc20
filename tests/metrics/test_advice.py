"""Advice: every verdict follows from a whole interval, and no choice is judged on what made it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from made_up_run import ENVIRONMENT, make_run

from fairspec_bench.metrics import advice
from fairspec_bench.metrics.advice import Arm, TimedRun, advise, geometric_mean, quotient, route, sentence, task_advice
from fairspec_bench.metrics.report import build_report
from fairspec_bench.metrics.run_data import Lines, load_run_data
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import ModelConfig
from fairspec_bench.schemas.lines import Throughput
from fairspec_bench.schemas.report import Estimate, RaceVerdict, Report, SweepCell, SweepReport
from fairspec_bench.scoring.executors.serving.configuration import vllm_commands

LOAD = Path(__file__).parents[2] / "docs" / "results" / "load.md"
FIGURE = re.compile(r"([\d.]+) \[([\d.]+), ([\d.]+)\]")


def figure(value: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high)


@pytest.fixture(scope="module")
def raced() -> Report:
    """A run where drafts pay for en and slow te down."""
    config, lines = make_run({"en": 0.9, "te": 0.1}, 12, rounds=5)
    return build_report(config, [ENVIRONMENT], lines, replicates=200)


def loaded(report: Report, speedups: dict[str, dict[int, Estimate]]) -> Report:
    """The report as if these loads had been swept with γ = 4."""
    cells = tuple(
        SweepCell(task=f"toy/{language}", batch_size=load, gamma=4, tokens_per_second=figure(1.0), speedup=speedup)
        for language, by_load in speedups.items()
        for load, speedup in by_load.items()
    )
    (suite,) = report.suites
    swept = SweepReport(rounds=3, cells=cells, payoffs=(), best=())
    return report.model_copy(update={"suites": (suite.model_copy(update={"sweep": swept}),)})


# --------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("speedup", "verdict"),
    [
        (figure(1.2, 1.01, 1.4), "pays"),
        (figure(1.2, 0.99, 1.4), "not known"),
        (figure(0.9, 0.7, 1.01), "not known"),
        (figure(0.9, 0.8, 0.99), "does not pay"),
        (figure(1.2, 1.0, 1.4), "not known"),
        (figure(1.2), "not known"),
        (Estimate(), "not known"),
    ],
)
def test_a_verdict_needs_the_whole_interval(speedup: Estimate, verdict: str) -> None:
    found = task_advice("toy/en", speedup, quiet=True, doubted=False)
    assert found.verdict == verdict
    assert bool(found.why) == (verdict == "not known")
    said = sentence(found)
    assert said.startswith(f"en {verdict}" if verdict != "not known" else "en is not known")
    assert ("without the drafter" in said) == (verdict == "does not pay")


@pytest.mark.parametrize(("quiet", "doubted"), [(False, False), (True, True)])
def test_no_verdict_by_a_clock_or_by_answers_that_cannot_be_trusted(quiet: bool, doubted: bool) -> None:
    assert task_advice("toy/en", figure(2, 1.9, 2.1), quiet, doubted).verdict == "not known"


def test_a_race_gives_advice_for_one_request(raced: Report) -> None:
    (suite,) = advise(raced).suites
    assert suite.languages("pays") == ("en",)
    assert suite.languages("does not pay") == ("te",)
    te = next(task for task in raced.suites[0].tasks if task.language == "te").measures["speedup"]
    assert te.value is not None
    assert te.high is not None
    assert suite.gain.value == pytest.approx(1 / te.value)
    assert suite.gain.low == pytest.approx(1 / te.high)
    (said,) = advice.summaries(raced, "toy")
    assert "one request at a time the drafter pays: en; does not pay: te. Without the drafter, te gains" in said


def test_a_noisy_race_gives_none(raced: Report) -> None:
    noisy = raced.model_copy(update={"race_verdict": RaceVerdict(status="noisy", rounds=5)})
    assert advise(noisy).suites[0].languages("not known") == ("en", "te")


def test_a_load_that_was_not_timed_is_refused(raced: Report) -> None:
    with pytest.raises(FairspecError, match=r"--requests 16: the run timed 1 at once.*--batch_size 1,16"):
        advise(raced, 16)
    config, lines = make_run({"en": 0.9}, 3)
    with pytest.raises(FairspecError, match="the run timed nothing with a drafter"):
        advise(build_report(config, [ENVIRONMENT], lines, replicates=50))


def test_the_published_advice_under_load_follows_from_its_intervals(raced: Report) -> None:
    """docs/results/load.md: the sentences are those that its own table gives, at each of its four loads."""
    page = LOAD.read_text(encoding="utf-8")
    table = page.split("## Speed-up by batch size")[1].split("##")[0]
    speedups = {}
    for row in table.splitlines():
        cells = [cell.strip() for cell in row.strip("| ").split("|")]
        figures = [figure(*map(float, found)) for cell in cells for found in FIGURE.findall(cell)]
        if len(figures) == 4:
            speedups[cells[0]] = dict(zip((1, 4, 16, 64), figures, strict=True))
    assert set(speedups) == {"en", "sw", "te"}
    (suite,) = raced.suites
    tasks = tuple(suite.tasks[0].model_copy(update={"task": f"toy/{each}", "language": each}) for each in speedups)
    report = raced.model_copy(update={"suites": (suite.model_copy(update={"tasks": tasks}),)})
    report = loaded(report, speedups)
    for load in (1, 4, 16, 64):
        (found,) = advise(report, load).suites
        said = advice.summary(found, load)
        assert f"- {said}" in page.splitlines()


# --------------------------------------------------------------------------- γ


def line(task: str, half: int, gamma: int, number: int, ns: float) -> Throughput:
    return Throughput(
        chunk=f"{task}/000", half=half, batch_size=4, gamma=gamma, round=number, order=0, prompts=10, tokens=510,
        prefill_ns=0, decode_ns=round(ns),
    )  # fmt: skip


def test_gamma_is_chosen_on_one_half_and_judged_on_the_other() -> None:
    """γ = 2 is lucky on half 0, where it looks like 3×; what is told is half 1, where it pays nothing."""
    gains = {(0, 2): 3.0, (1, 2): 0.8, (0, 4): 1.5, (1, 4): 1.5}
    rng = np.random.default_rng(0)
    lines = [
        line("toy/en", half, gamma, number, 1e9 / gains.get((half, gamma), 1.0) * np.exp(0.001 * rng.standard_normal()))
        for number in range(5)
        for half in (0, 1)
        for gamma in (0, 2, 4)
    ]
    config, made = make_run({"en": 0.9}, 12, rounds=5)
    report = build_report(config, [ENVIRONMENT], Lines(**{**vars(made), "throughputs": lines}), replicates=50)
    (suite,) = advise(report, 4).suites
    assert suite.gamma == 2
    assert suite.tasks[0].verdict == "does not pay"
    assert suite.tasks[0].speedup.value == pytest.approx(0.8, rel=0.01)


# --------------------------------------------------------------------------- routers


def test_a_router_is_judged_on_the_half_that_did_not_choose_it() -> None:
    a, b = Arm("a", 3), Arm("b", 3)
    first = {a: {"toy/en": figure(2.0), "toy/te": figure(0.9)}, b: {"toy/en": figure(1.0), "toy/te": figure(1.5)}}
    second = {
        a: {"toy/en": figure(1.9, 1.8, 2.0), "toy/te": figure(0.8, 0.7, 0.9)},
        b: {"toy/en": figure(1.1, 1.0, 1.2), "toy/te": figure(1.2, 1.1, 1.3)},
    }
    found = route(first, second)
    assert found is not None
    assert found.single == "a"
    assert [each.drafter for each in found.routes] == ["a", "b"]
    assert found.gain.value == pytest.approx(np.sqrt(1.0 * 1.2 / 0.8))
    assert found.gain.low == pytest.approx(np.sqrt(1.0 * 1.1 / 0.9))
    assert found.gain.high == pytest.approx(np.sqrt(1.0 * 1.3 / 0.7))
    assert "gains against a (γ = 3) for all: 1.22×" in advice.routing_sentence(found)


def test_a_router_over_noise_gains_nothing() -> None:
    """Twenty drafters that are all the same: the best by chance is 1.2× on its own half, and 1 on the other."""
    rng = np.random.default_rng(1)
    tasks = [f"toy/{name}" for name in "abcdefghij"]

    def half() -> dict[Arm, dict[str, Estimate]]:
        draws = np.exp(0.1 * rng.standard_normal((20, len(tasks))))
        return {
            Arm(f"d{row}", 3): {task: figure(x, x * 0.82, x * 1.22) for task, x in zip(tasks, draws[row], strict=True)}
            for row in range(20)
        }

    first, second = half(), half()
    flattered, honest = route(first, first), route(first, second)
    assert flattered is not None
    assert honest is not None
    assert flattered.gain.value is not None
    assert flattered.gain.value > 1.1
    assert honest.gain.value == pytest.approx(1, abs=0.08)
    assert "not known" in advice.routing_sentence(honest)


def test_a_router_takes_no_drafter_where_all_slow_down() -> None:
    slow = {Arm("a", 3): {"toy/en": figure(0.5, 0.4, 0.6), "toy/te": figure(0.7, 0.6, 0.8)}}
    found = route(slow, slow)
    assert found is not None
    assert (found.single, found.gain) == (None, figure(1, 1, 1))
    assert [each.drafter for each in found.routes] == [None, None]
    assert "it gains nothing" in advice.routing_sentence(found)


def test_a_router_of_two_runs(raced: Report) -> None:
    """Of two drafters, each good at one language, the router takes each for its own."""
    runs = []
    for name, chances in (("first", {"en": 0.9, "te": 0.1}), ("second", {"en": 0.1, "te": 0.9})):
        config, lines = make_run(chances, 12, rounds=5, seed=3)
        runs.append(TimedRun(name, load_run_data(config, lines), quiet=True))
    found = advice.with_router(advise(raced), runs).suites[0].routing
    assert found is not None
    assert {each.task: each.drafter for each in found.routes} == {"toy/en": "first", "toy/te": "second"}
    assert found.gain.low is not None
    assert found.gain.low > 1
    other = runs[1].data.config.model_copy(update={"dtype": "bfloat16"})
    odd = TimedRun("odd", load_run_data(other, Lines()), quiet=True)
    with pytest.raises(FairspecError, match="first and odd differ in dtype"):
        advice.with_router(advise(raced), [runs[0], odd])
    with pytest.raises(FairspecError, match="second gives no verdict"):
        advice.with_router(advise(raced), [runs[0], TimedRun("second", runs[1].data, quiet=False)])


def test_the_bounds_of_a_mean_cover_whatever_the_dependence() -> None:
    """Errors that are the same in all languages, or independent: at least 95 % of intervals hold the truth."""
    rng = np.random.default_rng(0)
    for common in (0.0, 1.0):
        held = 0
        for _ in range(2000):
            errors = 0.05 * (common * rng.standard_normal() + (1 - common) * rng.standard_normal(5))
            found = geometric_mean(
                [figure(np.exp(e), np.exp(e - 1.96 * 0.05), np.exp(e + 1.96 * 0.05)) for e in np.ravel(errors)]
            )
            assert found.low is not None
            assert found.high is not None
            held += found.low <= 1 <= found.high
        assert held / 2000 > 0.94
    assert geometric_mean([]) == Estimate()
    assert quotient(figure(2, 1.8, 2.2), Estimate()) == Estimate()


# --------------------------------------------------------------------------- configuration


def test_the_configuration_starts_vllm_as_advised(raced: Report) -> None:
    drafter = ModelConfig(name="or'g/small", revision="abc", options={"method": "eagle3", "served": True})
    found = advise(raced.model_copy(update={"config": raced.config.model_copy(update={"drafter": drafter})}))
    commands = [line for line in vllm_commands(found).splitlines() if not line.startswith("#")]
    with_drafter, without = map(shlex.split, commands)
    assert with_drafter[:3] == without[:3] == ["vllm", "serve", "big"]
    assert json.loads(with_drafter[-1]) == {"method": "eagle3", "model": "or'g/small", "num_speculative_tokens": 3}
    assert "--speculative-config" not in without
    assert "# With the drafter: toy/en" in vllm_commands(found)
    assert "# Without the drafter: toy/te" in vllm_commands(found)


def test_a_drafter_that_vllm_does_not_have_has_no_configuration(raced: Report) -> None:
    oracle = raced.config.model_copy(update={"drafter": ModelConfig(name="oracle:0.8", kind="oracle")})
    with pytest.raises(FairspecError, match=r"vLLM has no such drafter as oracle:0\.8"):
        vllm_commands(advise(raced.model_copy(update={"config": oracle})))
