"""Experiments on a tiny pair: the right jobs, the same figures from a second call, tables that say what was done."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_pair import contents

from fairspec_bench.engine.drafters.base import FILE
from fairspec_bench.engine.drafters.model import ModelFile
from fairspec_bench.engine.drafters.registry import load_drafter
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.experiments.compare_methods import beyond, front, run_compare_methods, verdict
from fairspec_bench.experiments.job_runner import DrafterJob, JobRunner, ScoringOptions
from fairspec_bench.experiments.transfer import run_transfer
from fairspec_bench.mitigation import finetune, fitted, methods
from fairspec_bench.mitigation.methods import Fitted
from fairspec_bench.mitigation.passes import TrainingSetup
from fairspec_bench.mitigation.trainer import TrainingRecipe
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import write_record
from fairspec_bench.schemas.lines import Replay
from fairspec_bench.schemas.options import RunOptions, model_spec
from fairspec_bench.schemas.report import Estimate
from fairspec_bench.scoring import prepare
from fairspec_bench.scoring.run import run
from fairspec_bench.scoring.run_folder import RunFolder

LANGUAGES = ("en", "te")
RECIPE = TrainingRecipe(steps=2, rate=3e-3, per_task=1, evaluate=2)
SCORING = ScoringOptions(suites=("embedded_math",), limit=2, training_limit=5, languages=LANGUAGES)


def replays(runner: JobRunner, name: str) -> dict[str, Replay]:
    return {line.key: line for line in runner.lines(name)[1].replays}


@pytest.fixture
def runner(pair: tuple[Path, Path], cache: Path, tmp_path: Path) -> JobRunner:
    return JobRunner(model_spec(str(pair[0])), SCORING, tmp_path / "jobs", cache)


def test_a_job_gives_the_lines_that_finetune_and_run_give(
    runner: JobRunner, pair: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    """A job equals what a user does by hand over two folders."""
    runner.run("trained", DrafterJob(drafter=str(pair[1]), method="s-cdf", recipe=RECIPE))
    options = finetune.FineTuneOptions(
        runner.verifier, model_spec(str(pair[1])), "s-cdf", ("embedded_math",), RECIPE, LANGUAGES, limit=5
    )
    finetune.finetune(options, tmp_path / "drafter", cache=cache)
    by_hand = RunOptions(
        runner.verifier,
        drafter_spec(str(tmp_path / "drafter")),
        ("embedded_math",),
        LANGUAGES,
        limit=2,
        batch_size=48,
        race_rounds=0,
    )
    run(prepare.prepare(by_hand), tmp_path / "run", cache=cache)
    wanted = {line.key: line for line in RunFolder(tmp_path / "run").lines("replay", Replay)}
    found = replays(runner, "trained")
    assert found.keys() == wanted.keys()
    for key, line in found.items():
        assert line.kl == pytest.approx(wanted[key].kl, rel=1e-4)
    _, lines = runner.lines("trained")
    assert len(lines.references) == len(lines.replays) == 4


def test_a_finished_job_is_not_repeated_and_another_in_its_folder_refused(
    runner: JobRunner, pair: tuple[Path, Path]
) -> None:
    job = DrafterJob(drafter=str(pair[1]), method="uniform", recipe=RECIPE)
    first, before = runner.run("one", job), contents(runner.out)
    assert set(before) == {"jobs/one/job.json", "jobs/one/replays.jsonl", "jobs/one/result.json"}
    assert runner.run("one", job) == first
    assert contents(runner.out) == before
    with pytest.raises(FairspecError, match=r"holds another job \(job.method: uniform there, tv here\)"):
        runner.run("one", job.model_copy(update={"method": "tv"}))
    fewer = JobRunner(runner.verifier, SCORING.model_copy(update={"limit": 1}), runner.out, runner.cache)
    with pytest.raises(FairspecError, match=r"scoring.limit: 2 there, 1 here"):
        fewer.run("one", job)


def test_a_fit_from_outside_is_scored_as_what_it_writes(
    runner: JobRunner, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as the drafter was, nor as an n-gram model, which whatever was no temperature used to be scored as."""

    def write_hot(setup: TrainingSetup, verifier: Model, out: Path) -> None:
        write_record(out / FILE, ModelFile(kind="model", temperatures=dict.fromkeys(setup.corpus.tasks, 5.0)))

    monkeypatch.setattr(fitted, "FITS", {**fitted.FITS, "hot": write_hot})
    monkeypatch.setattr(methods, "METHODS", {**methods.METHODS, "hot": Fitted("temperature 5", "hot", True)})
    for name in (None, "ngram", "hot"):
        runner.run(str(name), DrafterJob(drafter=str(pair[1]), method=name))
    plain, tables, hot = (replays(runner, name) for name in ("None", "ngram", "hot"))
    scorer = runner.scorer
    by_hand = load_drafter("model", str(pair[1]), {"temperature": 5.0}, scorer.context.verifier)
    wanted = {line.key: line for line in scorer.replay(by_hand)}
    for key, line in hot.items():
        assert line.kl == pytest.approx(wanted[key].kl, rel=1e-4)
        assert line.draft_ids == plain[key].draft_ids, "greedy drafts do not depend on temperature"
        assert line.kl != pytest.approx(plain[key].kl, rel=1e-2)
        assert line.kl != pytest.approx(tables[key].kl, rel=1e-2)


