"""The comparing studies on a tiny pair: the right jobs, the same figures from a second call, honest tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_pair import contents

from fairspec_bench.mitigation.trainer import Recipe
from fairspec_bench.records import Estimate, Replay, read_lines
from fairspec_bench.score import prepare
from fairspec_bench.score.folder import RunFolder
from fairspec_bench.score.prepare import drafter_ask, model_ask
from fairspec_bench.score.run import run
from fairspec_bench.studies import mend
from fairspec_bench.studies.rivals import front, run_rivals, verdict
from fairspec_bench.studies.transfer import run_transfer
from fairspec_bench.studies.workshop import Job, Workshop

LANGUAGES = ("en", "te")
RECIPE = Recipe(steps=2, rate=3e-3, per_task=1, evaluate=2)


def test_a_job_gives_the_lines_that_mending_and_running_give(
    pair: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    """The short way through memory equals the user's way over a folder."""
    verifier = model_ask(str(pair[0]))
    shop = Workshop(
        verifier, ("embedded_math",), tmp_path / "shop", cache, limit=2, training_limit=5, languages=LANGUAGES
    )
    shop.do("mended", Job(drafter=str(pair[1]), method="s-cdf", recipe=RECIPE))
    ask = mend.Ask(verifier, model_ask(str(pair[1])), "s-cdf", ("embedded_math",), RECIPE, LANGUAGES, limit=5)
    mend.mend(ask, tmp_path / "drafter", cache=cache)
    asked = prepare.Ask(
        verifier,
        drafter_ask(str(tmp_path / "drafter")),
        ("embedded_math",),
        LANGUAGES,
        limit=2,
        batch_size=48,
        race_rounds=0,
    )
    run(prepare.prepare(asked), tmp_path / "run", cache=cache)
    long_way = {line.key: line for line in RunFolder(tmp_path / "run").lines("replay", Replay)}
    short_way = {line.key: line for line in read_lines(tmp_path / "shop" / "jobs" / "mended" / "replays.jsonl", Replay)}
    assert short_way.keys() == long_way.keys()
    for key, line in short_way.items():
        assert line.kl == pytest.approx(long_way[key].kl, rel=1e-4)
    _, lines = shop.run("mended")
    assert len(lines.traces) == len(lines.replays) == 4


def test_rivals_are_compared_on_every_drafter_and_seed(pair: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options = {
        "verifier": model_ask(str(pair[0])),
        "drafters": {"one": pair[1], "two": pair[1]},
        "cache": cache,
        "chosen": ("s-cdf", "uniform", "temperature", "ngram"),
        "seeds": (0, 1),
        "rates": (1e-3, 3e-3),
        "recipe": RECIPE,
        "limit": 2,
        "training_limit": 5,
        "languages": LANGUAGES,
        "workers": 1,
    }
    found = run_rivals(tmp_path / "rivals", **options, say=said.append)  # type: ignore[arg-type]
    by_name = {rival.method: rival for rival in found.rivals}
    assert {name: rival.change.trainings for name, rival in by_name.items()} == {
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
    # Greedy drafts do not know temperature; misfit does.
    assert by_name["temperature"].change.across["mean_acceptance"].change.value == 0
    assert (
        by_name["temperature"].change.across["unfairness"].before == by_name["s-cdf"].change.across["unfairness"].before
    )
    assert by_name["ngram"].task_aware
    assert set(found.front) == set(front(found.rivals))
    page = (tmp_path / "rivals" / "rivals.md").read_text(encoding="utf-8")
    assert all(name in page for name in by_name)
    drawn = (tmp_path / "rivals" / "rivals.svg").read_text(encoding="utf-8")
    assert all(f"<title>{name}: mean acceptance" in drawn for name in (*by_name, "before"))
    assert drawn.count('fill="#0369a1"') == len(found.front)
    assert all(rival.change.noise_floor is not None for rival in found.rivals)
    before = contents(tmp_path / "rivals")
    jobs = len(said)
    assert run_rivals(tmp_path / "rivals", **options, say=said.append) == found  # type: ignore[arg-type]
    assert contents(tmp_path / "rivals") == before
    assert len(said) == 2 * jobs


def test_transfer_tells_the_seen_from_the_unseen(pair: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    found = run_transfer(
        tmp_path,
        verifier=model_ask(str(pair[0])),
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
    assert [(one.mended_on, one.scored_on) for one in found.across] == [
        ("embedded_math", "embedded_math"),
        ("embedded_math", "embedded_story"),
        ("embedded_story", "embedded_math"),
        ("embedded_story", "embedded_story"),
    ]
    page = (tmp_path / "transfer.md").read_text(encoding="utf-8")
    assert page.count("(never seen)") == 2
    assert found.without[0].language == "te"
    assert found.without[0].left_out.before == found.without[0].there.before


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
