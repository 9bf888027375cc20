"""The whole report: its figures from known lines, its edges, its bytes, and the lines it refuses."""

from __future__ import annotations

import io
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from made_up_run import ENVIRONMENT, make_answer, make_config, make_prompt, make_run, make_timings
from rich.console import Console

from fairspec_bench.metrics import acceptance, bootstrap
from fairspec_bench.metrics.acceptance import blocks_from_matches
from fairspec_bench.metrics.catalogue import across, measures, measures_of
from fairspec_bench.metrics.report import build_report
from fairspec_bench.metrics.run_data import Lines
from fairspec_bench.reporting.frames import report_frame
from fairspec_bench.reporting.tables import render
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.lines import Dropped, DtypeDivergence
from fairspec_bench.schemas.report import Estimate, Report, TaskReport

CHANCES = {"en": 0.85, "ja": 0.6, "te": 0.4}
COUNT = 400


def report_of(config: RunConfig, lines: Lines, seed: int = 0) -> Report:
    return build_report(config, [ENVIRONMENT], lines, replicates=COUNT, seed=seed)


def task(report: Report, language: str) -> TaskReport:
    return next(each for each in report.suites[0].tasks if each.language == language)


def shown(report: Report) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(render(report))
    return out.getvalue()


@pytest.fixture(scope="module")
def whole() -> tuple[RunConfig, Lines]:
    return make_run(CHANCES, 60, rounds=5)


@pytest.fixture(scope="module")
def report(whole: tuple[RunConfig, Lines]) -> Report:
    return report_of(*whole)


# --------------------------------------------------------------------------- figures


def test_two_prompts_by_hand() -> None:
    config = make_config(["en"], 2, gamma=2)
    one, two = make_prompt("toy/en/0", [True, True, True, False]), make_prompt("toy/en/1", [False, True], kl=2.0)
    references, replays = zip(one, two, strict=True)
    answers = [
        make_answer(references[0].key, references[0], chars=10, bytes=20),
        make_answer(references[1].key, references[1], chars=5, bytes=5),
    ]
    found = task(report_of(config, Lines(references=references, replays=replays, answers=answers)), "en")
    figures = {name: each.value for name, each in found.measures.items()}
    # blocks: [11|1 bonus] [0] and [0] [1 cut]; tested 2 + 1 + 1 + 1, accepted 2 + 0 + 0 + 1, proposed 2 · 4
    expected = {
        "acceptance": 4 / 6,
        "acceptance_prompt_mean": (3 / 4 + 1 / 2) / 2,
        "overlap": 0.9 * 4 / 6,
        "acceptance_expected": 3 / 5,
        "draft_utilisation": 3 / 8,
        "blocks_expected": 2.0,
        "block_efficiency": 6 / 4,
        "block_efficiency_uncut": 1 + 2 / 4 + (2 / 4) * (1 / 1),
        "misfit": (4 * 0.5 + 2 * 2.0) / 6,
        "misfit_prompt_mean": (0.5 + 2.0) / 2,
        "misfit_ce": 1 + (4 * 0.5 + 2 * 2.0) / 6,
        "misfit_sequence": (4 * 0.5 + 2 * 2.0) / 2,
        "misfit_per_byte": (4 * 0.5 + 2 * 2.0) / 25,
        "verifier_entropy": 1.0,
        "tokens_per_answer": 4.0,
        "tokens_per_char": 8 / 15,
        "verifier_calls_per_answer": 3.0,
        "verifier_calls_per_token": 6 / 8,
        "verifier_calls_per_char": 6 / 15,
        "truncated": 0.0,
        "verifier_fitness": 1.0,
    }
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, rel=1e-7), name
    for name in ("acceptance_observed", "speedup", "speedup_predicted", "speedup_iid", "cost_ratio", "drafter_fitness"):
        assert figures[name] is None
    assert (found.prompts, found.clusters, found.contexts, found.tokens) == (2, 2, 6, 8)
    assert [each.value for each in found.acceptance_by_position] == pytest.approx([2 / 4, 1.0])
    assert [each.value for each in found.acceptance_joint] == pytest.approx([2 / 4, 1 / 4])
    # blocks accept 2, 0, 0 and 1 drafts
    assert [each.value for each in found.accepted_lengths] == pytest.approx([2 / 4, 1 / 4, 1 / 4])
    assert found.acceptance_by_output["2-16"].value == pytest.approx(4 / 6)
    assert found.block_efficiency_by_gamma[1].value == pytest.approx(6 / 4)
    assert found.block_efficiency_by_gamma[8].value == pytest.approx(6 / 3)


