"""Each claim's three verdicts, and that no verdict comes without support."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from evidence_sample import EQUAL, LANGUAGES, QUIET, SLOPE, between, make_change, make_report, near
from rich.console import Console
from scipy import stats

from fairspec_bench.experiments import claims
from fairspec_bench.experiments.claims import RULES, SAYS, Claim, ClaimInputs, Claims, concordance, judge, render_claims
from fairspec_bench.metrics.unfairness import spearman
from fairspec_bench.schemas.report import Estimate, RaceVerdict, Report

UNEQUAL = {"acceptance_gap": between(0.35, 0.45), "unfairness": near(0.06), "acceptance_variance": near(0.02)}
BALANCED = {"acceptance_gap": between(0.0, 0.03), "unfairness": near(0.0005, 0.0005), "acceptance_variance": near(0.0)}
FLOORS = {"acceptance_variance_floor": Estimate(value=0.001)}


def verdict_of(name: str, evidence: ClaimInputs) -> Claim:
    return next(claim for claim in judge(evidence).claims if claim.id == name)


def before(report: Report, **more: object) -> ClaimInputs:
    return ClaimInputs(before=(report,), **more)  # type: ignore[arg-type]


UNEVEN = make_report(SLOPE, across=UNEQUAL | FLOORS)


# --------------------------------------------------------------------------- a


def test_a_holds_for_a_material_gap() -> None:
    claim = verdict_of("a", before(UNEVEN))
    assert claim.verdict == "holds"
    assert claim.estimate == UNEQUAL["acceptance_gap"]
    assert "no race with a verdict" in claim.reason
    assert "[0.350, 0.450]" in claim.measured


def test_a_balanced_pair_turns_a_to_does_not_hold() -> None:
    claim = verdict_of("a", before(make_report(EQUAL, across=BALANCED)))
    assert claim.verdict == "does not hold"
    assert "below 0.05" in claim.reason
    small = BALANCED | {"acceptance_gap": between(0.031, 0.047)}
    claim = verdict_of("a", before(make_report(EQUAL, across=small)))
    assert claim.verdict == "by less than the margin"
    assert "differs significantly, by less than 0.05" in claim.reason


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"acceptance_gap": between(0.02, 0.2)}, "either side"),
        ({"acceptance_gap": Estimate(value=0.4)}, "no interval"),
        ({"acceptance_gap": Estimate()}, "no interval"),
        ({"unfairness": near(0.0009)}, "noise floor"),
    ],
)
def test_a_is_not_testable_without_support(changes: dict[str, Estimate], says: str) -> None:
    claim = verdict_of("a", before(make_report(SLOPE, across=UNEQUAL | changes)))
    assert claim.verdict == "not testable here"
    assert says in claim.reason


def test_a_counts_speed_only_in_a_quiet_race() -> None:
    across = UNEQUAL | {"speedup_gap": between(0.0, 0.04)}
    assert verdict_of("a", before(make_report(SLOPE, across=across))).verdict == "holds"
    refuted = verdict_of("a", before(make_report(SLOPE, across=across, race=QUIET)))
    assert refuted.verdict == "does not hold"
    assert "speed-up is significantly below" in refuted.reason
    across = UNEQUAL | {"speedup_gap": between(0.2, 0.9)}
    assert "speed-up above 0.05" in verdict_of("a", before(make_report(SLOPE, across=across, race=QUIET))).reason
    across = UNEQUAL | {"speedup_gap": between(0.0, 0.9)}
    assert "not decided" in verdict_of("a", before(make_report(SLOPE, across=across, race=QUIET))).reason


def test_one_suite_that_refutes_outweighs_one_that_supports() -> None:
    even = make_report(EQUAL, across=BALANCED, suite="story")
    claim = verdict_of("a", ClaimInputs(before=(UNEVEN, even)))
    assert claim.verdict == "does not hold"
    assert claim.reason.startswith("story (small)")
    assert [(one.where, one.support) for one in claim.findings] == [
        ("toy (small)", "for"),
        ("story (small)", "against"),
    ]


def test_an_undecided_suite_blocks_and_a_suite_without_figures_does_not() -> None:
    open_suite = make_report(SLOPE, across=UNEQUAL | {"acceptance_gap": between(0.0, 0.5)}, suite="story")
    empty = make_report(SLOPE, suite="story")
    assert verdict_of("a", ClaimInputs(before=(UNEVEN, open_suite))).verdict == "not testable here"
    claim = verdict_of("a", ClaimInputs(before=(UNEVEN, empty)))
    assert claim.verdict == "holds"
    assert "story (small): the report has no interval" in claim.reason


# --------------------------------------------------------------------------- b, c

UNKNOWN = "not testable here"


@pytest.mark.parametrize(
    ("fitness", "verdict"),
    [
        ({one: 0.5 + 0.04 * k for k, one in enumerate(LANGUAGES)}, "holds"),
        ({one: 0.9 - 0.04 * k for k, one in enumerate(LANGUAGES)}, "does not hold"),
        ({one: 0.5 + 0.04 * (k * 7 % 11) for k, one in enumerate(LANGUAGES)}, "not testable here"),
        (dict.fromkeys(LANGUAGES, 0.9), "not testable here"),
        ({one: 0.9 + 0.001 * k for k, one in enumerate(LANGUAGES)}, "not testable here"),
        ({one: 0.5 + 0.04 * (0, 2, 1, 4, 3, 6, 8, 5, 10, 7, 9)[k] for k, one in enumerate(LANGUAGES)}, "holds"),
        ({one: 0.5 + 0.04 * (2, 6, 0, 4, 1, 8, 3, 10, 5, 9, 7)[k] for k, one in enumerate(LANGUAGES)}, UNKNOWN),
        ({one: 0.5 + 0.06 * k for k, one in enumerate(LANGUAGES[:7])}, "not testable here"),
    ],
)
def test_b_follows_the_verifiers_accuracy(fitness: dict[str, float], verdict: str) -> None:
    report = make_report(SLOPE, figures={"verifier_fitness": fitness})
    claim = verdict_of("b", before(report))
    assert claim.verdict == verdict, claim.reason


def test_b_falls_back_on_the_drafters_accuracy() -> None:
    flat, rising = dict.fromkeys(LANGUAGES, 0.95), {one: 0.1 + 0.05 * k for k, one in enumerate(LANGUAGES)}
    report = make_report(SLOPE, figures={"verifier_fitness": flat, "drafter_fitness": rising})
    claim = verdict_of("b", before(report))
    assert claim.verdict == "holds"
    assert "ρ(drafter_fitness, acceptance)" in claim.measured


def test_b_uses_the_permutation_test_of_the_metrics() -> None:
    generator = np.random.default_rng(3)
    fitness = dict(zip(LANGUAGES, generator.uniform(0.2, 0.9, len(LANGUAGES)).tolist(), strict=True))
    report = make_report(SLOPE, figures={"verifier_fitness": fitness})
    rho, p = spearman(np.array(list(fitness.values())), np.array(list(SLOPE.values())), 2000, 0)
    claim = verdict_of("b", before(report))
    assert claim.estimate is not None
    assert claim.estimate.value == rho
    assert f"p = {p:.2g}" in claim.measured


RISING = {one: 0.1 + 0.05 * k for k, one in enumerate(LANGUAGES)}
FALLING = {one: 2.0 - 0.05 * k for k, one in enumerate(LANGUAGES)}


@pytest.mark.parametrize(
    ("race", "figures", "verdict", "stands_in"),
    [
        (QUIET, {"drafter_fitness": RISING, "speedup": RISING}, "holds", None),
        (QUIET, {"drafter_fitness": RISING, "speedup": FALLING}, "does not hold", None),
        (
            RaceVerdict(status="noisy"),
            {"drafter_fitness": RISING, "speedup": FALLING, "speedup_predicted": RISING},
            "holds",
            "speedup_predicted",
        ),
        (RaceVerdict(status="no race"), {"drafter_fitness": RISING}, "holds", "block_efficiency_uncut"),
        (QUIET, {"drafter_fitness": dict.fromkeys(LANGUAGES, 0.0), "speedup": RISING}, "not testable here", None),
    ],
)
def test_c_takes_the_best_figure_of_speed_there_is(
    race: RaceVerdict, figures: dict[str, dict[str, float]], verdict: str, stands_in: str | None
) -> None:
    claim = verdict_of("c", before(make_report(SLOPE, figures=figures, race=race)))
    assert claim.verdict == verdict
    assert ("stands for the speed-up" in claim.reason) == (stands_in is not None)
    assert stands_in is None or stands_in in claim.reason


def test_a_rank_correlation_is_concluded_from_its_interval_alone() -> None:
    """ρ = .618 of 11 languages has p < .05 and an interval of [−.034, .901]: once *holds*."""
    assert claims._beyond(claims.rho_interval(0.618, 11), 0.5) == "undecided"
    assert claims._beyond(claims.rho_interval(0.95, 11), 0.5) == "for"
    assert claims._beyond(claims.rho_interval(-0.2, 30), 0.5) == "against"
    assert claims._beyond(claims.rho_interval(0.3, 300), 0.5) == "smaller"


def latent(rng: np.random.Generator, rho: float, worlds: int) -> list[str]:
    """What is concluded of 11 languages whose latent correlation is such that Spearman's is `rho`."""
    pearson = 2 * np.sin(np.pi * rho / 6)
    found = []
    for _ in range(worlds):
        one = rng.multivariate_normal([0, 0], [[1, pearson], [pearson, 1]], 11)
        figure = claims.rho_interval(float(stats.spearmanr(one[:, 0], one[:, 1]).statistic), 11)
        found.append(claims._beyond(figure, 0.5))
    return found


