"""Losses, weights and the gradient g against hand-made and slow versions; planted bugs fail."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from tiny_corpus import VOCABULARY, find_trained, made_corpus, make_setup
from torch import Tensor

from fairspec_bench.mitigation import losses, trainer, weights
from fairspec_bench.mitigation.methods import METHODS, Trained
from fairspec_bench.mitigation.passes import TrainingSetup
from fairspec_bench.mitigation.weights import TaskLosses
from fairspec_bench.schemas.base import FairspecError


def distributions(seed: int = 0, contexts: int = 6, size: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_p, log_q = (torch.randn(contexts, size, generator=generator, dtype=torch.float64) for _ in "pq")
    return log_p.log_softmax(-1), log_q.log_softmax(-1), torch.randint(0, size, (contexts,), generator=generator)


SLOW: dict[str, Callable[[list[float], list[float], int], float]] = {
    "kl": lambda p, q, y: sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)),
    "cross_entropy": lambda p, q, y: -sum(a * math.log(b) for a, b in zip(p, q, strict=True)),
    "tv": lambda p, q, y: sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2,
    "neg_log_alpha": lambda p, q, y: -math.log(sum(min(a, b) for a, b in zip(p, q, strict=True))),
    "token": lambda p, q, y: -math.log(q[y]),
    "rkl": lambda p, q, y: sum(b * math.log(b / a) for a, b in zip(p, q, strict=True)),
    "jsd": lambda p, q, y: sum(
        (a * math.log(2 * a / (a + b)) + b * math.log(2 * b / (a + b))) / 2 for a, b in zip(p, q, strict=True)
    ),
    "kl_tv": lambda p, q, y: blended(SLOW["kl"](p, q, y), SLOW["tv"](p, q, y), math.exp(-3 * sum(map(min, p, q)))),
}


def blended(kl: float, tv: float, share: float) -> float:
    return share * kl + (1 - share) * tv


def test_every_loss_is_written_out() -> None:
    assert SLOW.keys() == losses.LOSSES.keys()


@pytest.mark.parametrize("name", SLOW)
def test_each_loss_equals_its_sum_written_out(name: str) -> None:
    log_p, log_q, y = distributions()
    want = [SLOW[name](p, q, t) for p, q, t in zip(log_p.exp().tolist(), log_q.exp().tolist(), y.tolist(), strict=True)]
    assert losses.LOSSES[name](log_p, log_q, y).tolist() == pytest.approx(want, rel=1e-12)


def test_ids_that_the_drafter_lacks_count_for_nothing_and_give_no_nan() -> None:
    log_p, log_q, y = distributions()
    logits = log_q.clone().requires_grad_()
    padded = torch.nn.functional.pad(logits, (0, 2), value=-torch.inf).log_softmax(-1)
    wide = torch.nn.functional.pad(log_p.exp() * 0.9, (0, 2), value=0.05).log()
    for name, loss in losses.LOSSES.items():
        value = loss(wide, padded, y)
        assert torch.isfinite(value).all(), name
        (gradient,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
        assert torch.isfinite(gradient).all(), name


def test_kl_and_cross_entropy_have_one_gradient() -> None:
    log_p, log_q, y = distributions()
    logits = log_q.clone().requires_grad_()
    found = [
        torch.autograd.grad(f(log_p, logits.log_softmax(-1), y).sum(), logits)[0]
        for f in (losses.kl, losses.cross_entropy)
    ]
    assert torch.allclose(*found, rtol=1e-12)


# --------------------------------------------------------------------------- weights


def task_losses(*mean: float) -> TaskLosses:
    return of_tasks(torch.tensor(mean, dtype=torch.float64))


def of_tasks(mean: Tensor, *tasks: str) -> TaskLosses:
    return TaskLosses.start(mean, tasks or [str(number) for number in range(len(mean))])


def test_the_best_task_has_no_weight_and_the_others_their_excess() -> None:
    assert weights.excess_raw(task_losses(0.5, 0.2, 1.2)).tolist() == pytest.approx([2 / 3 * 0.3, 0, 2 / 3 * 1.0])
    assert weights.excess(task_losses(0.5, 0.2, 1.2)).tolist() == pytest.approx([0.3 / 1.3, 0, 1.0 / 1.3])
    assert weights.excess_floor(task_losses(0.5, 0.2, 1.2)).tolist() == pytest.approx(
        [0.9 * 0.3 / 1.3 + 0.1 / 3, 0.1 / 3, 0.9 / 1.3 + 0.1 / 3]
    )


def test_gaps_are_taken_within_a_suite_and_suites_weigh_alike() -> None:
    """Pooled, the stories' level of 4 nats would take all weight and the best math task would have none."""
    tasks = ("math/en", "story/en", "math/ja", "story/ja")
    found = of_tasks(torch.tensor([0.2, 4.0, 0.5, 5.0], dtype=torch.float64), *tasks)
    assert weights.excess(found).tolist() == pytest.approx([0, 0, 0.5, 0.5])
    assert weights.excess_raw(found).tolist() == pytest.approx([0, 0, 0.5 * 0.3, 0.5 * 1.0])