def test_acceptance_by_output_position_starts_a_bin_where_it_says() -> None:
    """Drafts hit at output positions 2 to 16 and nowhere later; the first context is that of position 2."""
    config = make_config(["en"], 2)
    pairs = [make_prompt(f"toy/en/{k}", [place <= 16 for place in range(2, 70)]) for k in range(2)]
    references, replays = zip(*pairs, strict=True)
    found = task(report_of(config, Lines(references=references, replays=replays)), "en")
    shown = {positions: each.value for positions, each in found.acceptance_by_output.items()}
    assert shown == {"2-16": 1.0, "17-64": 0.0, "65-256": 0.0}
    assert found.acceptance_by_output["17-64"].high == pytest.approx(bootstrap.unanimous(2))


def test_an_answer_that_ends_before_an_output_position_is_no_cluster_there() -> None:
    config = make_config(["en"], 3)
    pairs = [make_prompt(f"toy/en/{k}", [False] * length) for k, length in enumerate((10, 40, 40))]
    references, replays = zip(*pairs, strict=True)
    found = task(report_of(config, Lines(references=references, replays=replays)), "en").acceptance_by_output
    assert (found["2-16"].high, found["17-64"].high) == pytest.approx((bootstrap.unanimous(3), bootstrap.unanimous(2)))


def test_accepted_lengths_are_the_blocks_of_a_decode() -> None:
    rng = np.random.default_rng(0)
    config, blocks, pairs = make_config(["en"], 5), [], []
    for k in range(5):
        hits = (rng.random(60) < 0.7).tolist()
        blocks += blocks_from_matches(hits, 3)
        pairs.append(make_prompt(f"toy/en/{k}", hits))
    references, replays = zip(*pairs, strict=True)
    found = task(report_of(config, Lines(references=references, replays=replays)), "en")
    counts = np.bincount([block.accepted for block in blocks], minlength=4)
    assert [each.value for each in found.accepted_lengths] == pytest.approx(list(counts / len(blocks)), rel=1e-7)


def test_what_a_draft_vocabulary_lacks_is_a_share_of_the_tokens_after_the_first() -> None:
    config, lines = make_run({"en": 0.8}, 4, rounds=2)
    pruned = [
        timing.model_copy(update={"outside_vocabulary": 3}) if timing.mode == "speculative" else timing
        for timing in lines.timings
    ]
    figure = task(report_of(config, Lines(**{**vars(lines), "timings": pruned})), "en").measures
    contexts = sum(len(reference.ids) - 1 for reference in lines.references)
    assert figure["outside_draft_vocabulary"].value == pytest.approx(4 * 3 / contexts)
    assert task(report_of(config, lines), "en").measures["outside_draft_vocabulary"].value is None


def test_every_measure_is_there_with_a_unit_and_a_definition(report: Report) -> None:
    table = measures(3)
    assert all(set(each.measures) == set(measures_of(report.config)) <= set(table) for each in report.suites[0].tasks)
    assert set(report.suites[0].across) | {"unfairness_floor"} == set(across())
    assert all(each.unit and each.definition for each in (*table.values(), *across().values()))


def checked_run() -> tuple[RunConfig, Lines]:
    """A run in bfloat16: of ten answers the first three of `en` leave float32's, none of `te`."""
    config, lines = make_run({"en": 0.8, "te": 0.5}, 10)
    places = {"toy/en/0": (1, 0.01), "toy/en/1": (5, 0.02), "toy/en/2": (9, 0.06)}
    divergences = []
    for reference in lines.references:
        first, gap = places.get(reference.key, (None, None))
        divergences.append(
            DtypeDivergence(key=reference.key, prompt_sha=reference.prompt_sha, first=first, gap=gap, chunk="all")
        )
    config = config.model_copy(update={"dtype": "bfloat16", "float32_check": True})
    return config, replace(lines, divergences=divergences)