@pytest.mark.slow
def test_methods_are_compared_on_every_drafter_and_seed(pair: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options = {
        "verifier": model_spec(str(pair[0])),
        "drafters": {"one": pair[1], "two": pair[1]},
        "cache": cache,
        "methods": ("s-cdf", "uniform", "temperature", "ngram"),
        "seeds": (0, 1),
        "rates": (1e-3, 3e-3),
        "recipe": RECIPE,
        "limit": 2,
        "training_limit": 5,
        "languages": LANGUAGES,
        "workers": 1,
    }
    out = tmp_path / "compare-methods"
    found = run_compare_methods(out, **options, say=said.append)  # type: ignore[arg-type]
    by_name = {one.method: one for one in found.methods}
    assert {name: one.change.trainings for name, one in by_name.items()} == {
        "s-cdf": 4,
        "uniform": 4,
        "temperature": 2,
        "ngram": 2,
    }
    for name in ("s-cdf", "uniform"):
        costs = {float(rate): cost for rate, cost in by_name[name].tuning.items()}
        assert by_name[name].rate == min(costs, key=lambda rate: costs[rate])
    assert by_name["s-cdf"].against is None
    assert by_name["uniform"].against is not None
    # Greedy drafts do not depend on temperature; misfit does.
    assert by_name["temperature"].change.across["mean_acceptance"].change.value == 0
    assert (
        by_name["temperature"].change.across["unfairness"].before == by_name["s-cdf"].change.across["unfairness"].before
    )
    assert by_name["ngram"].task_aware
    assert set(found.front) == set(front(found.methods))
    page = (out / "compare-methods.md").read_text(encoding="utf-8")
    assert all(name in page for name in by_name)
    drawn = (out / "compare-methods.svg").read_text(encoding="utf-8")
    assert all(f"<title>{name}: mean acceptance" in drawn for name in (*by_name, "before"))
    assert drawn.count('class="dot"') == len(found.front)
    assert all(one.change.noise_floor is not None for one in found.methods)
    before = contents(out)
    jobs = len(said)
    assert run_compare_methods(out, **options, say=said.append) == found  # type: ignore[arg-type]
    assert contents(out) == before
    assert len(said) == 2 * jobs


@pytest.mark.slow
def test_transfer_marks_what_was_not_trained_on(pair: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    found = run_transfer(
        tmp_path,
        verifier=model_spec(str(pair[0])),
        drafter=pair[1],
        cache=cache,
        methods=("uniform",),
        left_out=("te",),
        seeds=(0,),
        recipe=RECIPE,
        limit=2,
        training_limit=5,
        languages=LANGUAGES,
        workers=1,
        say=lambda line: None,
    )
    assert [(one.trained_on, one.scored_on) for one in found.suites] == [
        ("embedded_math", "embedded_math"),
        ("embedded_math", "embedded_story"),
        ("embedded_story", "embedded_math"),
        ("embedded_story", "embedded_story"),
    ]
    page = (tmp_path / "transfer.md").read_text(encoding="utf-8")
    assert page.count("(not trained on)") == 2
    assert found.languages[0].language == "te"
    assert found.languages[0].left_out.before == found.languages[0].included.before


@pytest.mark.parametrize(
    ("mean", "u", "words"),
    [
        ((0.01, 0.02), (-0.2, -0.1), "mean better, fairness better"),
        ((-0.02, -0.01), (0.1, 0.2), "mean worse, fairness worse"),
        ((-0.02, 0.01), (-0.1, 0.2), "mean tied, fairness tied"),
    ],
)
def test_a_verdict_needs_an_interval_off_zero(mean: tuple[float, float], u: tuple[float, float], words: str) -> None:
    figures = (Estimate(value=sum(each) / 2, low=each[0], high=each[1]) for each in (mean, u))
    assert verdict(*figures) == f"s-CDF: {words}"


def test_a_grid_whose_best_lies_at_its_edge_is_widened() -> None:
    assert beyond({0.001: 0.5, 0.002: 0.4, 0.004: 0.3}) == [0.008]
    assert beyond({0.001: 0.3, 0.002: 0.4, 0.004: 0.5}) == [0.0005]
    assert beyond({0.001: 0.5, 0.002: 0.3, 0.004: 0.4}) == []