def test_of_two_tasks_only_the_worse_is_trained() -> None:
    assert weights.excess(task_losses(0.2, 0.9)).tolist() == [0, 1]
    assert weights.excess_full(task_losses(0.2, 0.9)).tolist() == [-1, 1]


def test_equal_gaps_and_one_task_alone_give_no_weight() -> None:
    for name in ("excess", "excess_raw"):
        assert weights.WEIGHTS[name](task_losses(0.7, 0.7, 0.7)).tolist() == [0, 0, 0]
        assert weights.WEIGHTS[name](task_losses(0.7)).tolist() == [0]


def test_group_dro_climbs_on_the_task_that_keeps_losing() -> None:
    state = task_losses(0.0, 0.0)
    assert weights.group_dro(state).tolist() == [0.5, 0.5]
    for _ in range(3):
        state = state.after(torch.tensor([1.0, 2.0], dtype=torch.float64), 0.9, 0.2)
    odds = math.exp(0.2 * 3)
    assert weights.group_dro(state).tolist() == pytest.approx([1 / (1 + odds), odds / (1 + odds)])


def test_a_task_absent_from_a_batch_keeps_its_running_mean() -> None:
    after = task_losses(1.0, 2.0).after(torch.tensor([math.nan, 3.0], dtype=torch.float64), 0.75, 0.5)
    assert after.mean.tolist() == [1.0, 0.75 * 2 + 0.25 * 3]
    assert after.ascent.tolist() == [0.0, 1.5]


# --------------------------------------------------------------------------- g


def misfits(work: TrainingSetup) -> list[Tensor]:
    """D_T with gradients, example by example on the plain model: independent of the code under test."""
    found = []
    for task in work.corpus.tasks:
        values = []
        for example in work.corpus.train:
            if example.task != task:
                continue
            ids = torch.tensor([[*example.prompt, *example.output]])
            p, q = (
                model(ids).logits[0, len(example.prompt) : -1].double().log_softmax(-1)
                for model in (work.train.hf, work.student)
            )
            values.append((p.exp() * (p - q)).sum(-1))
        found.append(torch.cat(values).mean())
    return found


def gradients(work: TrainingSetup) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in work.parameters]


def test_g_is_the_gradient_of_unfairness_without_the_term_of_the_best_task(monkeypatch: pytest.MonkeyPatch) -> None:
    # float64 throughout: the code under test rounds logits to float32 by design, which is lifted here.
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    corpus = made_corpus()
    work = make_setup(corpus, double=True)
    work.train.hf.double()
    every = range(len(corpus.train))
    now = torch.stack(misfits(work))
    best = now.min().detach()
    wanted = torch.autograd.grad(((now - best) ** 2).mean(), work.parameters)
    means = trainer.gradient(work, list(every), find_trained("s-cdf-raw"), of_tasks(now.detach()))
    assert means.tolist() == pytest.approx(now.tolist(), rel=1e-10)
    for got, want in zip(gradients(work), wanted, strict=True):
        assert torch.allclose(got, want, rtol=1e-8, atol=1e-12)
    # A planted bug: the minimum's gradient kept in.
    kept = torch.autograd.grad(
        ((torch.stack(misfits(work)) - torch.stack(misfits(work)).min()) ** 2).mean(), work.parameters
    )
    assert not all(torch.allclose(got, other, rtol=1e-3) for got, other in zip(gradients(work), kept, strict=True))
    # s-cdf-full keeps it, up to the scale of its weights.
    for parameter in work.parameters:
        parameter.grad = None
    trainer.gradient(work, list(every), find_trained("s-cdf-full"), of_tasks(now.detach()))
    scale = 2 / len(now) * float((now.detach() - best).sum())
    for got, want in zip(gradients(work), kept, strict=True):
        assert torch.allclose(scale * got, want, rtol=1e-4, atol=1e-11)