def test_departures_are_counted_over_answers_and_measured_over_those_that_depart() -> None:
    config, lines = checked_run()
    report = report_of(config, lines)
    english, telugu = task(report, "en").measures, task(report, "te").measures
    assert english["diverged_share"].value == pytest.approx(0.3)
    assert english["divergence_gap"].value == pytest.approx(0.03)
    assert english["divergence_position"].value == pytest.approx(5.0)
    half = 4.303 * np.std([0.01, 0.02, 0.06], ddof=1) / math.sqrt(3)  # t at 2 degrees of freedom: only those departing
    assert english["divergence_gap"].high == pytest.approx(0.03 + half, rel=0.01)
    assert telugu["diverged_share"].high == pytest.approx(bootstrap.unanimous(10))
    assert (telugu["diverged_share"].value, telugu["diverged_share"].low) == (0, 0)
    assert telugu["divergence_gap"] == telugu["divergence_position"] == Estimate()
    assert "where bfloat16 answers differ from float32's" in shown(report)
    assert {"diverged_share", "divergence_gap"} <= set(report_frame(report)["measure"])


def test_a_run_that_did_not_ask_has_no_departures_and_the_same_figures() -> None:
    config, lines = checked_run()
    asked = report_of(config, lines)
    plain = report_of(config.model_copy(update={"float32_check": False}), replace(lines, divergences=()))
    beside = set(task(asked, "en").measures) - set(task(plain, "en").measures)
    assert beside == {"diverged_share", "divergence_gap", "divergence_position"}
    for language in ("en", "te"):
        left = {name: each for name, each in task(asked, language).measures.items() if name not in beside}
        assert left == task(plain, language).measures
    assert "leave float32's" not in shown(plain).replace("where they leave float32's", "")


def test_live_and_replayed_acceptance_agree_under_the_greedy_rule(report: Report) -> None:
    for each in report.suites[0].tasks:
        assert each.measures["acceptance_observed"].value == each.measures["acceptance_expected"].value


def test_intervals_hold_their_figures(report: Report) -> None:
    for each in report.suites[0].tasks:
        for name, figure in each.measures.items():
            if figure.low is not None and figure.high is not None and figure.value is not None:
                assert figure.low - 1e-9 <= figure.value <= figure.high + 1e-9, name


def test_known_truth_is_found(report: Report) -> None:
    found = report.suites[0]
    for each in found.tasks:
        figure = each.measures["acceptance"]
        assert figure.value == pytest.approx(CHANCES[each.language], abs=0.03)
    assert found.ranks == {"toy/en": (1, 1), "toy/ja": (2, 2), "toy/te": (3, 3)}
    assert found.across["worst_acceptance"].value == task(report, "te").measures["acceptance"].value
    assert found.across["unfairness"].value == pytest.approx(0.0908, rel=0.3)
    assert found.noise_floor is not None
    assert found.noise_floor < 0.01
    assert found.across["fitness_correlation"].value == 1
    assert found.across["fitness_correlation_p"].value == pytest.approx(2 / 6)
    assert report.race_verdict.quiet


# --------------------------------------------------------------------------- bytes


def test_same_lines_in_any_order_give_the_same_bytes(whole: tuple[RunConfig, Lines], report: Report) -> None:
    config, lines = whole
    mixed = Lines(*(random.Random(1).sample(each, len(each)) for each in vars(lines).values()))
    again = report_of(config, mixed)
    assert again.model_dump_json() == report.model_dump_json()
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_another_seed_moves_intervals_and_no_figure(whole: tuple[RunConfig, Lines], report: Report) -> None:
    first, second = task(report, "en"), task(report_of(*whole, seed=1), "en")
    assert {name: each.value for name, each in first.measures.items()} == {
        name: each.value for name, each in second.measures.items()
    }
    assert first.measures["acceptance"] != second.measures["acceptance"]


