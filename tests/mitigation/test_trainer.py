"""Training: batches, resume to the same weights wherever it is killed, early stop, the fitted temperatures."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny_corpus import TASKS, find_trained, made_corpus, make_setup
from torch import Tensor

from fairspec_bench.mitigation.corpus import Batches, Corpus
from fairspec_bench.mitigation.fitted import GRID, fit_temperatures
from fairspec_bench.mitigation.methods import METHODS, Trained, find
from fairspec_bench.mitigation.passes import TrainingSetup
from fairspec_bench.mitigation.trainer import TrainingProgress, TrainingRecipe, train
from fairspec_bench.schemas.base import FairspecError

RECIPE = TrainingRecipe(steps=12, rate=3e-3, per_task=2, evaluate=4, seed=5)


def weights(work: TrainingSetup) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in work.parameters]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# --------------------------------------------------------------------------- batches


def test_batches_hold_every_task_alike_and_every_text_before_one_twice() -> None:
    corpus = made_corpus(examples=5)
    batches = Batches(corpus, per_task=2, seed=1)
    seen: Counter[int] = Counter()
    for step in range(5):
        tasks = Counter(corpus.train[index].task for index in batches.at(step))
        assert tasks == dict.fromkeys(TASKS, 2)
        seen.update(batches.at(step))
    assert set(seen.values()) == {2}
    assert batches.at(3) == Batches(corpus, per_task=2, seed=1).at(3) != Batches(corpus, per_task=2, seed=2).at(3)


def test_tasks_are_drawn_by_share_to_the_power_of_one_over_tau() -> None:
    corpus = made_corpus()
    corpus = Corpus(corpus.train, corpus.held_out, {"a": 16.0, "b": 4.0, "c": 1.0})
    drawn: Counter[str] = Counter()
    for step in range(2000):
        drawn.update(corpus.train[index].task for index in Batches(corpus, 1, 0, tau=2.0).at(step))
    shares = [drawn[task] / 6000 for task in TASKS]
    assert shares == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=0.02)


def test_a_task_without_text_of_either_kind_is_refused() -> None:
    corpus = made_corpus()
    rest = tuple(example for example in corpus.held_out if example.task != "b")
    with pytest.raises(FairspecError, match="task b: no held-out example"):
        Corpus(corpus.train, rest, corpus.shares)


# --------------------------------------------------------------------------- resume


class Killed(Exception):
    """Stands for SIGKILL between two steps; what is on disk is all that is left."""


@pytest.mark.parametrize("method", ["s-cdf", "group-dro", "resample"])
def test_killed_at_ten_random_steps_training_ends_in_the_same_weights(method: str, tmp_path: Path) -> None:
    straight = make_setup(made_corpus())
    wanted, _ = train(straight, find_trained(method), RECIPE)
    kills = sorted(random.Random(method).sample(range(1, 12), 10))
    for kill in kills:

        def on_progress(progress: TrainingProgress, kill: int = kill) -> None:
            if progress.step == kill:
                raise Killed

        with pytest.raises(Killed):
            train(
                make_setup(made_corpus()),
                find_trained(method),
                RECIPE,
                checkpoint=tmp_path / "state.pt",
                every=3,
                on_progress=on_progress,
            )
    again = make_setup(made_corpus())
    found, _ = train(again, find_trained(method), RECIPE, checkpoint=tmp_path / "state.pt", every=3)
    assert found == wanted
    assert same(weights(again), weights(straight))


def test_a_planted_bug_in_resume_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the optimiser's state: the weights then differ, so the test above can fail."""
    straight = make_setup(made_corpus())
    train(straight, find_trained("uniform"), RECIPE)

    def on_progress(progress: TrainingProgress) -> None:
        if progress.step == 7:
            raise Killed

    with pytest.raises(Killed):
        train(
            make_setup(made_corpus()),
            find_trained("uniform"),
            RECIPE,
            checkpoint=tmp_path / "s.pt",
            every=3,
            on_progress=on_progress,
        )
    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", lambda self, state: None)
    again = make_setup(made_corpus())
    train(again, find_trained("uniform"), RECIPE, checkpoint=tmp_path / "s.pt", every=3)
    assert not same(weights(again), weights(straight))


def test_a_finished_training_is_not_gone_on_with(tmp_path: Path) -> None:
    work = make_setup(made_corpus())
    found, best = train(work, find_trained("s-cdf"), RECIPE, checkpoint=tmp_path / "s.pt")
    again = make_setup(made_corpus())
    assert train(again, find_trained("s-cdf"), RECIPE, checkpoint=tmp_path / "s.pt") == (found, best)
    assert same(weights(again), weights(work))


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "s.pt").write_bytes(b"junk")
    with pytest.raises(FairspecError, match=r"s\.pt: damaged .* Delete it"):
        train(make_setup(made_corpus()), find_trained("s-cdf"), RECIPE, checkpoint=tmp_path / "s.pt")


# --------------------------------------------------------------------------- what training does


def test_the_verifier_does_not_move_and_the_drafter_comes_nearer() -> None:
    work = make_setup(made_corpus())
    before = [parameter.clone() for parameter in work.train.hf.parameters()]
    found, best = train(work, find_trained("uniform"), TrainingRecipe(steps=30, rate=1e-2, evaluate=10))
    assert all(torch.equal(a, b) for a, b in zip(before, work.train.hf.parameters(), strict=True))
    assert best > 0
    assert found[-1].cost < found[0].cost
    assert sum(found[-1].misfit.values()) < sum(found[0].misfit.values())


def test_training_stops_when_it_gets_no_better_and_keeps_the_best() -> None:
    work = make_setup(made_corpus())
    start = weights(work)
    found, best = train(work, find_trained("uniform"), TrainingRecipe(steps=400, rate=3.0, evaluate=2, patience=2))
    assert (best, [one.step for one in found]) == (0, [0, 2, 4])
    assert same(weights(work), start)


def test_the_cost_cannot_be_lowered_by_levelling_down() -> None:
    work = make_setup(made_corpus())
    (one, *_), _ = train(work, find_trained("uniform"), TrainingRecipe(steps=1))
    worst = min(one.overlap.values())
    levelled = one.model_copy(update={"overlap": dict.fromkeys(one.overlap, worst)})
    assert levelled.cost > one.cost


def test_each_task_gets_the_temperature_of_greatest_overlap() -> None:
    work = make_setup(made_corpus())
    with torch.no_grad():
        # A drafter that is the verifier but twice as hot everywhere: the right temperature is known.
        work.student.load_state_dict(work.train.hf.state_dict())
        work.student.lm_head.weight.data = work.student.lm_head.weight.data.clone()
        work.student.model.norm.weight *= 0.625
    found = fit_temperatures(work)
    nearest = min(GRID, key=lambda temperature: abs(temperature - 0.625))
    assert set(found) == set(TASKS)
    assert all(abs(temperature - nearest) < 0.07 for temperature in found.values())


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(FairspecError, match=r"--method wish: unknown. Known: s-cdf, "):
        find("wish")
    assert sum(isinstance(method, Trained) for method in METHODS.values()) == len(METHODS) - 2
