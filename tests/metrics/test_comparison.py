"""Two runs on the same texts: differences, levelling down, and the runs that cannot be compared."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from made_up_run import make_prompt, make_run
from rich.console import Console

from fairspec_bench.metrics.comparison import Comparison, compare_runs
from fairspec_bench.metrics.run_data import Lines
from fairspec_bench.reporting.tables import render_comparison
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.lines import Replay
from fairspec_bench.schemas.report import Estimate

CHANCES = {"en": 0.8, "ja": 0.6, "te": 0.5}


@pytest.fixture(scope="module")
def before() -> tuple[RunConfig, Lines]:
    return make_run(CHANCES, 30)


def changed(lines: Lines, language: str, by: float, kl: float = 0.0) -> Lines:
    """The same texts with a drafter whose alpha moved by `by` and KL by `kl` per context, in one language."""

    def move(replay: Replay) -> Replay:
        if replay.key.split("/")[1] != language or replay.kl is None:
            return replay
        alpha = min(max(0.0, replay.alpha + by * replay.contexts), replay.contexts)
        return replay.model_copy(update={"alpha": alpha, "kl": replay.kl + kl * replay.contexts})

    return replace(lines, replays=[move(replay) for replay in lines.replays])


def compared(first: tuple[RunConfig, Lines], second: tuple[RunConfig, Lines]) -> Comparison:
    return compare_runs(first, second, replicates=500)


def test_a_run_against_itself_differs_by_nothing(before: tuple[RunConfig, Lines]) -> None:
    (suite,) = compared(before, before).suites
    zero = Estimate(value=0.0, low=0.0, high=0.0)
    assert all(each == zero for measure in suite.differences.values() for each in measure.values())
    assert suite.unfairness == zero
    assert suite.relative == dict.fromkeys(("unfairness", "unfairness_ce", "acceptance_variance"), zero)
    assert suite.levelled_down == ()
    assert suite.clusters == {f"toy/{language}": 30 for language in CHANCES}


def test_levelling_down_is_marked_and_only_there(before: tuple[RunConfig, Lines]) -> None:
    config, lines = before
    worse = changed(changed(lines, "en", -0.1, kl=0.2), "te", 0.1, kl=-0.1)
    found = compared(before, (config, worse))
    (suite,) = found.suites
    assert suite.levelled_down == ("toy/en",)
    assert suite.differences["acceptance"]["toy/en"].value == pytest.approx(-0.1, abs=1e-3)
    assert suite.differences["acceptance"]["toy/ja"].value == 0
    assert suite.differences["misfit"]["toy/te"].value == pytest.approx(-0.1)
    assert suite.unfairness.value is not None
    assert suite.unfairness.value < 0
    out = io.StringIO()
    Console(file=out, width=160).print(render_comparison(found))
    assert out.getvalue().count("levelled down") == 1
    assert "pooled over the tokens of a language, not means of requests" in out.getvalue()


def test_only_prompts_of_both_are_compared(before: tuple[RunConfig, Lines]) -> None:
    config, lines = before
    half = replace(lines, references=lines.references[::2], replays=lines.replays[::2], answers=(), drafter_answers=())
    (suite,) = compared(before, (config, half)).suites
    assert set(suite.clusters.values()) == {15}


def test_one_common_prompt_has_no_interval(before: tuple[RunConfig, Lines]) -> None:
    config, lines = before
    one = replace(lines, references=lines.references[:1], replays=lines.replays[:1], answers=(), drafter_answers=())
    (suite,) = compared(before, (config, one)).suites
    assert suite.differences["acceptance"] == {
        "toy/en": Estimate(value=0.0),
        "toy/ja": Estimate(),
        "toy/te": Estimate(),
    }
    assert suite.unfairness == Estimate()


def test_a_drafter_without_q_is_compared_on_acceptance_alone(before: tuple[RunConfig, Lines]) -> None:
    (suite,) = compared(before, make_run(CHANCES, 30, defined=False)).suites
    assert suite.differences["acceptance"]["toy/en"].value is not None
    assert set(suite.differences["misfit"].values()) == {Estimate()}
    assert suite.unfairness == Estimate()


def test_refusals(before: tuple[RunConfig, Lines]) -> None:
    config, lines = before
    reference, replay = make_prompt(lines.references[0].key, [True] * (len(lines.references[0].ids) - 1))
    other = reference.model_copy(update={"ids": (9, *reference.ids[1:])})
    text = replace(lines, references=[other, *lines.references[1:]], replays=[replay, *lines.replays[1:]])
    with pytest.raises(FairspecError, match="toy/en/0 has different references"):
        compared(before, (config, text))
    with pytest.raises(FairspecError, match="gamma"):
        compared(before, (config.model_copy(update={"gamma": 5}), lines))
    renamed = config.suites[0].model_copy(update={"name": "other"})
    with pytest.raises(FairspecError, match="no suite in common"):
        compared(before, (config.model_copy(update={"suites": (renamed,)}), Lines()))


def test_versions_of_a_suite_are_not_compared(before: tuple[RunConfig, Lines]) -> None:
    """Even where the texts happen to be the same: another version asks other prompts."""
    config, lines = before
    later = config.model_copy(update={"suites": (config.suites[0].model_copy(update={"version": "2.0"}),)})
    with pytest.raises(FairspecError) as caught:
        compared(before, (later, lines))
    assert str(caught.value) == (
        "compare: toy is of version 1 in the first run, 2.0 in the second: other prompts. Run both on one version."
    )


def with_misfit(lines: Lines, misfit: dict[str, float]) -> Lines:
    """The same texts with this KL at every context of a language; the verifier's entropy is 1 nat."""

    def told(replay: Replay) -> Replay:
        kl = misfit[replay.key.split("/")[1]] * replay.contexts
        return replay.model_copy(update={"kl": kl, "cross_entropy": kl + replay.contexts})

    return replace(lines, replays=[told(replay) for replay in lines.replays])


def test_relative_changes_are_shares_of_the_first_run(before: tuple[RunConfig, Lines]) -> None:
    """From misfits .5, .5, 1 to .5, .5, .75 U falls by three quarters; from none it has no share."""
    config, lines = before
    apart, nearer = (with_misfit(lines, {"en": 0.5, "ja": 0.5, "te": te}) for te in (1.0, 0.75))
    (suite,) = compared((config, apart), (config, nearer)).suites
    assert suite.unfairness.value == pytest.approx(0.25**2 / 3 - 0.5**2 / 3)
    assert suite.relative["unfairness"].value == pytest.approx(-0.75)
    assert suite.relative["unfairness_ce"].value == pytest.approx(-0.75)
    assert suite.relative["acceptance_variance"].value == 0
    level = with_misfit(lines, dict.fromkeys(CHANCES, 0.5))
    (suite,) = compared((config, level), (config, apart)).suites
    assert suite.relative["unfairness"] == Estimate()