def test_a_sum_in_another_order_changes_no_byte(
    whole: tuple[RunConfig, Lines], report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another BLAS rounds the last bits otherwise; here every replicate is off by some."""
    draw = bootstrap.resample

    def jittered(*args: object) -> np.ndarray:
        totals = draw(*args)  # type: ignore[arg-type]
        return totals * (1 + 2e-16 * np.random.default_rng(0).integers(-2, 3, totals.shape))

    monkeypatch.setattr(bootstrap, "resample", jittered)
    assert report_of(*whole).model_dump_json() == report.model_dump_json()


# --------------------------------------------------------------------------- edges


def test_empty_language_has_no_figures_and_is_named() -> None:
    config, lines = make_run(CHANCES, 10)
    suite = config.suites[0].model_copy(update={"languages": ("en", "ja", "te", "sw")})
    found = report_of(config.model_copy(update={"suites": (suite,)}), lines)
    empty = task(found, "sw")
    assert (empty.prompts, empty.clusters, empty.contexts, empty.tokens) == (0, 0, 0, 0)
    assert set(empty.measures.values()) == {Estimate()}
    assert "toy/sw" not in found.suites[0].ranks
    assert any("no data for sw" in note for note in found.notes)
    assert found.suites[0].across["unfairness"].value is not None
    assert "sw" in shown(found)


def test_no_lines_at_all() -> None:
    found = report_of(make_config(["en", "ja"], 0), Lines())
    assert set(found.suites[0].across.values()) == {Estimate()}
    assert found.suites[0].noise_floor is None
    assert found.suites[0].ranks == {}
    assert found.race_verdict.status == "no race"
    assert shown(found)


def test_one_language_has_figures_but_no_comparison() -> None:
    found = report_of(*make_run({"en": 0.7}, 10))
    assert task(found, "en").measures["acceptance"].low is not None
    assert set(found.suites[0].across.values()) == {Estimate()}
    assert found.suites[0].ranks == {}


def test_one_prompt_has_figures_but_no_interval() -> None:
    found = report_of(*make_run({"en": 0.7, "ja": 0.5}, 1, rounds=5))
    for each in found.suites[0].tasks:
        for name in ("acceptance", "misfit", "speedup", "tokens_per_answer"):
            assert each.measures[name].value is not None
            assert each.measures[name].low is None
    assert found.suites[0].across["unfairness"] == Estimate()
    assert found.suites[0].across["worst_acceptance"].low is None
    assert found.suites[0].noise_floor is None
    assert set(found.suites[0].ranks.values()) == {(1, 2)}


@pytest.mark.parametrize("hit", [True, False])
def test_all_and_none_accepted(hit: bool) -> None:
    found = [make_prompt(f"toy/en/{k}", [hit] * 20) for k in range(5)]
    config = make_config(["en"], 5, gamma=3)
    figures = task(
        report_of(config, Lines(references=[t for t, _ in found], replays=[r for _, r in found])), "en"
    ).measures
    reach = pytest.approx(1 - 0.025 ** (1 / 5))  # what five unanimous prompts allow
    assert figures["acceptance"].value == float(hit)
    assert figures["acceptance"].high == (1.0 if hit else reach)
    assert 1 - (figures["acceptance"].low or 0.0) == (reach if hit else 1.0)
    assert figures["block_efficiency"].value == (4.0 if hit else 1.0)
    assert figures["block_efficiency_uncut"].value == (4.0 if hit else 1.0)


@pytest.mark.parametrize(("hit", "words"), [(True, "no draft was ever wrong"), (False, "no draft was ever right")])
def test_an_acceptance_that_is_the_same_at_every_token_is_flagged(hit: bool, words: str) -> None:
    """0 and 1 are more often a fault than a finding; with one verdict otherwise nothing is said."""
    for last, said in ((hit, 1), (not hit, 0)):
        found = [make_prompt(f"toy/en/{k}", [hit] * 19 + [last]) for k in range(3)]
        lines = Lines(references=[reference for reference, _ in found], replays=[replay for _, replay in found])
        flags = task(report_of(make_config(["en"], 3), lines), "en").flags
        assert sum(words in flag for flag in flags) == said


def test_pooled_and_mean_of_requests_can_rank_drafters_in_opposite_order() -> None:
    """Both stand in a report (vllm-project/vllm#42508): the pooled figure alone, or the mean, would hide the other."""
    two, three, five = [True, False], [True, True, False], [True] * 5
    figures = {}
    for drafter, first, second in (("A", two * 100, five), ("B", two * 90 + three * 10, three)):
        found = [make_prompt(f"toy/en/{k}", hits) for k, hits in enumerate((first, second))]
        lines = Lines(references=[reference for reference, _ in found], replays=[replay for _, replay in found])
        figures[drafter] = task(report_of(make_config(["en"], 2, gamma=4), lines), "en").measures
    pooled, mean = (
        [figures[drafter][name].value for drafter in "AB"]
        for name in ("block_efficiency", "block_efficiency_prompt_mean")
    )
    assert pooled == pytest.approx([205 / 101, 213 / 101])
    assert mean == pytest.approx([3.5, 2.55])


def test_answers_of_one_token_have_no_contexts() -> None:
    found = [make_prompt(f"toy/en/{k}", []) for k in range(3)]
    each = task(
        report_of(make_config(["en"], 3), Lines(references=[t for t, _ in found], replays=[r for _, r in found])), "en"
    )
    assert each.contexts == 0
    assert each.measures["acceptance"] == Estimate()
    assert each.measures["block_efficiency"] == Estimate()
    assert each.measures["tokens_per_answer"].value == 1
    assert each.measures["verifier_calls_per_answer"].value == 1


def test_a_drafter_without_q_has_no_misfit() -> None:
    found = report_of(*make_run(CHANCES, 10, defined=False))
    for each in found.suites[0].tasks:
        assert each.measures["misfit"] == Estimate()
        assert each.measures["acceptance"].value is not None
    assert found.suites[0].across["unfairness"] == Estimate()
    assert found.suites[0].across["acceptance_variance"].value is not None
    assert found.suites[0].noise_floor is None
    assert any("not defined for a drafter without a proper q (lookup)" in note for note in found.notes)
    assert "not defined" in shown(found)


def test_languages_without_a_common_problem_are_compared_unpaired() -> None:
    config, lines = make_run(CHANCES, 20)
    apart = report_of(config.model_copy(update={"clusters": {key: key for key in config.clusters}}), lines)
    assert apart.suites[0].ranks == {"toy/en": (1, 1), "toy/ja": (2, 2), "toy/te": (3, 3)}


def test_a_problem_missing_in_one_language_is_left_out_of_differences() -> None:
    config, lines = make_run(CHANCES, 20)
    gone = "toy/te/7"
    cut = Lines(
        references=[each for each in lines.references if each.key != gone],
        replays=[each for each in lines.replays if each.key != gone],
        dropped=[Dropped(key=gone, reason="too long")],
    )
    found = report_of(config, cut)
    assert any("19 of 20 problems" in note for note in found.notes)
    assert task(found, "te").measures["dropped"].value == pytest.approx(1 / 20)
    assert task(found, "te").prompts == 19


def test_u_within_the_noise_is_said() -> None:
    found = report_of(*make_run({"en": 0.6, "ja": 0.6, "te": 0.6}, 12))
    assert any("within its noise floor" in note for note in found.notes)


# --------------------------------------------------------------------------- validity


def test_truncation_flags_every_figure_of_its_task_and_of_no_other() -> None:
    config, lines = make_run(CHANCES, 40)
    keys = {each.key for each in lines.references if each.key.startswith("toy/te/")}
    few = sorted(keys)[:1]
    cut = [each.model_copy(update={"finish": "length"}) if each.key in few else each for each in lines.references]
    found = report_of(config, replace(lines, references=cut))
    assert task(found, "te").flags == ("truncated 2.5 %: every figure is of cut answers",)
    assert task(found, "en").flags == ()
    rows = report_frame(found)
    assert set(rows.loc[rows.language == "te", "flags"]) == {task(found, "te").flags[0]}
    marked = [line for line in shown(found).splitlines() if "│ te" in line]
    assert all("†" in line for line in marked)
    assert not any("†" in line for line in shown(found).splitlines() if "│ en" in line)


def test_one_percent_is_tolerated() -> None:
    config, lines = make_run({"en": 0.5}, 100)
    cut = [
        each.model_copy(update={"finish": "length"}) if each.key == "toy/en/0" else each for each in lines.references
    ]
    found = task(report_of(config, replace(lines, references=cut)), "en")
    assert found.measures["truncated"].value == 0.01
    assert found.flags == ()


def test_looping_off_language_and_wrong_answers() -> None:
    config, lines = make_run({"en": 0.5}, 10)
    answers = [
        make_answer(
            reference.key, reference, looping=k < 2, language=None if k < 5 else "fr" if k < 7 else "en", correct=k < 4
        )
        for k, reference in enumerate(lines.references)
    ]
    found = task(report_of(config, replace(lines, answers=answers)), "en")
    assert found.measures["looping"].value == 0.2
    assert found.measures["off_language"].value == pytest.approx(2 / 5)
    assert found.measures["verifier_fitness"].value == 0.4
    assert found.flags == ("looping 20.0 %", "off_language 40.0 %")


@pytest.mark.parametrize("fault", ["looping", "truncated"])
def test_figures_without_bad_answers_and_a_language_of_them_is_not_ranked(fault: str) -> None:
    """Half of `te`'s answers are perfect drafts because they loop: its acceptance is not that of its language."""
    config, lines = make_run({"en": 0.9, "ja": 0.6, "te": 0.3}, 20, seed=3)
    easy = {f"toy/te/{k}" for k in range(11)}
    references, replays, answers = [], [], []
    for reference, replay, answer in zip(lines.references, lines.replays, lines.answers, strict=True):
        if reference.key in easy:
            hits = [True] * (len(reference.ids) - 1)
            reference, replay = make_prompt(reference.key, hits, finish="length" if fault == "truncated" else "eos")
            answer = make_answer(reference.key, reference, looping=fault == "looping")
        references.append(reference), replays.append(replay), answers.append(answer)
    changed = Lines(references=references, replays=replays, answers=answers)
    found = report_of(config, changed)
    te, en = task(found, "te"), task(found, "en")
    assert te.measures["acceptance"].value > 0.6
    kept = [replay for replay in replays if replay.key.startswith("toy/te/") and replay.key not in easy]
    share = sum(replay.alpha for replay in kept) / sum(replay.contexts for replay in kept)
    assert te.measures["acceptance_complete"].value == pytest.approx(share)
    assert en.measures["acceptance_complete"] == en.measures["acceptance"]
    assert te.flags[-1] == "not ranked: most answers repeat themselves or are cut"
    assert set(found.suites[0].ranks) == {"toy/en", "toy/ja"}
    assert set(found.suites[0].ranks.values()) <= {(1, 1), (2, 2), (1, 2)}
    assert "with and without answers that repeat themselves or are cut" in shown(found)
    fewer = [each.model_copy(update={"looping": False}) if each.key == "toy/te/0" else each for each in answers]
    if fault == "looping":
        assert set(report_of(config, replace(changed, answers=fewer)).suites[0].ranks) == {"toy/en", "toy/ja", "toy/te"}


def test_speedup_without_bad_answers_is_of_the_other_prompts() -> None:
    config, lines = make_run({"en": 0.5}, 6, rounds=3)
    answers = [make_answer(each.key, each, looping=each.key == "toy/en/0") for each in lines.references]
    raced = [each for each in lines.timings if each.key != "toy/en/0"]
    whole = task(report_of(config, replace(lines, answers=answers)), "en").measures
    others = task(report_of(config, replace(lines, answers=answers, timings=raced)), "en").measures
    assert whole["speedup_complete"].value == others["speedup"].value
    assert whole["speedup_complete"].value != whole["speedup"].value


def test_ungraded_answers_have_no_fitness() -> None:
    config, lines = make_run({"en": 0.5}, 4)
    answers = [make_answer(reference.key, reference, correct=None) for reference in lines.references]
    assert task(report_of(config, replace(lines, answers=answers)), "en").measures["verifier_fitness"] == Estimate()


def test_an_unfinished_run_says_so() -> None:
    config, lines = make_run({"en": 0.5}, 4)
    found = task(report_of(config, Lines(references=lines.references[:3], replays=lines.replays[:2])), "en")
    assert found.flags == ("incomplete: 3 of 4 prompts", "incomplete: 2 of 3 prompts replayed")


def test_a_noisy_machine_gets_no_verdict(whole: tuple[RunConfig, Lines]) -> None:
    config, lines = whole
    noisy = [
        each.model_copy(update={"decode_ns": each.decode_ns * 2}) if each.mode == "control" else each
        for each in lines.timings
    ]
    found = report_of(config, replace(lines, timings=noisy))
    assert found.race_verdict.status == "noisy"
    assert "race: no verdict on speed" in task(found, "en").flags
    text = shown(found)
    assert "faster" not in text
    assert "slower" not in text


# --------------------------------------------------------------------------- lines that contradict each other


def test_refusals() -> None:
    config, lines = make_run({"en": 0.5}, 3, rounds=1)
    reference, replay, timing = lines.references[0], lines.replays[0], lines.timings[1]
    assert timing.mode == "speculative"
    other_prompt, other_length = {"prompt_sha": "f"}, {"ids": reference.ids[:-1]}
    stranger, stranger_replay = make_prompt("toy/xx/0", [True])
    cases = {
        "comes twice": replace(lines, replays=[*lines.replays, replay]),
        "prompt_sha is f, not": replace(lines, replays=[replay.model_copy(update=other_prompt)]),
        "contexts is": replace(lines, references=[reference.model_copy(update=other_length), *lines.references[1:]]),
        "has no reference": replace(lines, answers=[make_answer("toy/en/99", reference)]),
        "of no task of this run": Lines(references=[stranger], replays=[stranger_replay]),
        "blocks.emitted is": replace(lines, timings=[timing.model_copy(update={"blocks": timing.blocks[:-1]})]),
        "two speculative lines": replace(lines, timings=[timing, timing]),
    }
    for said, bad in cases.items():
        with pytest.raises(FairspecError, match=said) as caught:
            report_of(config, bad)
        assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------- planted


def test_swapping_tested_and_proposed_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's "acceptance rate" (accepted / proposed) under our name fails the hand count."""
    original = acceptance._block_columns

    def swapped(*args: object) -> dict[str, np.ndarray]:
        columns = original(*args)  # type: ignore[arg-type]
        return columns | {"tested": columns["proposed"]}

    monkeypatch.setattr(acceptance, "_block_columns", swapped)
    with pytest.raises(AssertionError, match="acceptance_expected"):
        test_two_prompts_by_hand()


# --------------------------------------------------------------------------- frame


def test_frame_is_tidy(report: Report) -> None:
    frame = report_frame(report)
    assert list(frame.columns[:7]) == ["suite", "task", "language", "measure", "value", "low", "high"]
    assert not frame.duplicated(["suite", "task", "measure"]).any()
    row = frame[(frame.language == "en") & (frame.measure == "acceptance")].iloc[0]
    figure = task(report, "en").measures["acceptance"]
    assert (row.value, row.low, row.high) == (figure.value, figure.low, figure.high)
    assert frame[frame.measure == "noise_floor"].value.item() == report.suites[0].noise_floor


def test_bits_per_byte_by_hand() -> None:
    """2 and 6 nats over 3 and 5 bytes: 8 / ln 2 / 8 bits a byte; a text that nobody judged is in neither sum."""
    config = make_config(["en"], 3)
    references = [make_prompt(f"toy/en/{k}", [True, False])[0] for k in range(3)]
    judged = [{"target_nats": 2.0, "target_bytes": 3}, {"target_nats": 6.0, "target_bytes": 5}, {}]
    answers = [
        make_answer(reference.key, reference, **told) for reference, told in zip(references, judged, strict=True)
    ]
    drafted = [make_answer(references[0].key, references[0], target_nats=6 * math.log(2), target_bytes=2)]
    found = task(
        report_of(config, Lines(references=references, answers=answers, drafter_answers=drafted)), "en"
    ).measures
    assert found["verifier_bits_per_byte"].value == pytest.approx(1 / math.log(2))
    assert found["drafter_bits_per_byte"] == Estimate(value=3.0)


def test_a_clocks_prompts_stand_alone_in_its_control() -> None:
    """Eleven languages tell three problems: 33 prompts of noise are 33, not 3, so a quiet race gets its verdict."""
    languages = {f"l{number}": 0.6 for number in range(11)}
    verdicts = [report_of(*make_run(languages, 3, seed=seed, rounds=5)).race_verdict for seed in range(4)]
    assert all(verdict.quiet for verdict in verdicts), verdicts


def test_race_of_one_language_beside_an_unraced_one() -> None:
    config, lines = make_run({"en": 0.8, "ja": 0.5}, 10)
    timings = [
        timing
        for reference, replay in zip(lines.references[:10], lines.replays[:10], strict=True)
        for timing in make_timings(reference, replay, 3, 5, jitter=np.ones((5, 3)))
    ]
    found = report_of(config, replace(lines, timings=timings))
    assert task(found, "en").measures["speedup"].value is not None
    assert task(found, "ja").measures["speedup"] == Estimate()
    assert found.suites[0].across["speedup_gap"] == Estimate()