def changes_of(rng: np.random.Generator, truth: float, worlds: int) -> list[str]:
    """What is concluded of a relative change that is `truth`, known to ± .02."""
    return [claims._fall(near(rng.normal(truth, 0.02), 1.96 * 0.02)) for _ in range(worlds)]


def accuracies_vary(rng: np.random.Generator, worlds: int) -> float:
    """How often equal accuracies of 11 languages, 100 answers each, are said to differ."""
    values = rng.binomial(100, 0.7, (worlds, 11)) / 100
    return float(np.mean([claims._varies([near(v, 1.96 * np.sqrt(0.7 * 0.3 / 100)) for v in row]) for row in values]))


@pytest.mark.parametrize("worlds", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_false_verdicts_are_rare(worlds: int) -> None:
    """At a margin itself, and where nothing differs: the wrong conclusion in at most 5 %, and noise of the count."""
    rng, most = np.random.default_rng(0), 0.05 + 2 * np.sqrt(0.05 * 0.95 / worlds)
    for wrong, concluded in (
        ("for", latent(rng, 0.0, worlds)),
        ("for", latent(rng, 0.5, worlds)),
        ("against", latent(rng, 0.5, worlds)),
        ("for", changes_of(rng, -0.05, worlds)),
        ("for", changes_of(rng, 0.0, worlds)),
        ("against", changes_of(rng, -0.05, worlds)),
    ):
        assert concluded.count(wrong) / worlds <= most, wrong
    assert accuracies_vary(rng, worlds) <= most


def test_rho_interval_covers() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    truth = 6 / np.pi * np.arcsin(0.7 / 2)
    for _ in range(400):
        one = generator.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 20)
        figure = claims.rho_interval(float(stats.spearmanr(one[:, 0], one[:, 1]).statistic), 20)
        assert figure.low is not None
        assert figure.high is not None
        covered += figure.low <= truth <= figure.high
    assert 0.92 <= covered / 400 <= 0.98
    perfect = claims.rho_interval(1.0, 11)
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low is not None
    assert 0.9 < perfect.low < 1