def test_a_task_drawn_twice_counts_twice() -> None:
    """Data balancing by draws: by its own contexts alone a task drawn five times weighs as one drawn once."""
    work = make_setup(made_corpus())
    examples = [work.corpus.by_task[task] for task in work.corpus.tasks]
    batch = [examples[0][0], examples[0][0], examples[0][0], examples[1][0]]
    weight = torch.full((len(examples),), 1 / len(examples), dtype=torch.float64)
    found = trainer._by_draws(work, batch, find_trained("resample"), weight)
    assert found.tolist() == pytest.approx([0.75, 0.25, *[0.0] * (len(examples) - 2)])
    assert trainer._by_draws(work, batch, find_trained("uniform"), weight) is weight
    trainer.gradient(work, batch, find_trained("resample"), of_tasks(torch.ones_like(weight)))
    drawn = gradients(work)
    alone = []
    for mine in (batch[:3], batch[3:]):
        for parameter in work.parameters:
            parameter.grad = None
        trainer.gradient(work, mine, find_trained("resample"), of_tasks(torch.ones_like(weight)))
        alone.append(gradients(work))
    for whole, often, once in zip(drawn, *alone, strict=True):
        assert torch.allclose(whole, 0.75 * often + 0.25 * once, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if isinstance(method, Trained)])
def test_every_method_descends_on_its_own_weighted_loss(name: str) -> None:
    work, method = make_setup(made_corpus()), find_trained(name)
    batch = list(range(len(work.corpus.train)))
    state = task_losses(0.4, 0.1, 0.9)
    before = trainer.gradient(work, batch, method, state)
    with torch.no_grad():
        for parameter in work.parameters:
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad / torch.cat([g.flatten() for g in gradients(work)]).norm()
    after = trainer.gradient(work, batch, method, state)
    weight = method.weight_function(state)
    assert float((weight * after).sum()) < float((weight * before).sum())


def test_a_batch_without_a_task_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    work = make_setup(made_corpus())
    batch = [i for i, example in enumerate(work.corpus.train) if example.task != "b"]
    means = trainer.gradient(work, batch, find_trained("uniform"), task_losses(1, 1, 1))
    assert means.isnan().tolist() == [False, True, False]
    assert all(torch.isfinite(each).all() for each in gradients(work))


def test_all_gaps_zero_give_no_gradient() -> None:
    work = make_setup(made_corpus())
    trainer.gradient(work, [0, 5, 9], find_trained("s-cdf"), task_losses(1, 1, 1))
    assert not any(each.any() for each in gradients(work))


def test_nan_logits_are_refused_by_task() -> None:
    work = make_setup(made_corpus())
    with torch.no_grad():
        work.student.model.norm.weight[0] = torch.nan
    with pytest.raises(FairspecError, match="a: a prompt, output position 2: the logits of the drafter are not finite"):
        trainer.gradient(work, [0, 5, 9], find_trained("uniform"), task_losses(1, 1, 1))


def test_pieces_and_passes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_setup(made_corpus())
    wanted = trainer.gradient(whole, list(range(12)), find_trained("tv"), task_losses(1, 2, 3))
    monkeypatch.setattr("fairspec_bench.mitigation.passes.PIECE_BYTES", 4 * VOCABULARY * 3)
    monkeypatch.setattr("fairspec_bench.mitigation.passes.MAX_TOKENS", 20)
    cut = make_setup(made_corpus())
    assert trainer.gradient(cut, list(range(12)), find_trained("tv"), task_losses(1, 2, 3)).tolist() == pytest.approx(
        wanted.tolist(), rel=1e-5
    )
    for got, want in zip(gradients(cut), gradients(whole), strict=True):
        assert torch.allclose(got, want, atol=1e-6)


def test_cosines_are_those_of_gradients_taken_one_by_one() -> None:
    work, method = make_setup(made_corpus()), find_trained("s-cdf")
    weight = method.weight_function(task_losses(0.2, 0.5, 0.9))
    found = trainer.task_cosines(work, list(range(12)), method, weight)
    own = [torch.cat([g.flatten() for g in torch.autograd.grad(d, work.parameters)]) for d in misfits(work)]
    g = sum(w * each for w, each in zip(weight.tolist(), own, strict=True))
    assert found == pytest.approx([float(torch.cosine_similarity(each, g, dim=0)) for each in own], abs=1e-5)
    assert not any(each.any() for each in gradients(work))


def test_held_out_figures_equal_a_plain_pass() -> None:
    work = make_setup(made_corpus())
    figures = trainer.held_out(work, losses.kl)
    assert list(figures.misfit.values()) == pytest.approx([d.item() for d in misfits(work)], rel=1e-5)
    assert figures.loss == figures.misfit
