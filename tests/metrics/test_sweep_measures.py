"""What a sweep comes to: paired intervals over rounds, where it stops paying, and a γ chosen where it is not judged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from made_up_run import ENVIRONMENT, make_config, make_run
from scipy import stats

from fairspec_bench.metrics.report import build_report
from fairspec_bench.metrics.run_data import Lines, load_run_data
from fairspec_bench.metrics.sweep import over_rounds, payoff, sweep_report
from fairspec_bench.reporting.formats import markdown
from fairspec_bench.reporting.frames import report_frame
from fairspec_bench.reporting.tables import render
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Throughput
from fairspec_bench.schemas.report import Estimate, RaceVerdict, Report, SuiteReport, SweepReport

TASKS = ("toy/en", "toy/te")
PROMPTS, TOKENS = 10, 510
"""Of a half: 500 tokens are decoded, the first of each prompt comes from prefill."""


def line(task: str, half: int, batch: int, gamma: int, number: int, ns: float) -> Throughput:
    return Throughput(
        chunk=f"{task}/000", half=half, batch_size=batch, gamma=gamma, round=number, order=0, prompts=PROMPTS,
        tokens=TOKENS, prefill_ns=9_000_000, decode_ns=round(ns),
    )  # fmt: skip


def swept(
    speedups: Mapping[tuple[str, int, int], tuple[float, float]], *, rounds: int = 5, jitter: float = 0.001
) -> list[Throughput]:
    """A sweep where task, batch size and γ have the given speed-ups on half 0 and half 1.

    Alone, a batch of B takes 1 ms / B a token; a round is slow or fast as a whole by 30 %.
    """
    rng = np.random.default_rng(0)
    found = []
    for number in range(rounds):
        drift = np.exp(0.3 * rng.standard_normal())
        for task, batch in dict.fromkeys((task, batch) for task, batch, _ in speedups):
            mine = {gamma: both for (name, size, gamma), both in speedups.items() if (name, size) == (task, batch)}
            for half in (0, 1):
                for gamma, gain in {0: 1.0, **{gamma: both[half] for gamma, both in mine.items()}}.items():
                    noise = np.exp(jitter * rng.standard_normal())
                    found.append(line(task, half, batch, gamma, number, 500 * 1e6 / batch / gain * drift * noise))
    return found


def report_of(lines: list[Throughput]) -> SweepReport:
    made = sweep_report(lines, TASKS)
    assert made is not None
    return made


def test_speedups_are_paired_by_round_and_cover_the_truth() -> None:
    """Rounds differ by 30 %: unpaired, no interval would be narrow."""
    found = report_of(swept({("toy/en", 1, 2): (1.5, 1.5), ("toy/en", 4, 2): (0.8, 0.8)}))
    cells = {(each.batch_size, each.gamma): each for each in found.cells}
    for batch, truth in ((1, 1.5), (4, 0.8)):
        figure = cells[batch, 2].speedup
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low < truth < figure.high
        assert figure.high - figure.low < 0.01 * truth
        alone, drafted = cells[batch, 0].tokens_per_second, cells[batch, 2].tokens_per_second
        assert cells[batch, 0].speedup == Estimate()
        assert alone.value == pytest.approx(1000 * batch, rel=0.4)
        assert drafted.value is not None
        assert alone.value is not None
        assert drafted.value / alone.value == pytest.approx(truth, rel=0.01)


def test_the_interval_is_students_over_rounds() -> None:
    logs = np.log([1.1, 1.2, 1.5, 1.0])
    found = over_rounds(logs)
    mean, reach = logs.mean(), stats.t.ppf(0.975, 3) * logs.std(ddof=1) / 2
    assert (found.value, found.low, found.high) == pytest.approx(tuple(np.exp([mean, mean - reach, mean + reach])))
    assert over_rounds(logs[:2]) == Estimate(value=float(np.exp(logs[:2].mean())))
    assert over_rounds(np.array([])) == over_rounds(np.array([0.0, np.nan, 0.1])) == Estimate()


def test_tokens_of_prefill_are_not_counted() -> None:
    lines = [
        line("toy/en", half, 1, gamma, number, 500e6) for half in (0, 1) for gamma in (0, 1) for number in range(3)
    ]
    assert report_of(lines).cells[0].tokens_per_second.value == pytest.approx(1000)


def test_where_it_stops_paying_and_where_that_is_undecided() -> None:
    faster, unclear, slower = (Estimate(value=v, low=v - 0.1, high=v + 0.1) for v in (1.3, 1.02, 0.8))
    bare = Estimate(value=1.5)
    cases = {
        "pays": ({1: faster, 4: faster}, None),
        "stops": ({1: faster, 4: slower, 8: unclear, 16: slower}, 4),
        "undecided": ({1: faster, 4: unclear}, None),
    }
    for verdict, (speedups, stops_at) in cases.items():
        found = payoff("toy/en", 2, dict(reversed(speedups.items())))
        assert (found.verdict, found.stops_at) == (verdict, stops_at)
    assert payoff("toy/en", 2, {1: faster, 4: bare}).verdict == "undecided"
    assert payoff("toy/en", 2, {1: faster, 4: Estimate()}).verdict == "undecided"


def test_gamma_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    """γ = 2 is best on half 0, γ = 4 on half 1: whoever chooses on the half he reports takes 4."""
    found = report_of(swept({(task, 1, gamma): both for task in TASKS for gamma, both in
                             ((1, (1.1, 1.1)), (2, (1.6, 1.2)), (4, (1.3, 1.9)))}))  # fmt: skip
    (best,) = found.best
    assert best.gamma == 2
    assert best.chosen.value == pytest.approx(1.6, rel=0.01)
    assert best.total.value == pytest.approx(1.2, rel=0.01)
    assert {task: round(each.value or 0, 1) for task, each in best.speedup.items()} == {"toy/en": 1.2, "toy/te": 1.2}
    assert all(each.low is not None for each in best.speedup.values())


def test_one_gamma_serves_all_languages_by_their_summed_times() -> None:
    """en gains most by γ = 4 and te loses; together (1 + 1) / (1/1.5 + 1/1.4) beats (1 + 1) / (1/2 + 1/0.8)."""
    gains = {("toy/en", 1, 1): 1.5, ("toy/te", 1, 1): 1.4, ("toy/en", 1, 4): 2.0, ("toy/te", 1, 4): 0.8}
    (best,) = report_of(swept({key: (gain, gain) for key, gain in gains.items()})).best
    assert best.gamma == 1
    assert best.total.value == pytest.approx(2 / (1 / 1.5 + 1 / 1.4), rel=0.01)
    assert best.speedup["toy/en"].value == pytest.approx(1.5, rel=0.01)


def test_rounds_that_are_not_whole_are_left_out() -> None:
    lines = swept({("toy/en", 1, 2): (1.5, 1.5)}, rounds=4)
    assert report_of(lines[:-1]).rounds == 3
    assert report_of(lines[:-1]).cells == report_of([each for each in lines if each.round < 3]).cells
    assert sweep_report(lines, ["toy/fr"]) is None


def test_two_rounds_have_figures_and_no_intervals() -> None:
    found = report_of(swept({("toy/en", 1, 2): (1.5, 1.5)}, rounds=2))
    assert all(each.tokens_per_second.value and each.tokens_per_second.low is None for each in found.cells)
    assert found.payoffs[0].verdict == "undecided"


def test_the_report_tells_of_it_and_is_as_before_without() -> None:
    config, lines = make_run({"en": 0.8, "te": 0.5}, 6, rounds=5, noise=0.001)
    config = config.model_copy(update={"gammas": (2, 12), "batch_sizes": (1, 4), "race_rounds": 5})
    gains = {
        (task, batch, gamma): (gain / gamma**0.1,) * 2
        for task in TASKS
        for batch, gain in ((1, 1.5), (4, 0.9))
        for gamma in (2, 12)
    }
    told = Lines(lines.references, lines.answers, lines.drafter_answers, lines.replays, lines.timings,
                 throughputs=swept(gains, rounds=5, jitter=0.0001))  # fmt: skip
    report = build_report(config, [ENVIRONMENT], told, replicates=20)
    suite = report.suites[0]
    assert suite.sweep is not None
    assert {each.stops_at for each in suite.sweep.payoffs} == {4}
    assert 12 in suite.tasks[0].block_efficiency_by_gamma
    page = markdown(render(report))
    assert "not from batch 4" in page
    assert "one γ for all" in page
    names = set(report_frame(report)["measure"])
    assert {"sweep_speedup[batch=4, γ=12]", "sweep_pace[batch=1, γ=0]", "sweep_best[batch=1, γ=2]"} <= names
    assert Report.model_validate_json(report.model_dump_json()) == report
    noisy = report.model_copy(update={"race_verdict": RaceVerdict(status="noisy")})
    assert "not from batch 4" not in markdown(render(noisy))
    plain = build_report(make_config(["en", "te"], 6), [ENVIRONMENT], lines, replicates=20)
    assert '"sweep"' not in plain.model_dump_json()
    assert SuiteReport.model_validate_json(plain.suites[0].model_dump_json()).sweep is None


def test_lines_that_claim_one_place_are_refused() -> None:
    one = line("toy/en", 0, 1, 0, 0, 1e6)
    with pytest.raises(FairspecError, match="round 0 twice"):
        load_run_data(make_config(["en"], 2), Lines(throughputs=[one, one]))
    with pytest.raises(FairspecError, match="no task"):
        load_run_data(make_config(["en"], 2), Lines(throughputs=[line("toy/xx", 0, 1, 0, 0, 1e6)]))