# --------------------------------------------------------------------------- d


def orders(*rows: list[float]) -> ClaimInputs:
    reports = [
        make_report(dict(zip(LANGUAGES, row, strict=True)), suite=f"suite{place}") for place, row in enumerate(rows)
    ]
    return ClaimInputs(before=tuple(reports[:1]), others=tuple(reports[1:]))


def test_d_compares_orders() -> None:
    up = list(SLOPE.values())
    swapped = [*up[:4], up[5], up[4], *up[6:]]
    assert verdict_of("d", orders(up, swapped)).verdict == "holds"
    assert verdict_of("d", orders(up, up[::-1])).verdict == "does not hold"
    assert verdict_of("d", orders(up)).verdict == "not testable here"
    assert verdict_of("d", orders(up, [up[k * 7 % 11] for k in range(11)])).verdict == "not testable here"
    assert verdict_of("d", orders(up, [0.7] * 11)).verdict == "not testable here"


def test_d_needs_eight_languages_in_common() -> None:
    few = make_report({one: SLOPE[one] for one in LANGUAGES[:7]}, suite="story")
    claim = verdict_of("d", ClaimInputs(before=(UNEVEN, few)))
    assert claim.verdict == "not testable here"
    assert "7 languages in common" in claim.reason


def test_concordance_of_two_rows_is_spearman_and_its_p_is_level() -> None:
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((2, 11))
    rho, p = concordance(rows, 20_000, 0)
    expected, expected_p = spearman(rows[0], rows[1], 20_000, 1)
    assert rho == pytest.approx(expected)
    assert p == pytest.approx(expected_p, abs=0.02)
    four = generator.standard_normal((4, 11))
    pairs = [stats.spearmanr(four[i], four[j]).statistic for i in range(4) for j in range(i)]
    assert concordance(four, 10, 0)[0] == pytest.approx(np.mean(pairs))
    ps = [concordance(generator.standard_normal((3, 8)), 200, seed)[1] for seed in range(300)]
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.09


# --------------------------------------------------------------------------- e, f

STILL = {one: near(0.02, 0.005) for one in LANGUAGES}


@pytest.mark.parametrize(
    ("change", "verdict", "says"),
    [
        (between(-0.4, -0.1), "holds", "covers the paper's −20%"),
        (between(-0.95, -0.8), "holds", "does not cover the paper's −20%"),
        (between(0.1, 0.4), "does not hold", "no fall of 5%"),
        (between(-0.04, 0.01), "does not hold", "no fall of 5%"),
        (between(-0.04, -0.01), "by less than the margin", "lower, by less than 5%"),
        (between(-0.08, -0.03), "not testable here", "not decided"),
        (between(-0.3, 0.2), "not testable here", "not decided"),
        (Estimate(), "not testable here", "no interval"),
    ],
)
def test_e_needs_a_material_fall(change: Estimate, verdict: str, says: str) -> None:
    claim = verdict_of("e", before(UNEVEN, changes=(make_change(STILL, acceptance_variance=change),)))
    assert claim.verdict == verdict
    assert says in claim.reason


def test_levelling_down_is_no_success() -> None:
    fall = between(-0.4, -0.1)
    lower = {one: near(-0.05, 0.02) for one in LANGUAGES}
    claim = verdict_of("e", before(UNEVEN, changes=(make_change(lower, acceptance_variance=fall),)))
    assert claim.verdict == "by levelling down"
    assert "mean acceptance falls -0.050" in claim.reason


def test_prompts_of_another_kind_are_judged_apart() -> None:
    fall, rise = between(-0.95, -0.9), between(0.4, 0.5)
    own = make_change(STILL, unfairness=fall, unfairness_ce=fall)
    other = make_change(STILL, unfairness=rise, unfairness_ce=rise, suite="story")
    reports = (UNEVEN, make_report(SLOPE, across=UNEQUAL | FLOORS, suite="story"))
    apart = verdict_of("f", ClaimInputs(before=reports, changes=(own, other), trained_on=("toy",)))
    assert (apart.verdict, apart.elsewhere) == ("holds", "does not hold")
    assert [each.elsewhere for each in apart.findings] == [False, True]
    together = verdict_of("f", ClaimInputs(before=reports, changes=(own, other)))
    assert (together.verdict, together.elsewhere) == ("does not hold", None)


def test_e_and_f_have_nothing_to_lower_within_the_noise_floor() -> None:
    fall = between(-0.4, -0.1)
    change = make_change(STILL, acceptance_variance=fall, unfairness_ce=fall, unfairness=between(-0.4, -0.1))
    even = make_report(EQUAL, across=BALANCED | FLOORS)
    for name in ("e", "f"):
        claim = verdict_of(name, before(even, changes=(change,)))
        assert claim.verdict == "not testable here"
        assert "noise floor" in claim.reason


def test_without_a_fine_tuned_drafter_nothing_is_concluded_of_it() -> None:
    for name in ("e", "f", "g", "h"):
        assert verdict_of(name, before(UNEVEN)).verdict == "not testable here"


@pytest.mark.parametrize(
    ("cross_entropy", "ours", "verdict"),
    [
        (between(-0.3, -0.06), between(-0.6, -0.4), "holds"),
        (between(-0.3, -0.02), between(-0.6, -0.4), "not testable here"),
        (Estimate(), between(-0.6, -0.4), "holds"),
        (between(-0.3, -0.05), between(-0.6, 0.2), "not testable here"),
        (between(-0.3, -0.05), between(0.1, 0.2), "does not hold"),
        (between(0.1, 0.2), between(-0.6, -0.4), "does not hold"),
        (between(-0.3, -0.06), between(-0.01, 0.01), "does not hold"),
        (Estimate(), Estimate(), "not testable here"),
    ],
)
def test_f_needs_both_figures(cross_entropy: Estimate, ours: Estimate, verdict: str) -> None:
    change = make_change(STILL, unfairness_ce=cross_entropy, unfairness=ours)
    assert verdict_of("f", before(UNEVEN, changes=(change,))).verdict == verdict


def test_f_says_both_figures() -> None:
    change = make_change(STILL, unfairness=between(-0.75, -0.25), unfairness_ce=between(-0.3, -0.1))
    claim = verdict_of("f", before(UNEVEN, changes=(change,)))
    assert claim.estimate == between(-0.3, -0.1)
    assert "U on cross-entropy -20% [-30%, -10%], U -50% [-75%, -25%]" in claim.measured


def test_runs_that_disagree_widen_the_mean() -> None:
    alike = [make_change(STILL, acceptance_variance=between(-0.3, -0.1)) for _ in range(3)]
    apart = [make_change(STILL, acceptance_variance=near(value, 0.1)) for value in (-0.9, -0.2, 0.5)]
    claim = verdict_of("e", before(UNEVEN, changes=tuple(alike)))
    assert claim.verdict == "holds"
    assert claim.estimate is not None
    assert claim.estimate.low == pytest.approx(-0.3)
    assert verdict_of("e", before(UNEVEN, changes=tuple(apart))).verdict == "not testable here"


# --------------------------------------------------------------------------- g

SLOW, FAST = "bn", "zh"


@pytest.mark.parametrize(
    ("language", "change", "verdict"),
    [
        (FAST, near(0.01, 0.005), "holds"),
        (FAST, near(-0.02, 0.01), "by less than the margin"),
        (FAST, near(-0.08, 0.01), "does not hold"),
        (FAST, near(-0.05, 0.02), "not testable here"),
        (FAST, near(-0.02, 0.04), "not testable here"),
        (FAST, Estimate(value=0.1), "not testable here"),
        (SLOW, near(-0.2, 0.01), "holds"),
    ],
)
def test_g_looks_at_the_fast_languages(language: str, change: Estimate, verdict: str) -> None:
    claim = verdict_of("g", before(UNEVEN, changes=(make_change(STILL | {language: change}),)))
    assert claim.verdict == verdict
    assert all(one in claim.measured for one in LANGUAGES), "every language is listed"
    assert claim.measured.count("(fast)") == 6
    assert ("slower ones that fell: bn" in claim.reason) == (language == SLOW)


def test_g_judges_the_mean_of_runs_and_counts_those_that_harm() -> None:
    harmed = make_change(STILL | {FAST: near(-0.02, 0.01)}, fallen=[FAST])
    runs = (harmed, *(make_change(STILL | {FAST: near(0.02 + 0.001 * k, 0.01)}) for k in range(8)))
    claim = verdict_of("g", before(UNEVEN, changes=runs))
    assert claim.verdict == "holds"
    assert "fell significantly in 1 of 9 runs" in claim.reason


# --------------------------------------------------------------------------- h


@pytest.mark.parametrize(
    ("sha", "equal", "verdict"),
    [
        (("1", "1"), True, "holds"),
        (("1", "2"), True, "does not hold"),
        (("1", "1"), False, "does not hold"),
        (("1", "1"), None, "not testable here"),
        (None, True, "not testable here"),
    ],
)
def test_h_needs_weights_and_outputs(sha: tuple[str, str] | None, equal: bool | None, verdict: str) -> None:
    assert verdict_of("h", before(UNEVEN, verifier_sha=sha, outputs_equal=equal)).verdict == verdict


# --------------------------------------------------------------------------- all eight


def test_eight_claims_in_order_each_with_a_rule_and_words() -> None:
    judged = judge(before(UNEVEN))
    assert "".join(claim.id for claim in judged.claims) == "abcdefgh" == "".join(RULES) == "".join(SAYS)
    assert all(claim.reason and claim.measured and "\n" not in claim.measured for claim in judged.claims)
    assert Claims.model_validate_json(judged.model_dump_json()) == judged


def test_no_evidence_decides_nothing() -> None:
    assert {claim.verdict for claim in judge(ClaimInputs(before=())).claims} == {"not testable here"}


def test_the_table_says_what_the_record_says() -> None:
    judged = judge(before(make_report(EQUAL, across=BALANCED)))
    console = Console(file=io.StringIO(), width=400, no_color=True)
    console.print(render_claims(judged))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    for claim in judged.claims:
        assert claim.verdict in written
        assert claim.measured in written
    assert json.loads(judged.model_dump_json())["claims"][0]["verdict"] == "does not hold"


def test_cut_answers_are_said() -> None:
    report = make_report(SLOPE, across=UNEQUAL)
    (suite,) = report.suites
    cut = suite.tasks[8].model_copy(update={"measures": suite.tasks[8].measures | {"truncated": near(0.42)}})
    tasks = (*suite.tasks[:8], cut, *suite.tasks[9:])
    report = report.model_copy(update={"suites": (suite.model_copy(update={"tasks": tasks}),)})
    assert "answers were cut in te" in verdict_of("a", before(report)).reason
