"""Trains a drafter by a `Trained` method on a corpus: weighted gradient, checkpoints, early stopping.

The verifier only gives distributions; no gradient reaches it. A step's batch is a function of its number and everything
else is in the checkpoint, so that a resumed training ends in the same weights. All figures are at temperature 1 on the
full softmax.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field, ValidationError
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from fairspec_bench.mitigation.corpus import Batches, count_contexts, count_examples
from fairspec_bench.mitigation.losses import Loss, kl, overlap
from fairspec_bench.mitigation.methods import Trained
from fairspec_bench.mitigation.passes import TrainingSetup, at_contexts, passes, task_numbers
from fairspec_bench.mitigation.weights import TaskLosses
from fairspec_bench.models.checkpoint import load_checkpoint, save_checkpoint
from fairspec_bench.schemas.base import FairspecError, Record


class TrainingRecipe(Record):
    """How long and how fast: `per_task` examples of each task a step; stop after `patience` evaluations no better.

    `ascent` is the step size of group DRO's weights, as Sagawa et al. (1911.08731) have it.
    """

    steps: int = Field(default=60, ge=1)
    rate: float = Field(default=2e-3, gt=0)
    per_task: int = Field(default=3, ge=1)
    seed: int = 0
    decay: float = Field(default=0.9, ge=0, lt=1)
    evaluate: int = Field(default=15, ge=1)
    patience: int = Field(default=3, ge=1)
    ascent: float = Field(default=0.01, gt=0)

    def factor(self, step: int) -> float:
        """The rate at `step` as a share of the full one: warm-up over a tenth of the steps, then linear decay."""
        rising = self.steps // 10
        return min((step + 1) / (rising + 1), (self.steps - step) / (self.steps - rising))


def make_recipe(**values: Any) -> TrainingRecipe:
    """A recipe from a user's numbers. Raises `FairspecError` for one out of range."""
    try:
        return TrainingRecipe(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise FairspecError(f"{'.'.join(map(str, first['loc']))}={first.get('input')}: {first['msg']}.") from None


class Evaluation(Record):
    """Held-out figures by task, before `step`: `misfit` mean KL and `loss` the method's own (nats), `overlap`.

    `weight` is the method's weight of each task there; `cosine` that of the task's own gradient with the step g that
    is taken, on the step's batch: below 0, the step pushes the task the wrong way. `None`: a gradient of length 0.
    """

    step: int
    misfit: dict[str, float]
    loss: dict[str, float]
    overlap: dict[str, float]
    weight: dict[str, float]
    cosine: dict[str, float | None]

    @property
    def cost(self) -> float:
        """Mean over tasks of (1 − overlap)²: what training is stopped and rates are chosen by, for every method.

        It falls with every task's overlap, so that levelling down never pays, and the worst tasks count most.
        """
        return sum((1 - value) ** 2 for value in self.overlap.values()) / len(self.overlap)


class TrainingProgress(NamedTuple):
    """How far a training is."""

    step: int
    steps: int
    evaluation: Evaluation | None


def train(
    setup: TrainingSetup,
    method: Trained,
    recipe: TrainingRecipe,
    *,
    checkpoint: Path | None = None,
    every: int = 10,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> tuple[list[Evaluation], int]:
    """Fine-tune `setup.student` in place.

    Args:
        setup: the drafter, the verifier and the corpus.
        method: the weights, the loss and how batches are drawn.
        recipe: how long and how fast.
        checkpoint: where the state is written every `every` steps; a training whose state is there resumes.
        every: steps.
        on_progress: called after each step.

    Returns:
        The evaluations, and the step whose weights the drafter is left with: the best.

    Raises:
        FairspecError: the loss is no longer finite, or the checkpoint is damaged or cannot be written.
    """
    run = _Run(setup, method, recipe)
    run.restore(checkpoint)
    for step in range(run.step, recipe.steps + 1):
        if run.due(step):
            run.evaluate(step)
        if run.stopped or step == recipe.steps:
            break
        run.advance(step)
        if (step + 1) % every == 0:
            run.save(checkpoint)
        on_progress(TrainingProgress(step + 1, recipe.steps, run.evaluations[-1]))
    run.take_best()
    run.save(checkpoint)
    return run.evaluations, run.best_step


class _Run:
    """The state of a training."""

    def __init__(self, setup: TrainingSetup, method: Trained, recipe: TrainingRecipe):
        self.setup, self.method, self.recipe = setup, method, recipe
        self.batches = Batches(setup.corpus, recipe.per_task, recipe.seed, method.tau)
        self.optimiser = torch.optim.AdamW(setup.parameters, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)
        self.step = 0
        self.evaluations: list[Evaluation] = []
        self.best_step = 0
        self.best: list[Tensor] = []
        self.task_losses: TaskLosses | None = None
        setup.student.train()

    @property
    def stopped(self) -> bool:
        """Whether the last `patience` evaluations all were no better than one before them."""
        since = [one.step > self.best_step for one in self.evaluations]
        return sum(since) >= self.recipe.patience

    def due(self, step: int) -> bool:
        """Whether an evaluation is due before `step` and was not made before an interruption."""
        made = bool(self.evaluations) and self.evaluations[-1].step == step
        return not made and (step % self.recipe.evaluate == 0 or step == self.recipe.steps)

    def advance(self, step: int) -> None:
        """One step along g, by weights from before its batch."""
        assert self.task_losses is not None
        means = gradient(self.setup, self.batches.at(step), self.method, self.task_losses)
        clip_grad_norm_(self.setup.parameters, 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * self.recipe.factor(step)
        # Gaps all 0 mean g = 0: then nothing moves, momentum included.
        if any(bool(parameter.grad.any()) for parameter in self.setup.parameters if parameter.grad is not None):
            self.optimiser.step()
        self.optimiser.zero_grad()
        self.task_losses = self.task_losses.after(means, self.recipe.decay, self.recipe.ascent)
        self.step = step + 1

    def evaluate(self, step: int) -> None:
        """Held-out figures before `step`; the first gives the running means their start."""
        tasks = self.setup.corpus.tasks
        figures = held_out(self.setup, self.method.loss_function)
        if self.task_losses is None:
            start = torch.tensor([figures.loss[task] for task in tasks], dtype=torch.float64)
            self.task_losses = TaskLosses.start(start, tasks)
        weight = self.method.weight_function(self.task_losses)
        cosines = task_cosines(self.setup, self.batches.at(step), self.method, weight)
        self.evaluations.append(
            Evaluation(
                step=step,
                **figures._asdict(),
                weight=dict(zip(tasks, weight.tolist(), strict=True)),
                cosine=dict(zip(tasks, cosines, strict=True)),
            )
        )
        if self.evaluations[-1].cost <= min(one.cost for one in self.evaluations):
            self.best_step = step
            self.best = [parameter.detach().clone() for parameter in self.setup.parameters]

    def take_best(self) -> None:
        """Leave the drafter with its best weights, in evaluation mode."""
        with torch.no_grad():
            for parameter, best in zip(self.setup.parameters, self.best, strict=True):
                parameter.copy_(best)
        self.setup.student.eval()

    def save(self, path: Path | None) -> None:
        """Keep the state, if there is a place for it."""
        if path is None or self.task_losses is None:
            return
        state = {
            "step": self.step,
            "parameters": [parameter.detach() for parameter in self.setup.parameters],
            "optimiser": self.optimiser.state_dict(),
            "task_losses": list(self.task_losses),
            "best_step": self.best_step,
            "best": self.best,
            "evaluations": [one.model_dump_json() for one in self.evaluations],
        }
        save_checkpoint(path, state)

    def restore(self, path: Path | None) -> None:
        """Resume from a kept state, if there is one."""
        if path is not None:
            load_checkpoint(path, self._restore, self.setup.student.device)

    def _restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for parameter, kept in zip(self.setup.parameters, state["parameters"], strict=True):
                parameter.copy_(kept)
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.best_step, self.best = state["step"], state["best_step"], state["best"]
        self.task_losses = TaskLosses(*(each.cpu() for each in state["task_losses"]))
        self.evaluations = [Evaluation.model_validate_json(one) for one in state["evaluations"]]


# --------------------------------------------------------------------------- gradients


def gradient(setup: TrainingSetup, batch: Sequence[int], method: Trained, losses: TaskLosses) -> Tensor:
    """Add g = Σ_T w_T ∇(mean loss of T in the batch) to the drafter's gradients; → the means [m], NaN where absent.

    Raises `FairspecError` where a loss is not finite.
    """
    return _descend(setup, batch, method.loss_function, _by_draws(setup, batch, method, method.weight_function(losses)))


def _by_draws(setup: TrainingSetup, batch: Sequence[int], method: Trained, weight: Tensor) -> Tensor:
    """The weights [m], times how often each task was drawn where batches are not stratified; their sum is kept."""
    if method.tau is None:
        return weight
    counts = count_examples([setup.corpus.train[i] for i in batch])
    drawn = weight * torch.tensor([counts.get(task, 0) for task in setup.corpus.tasks], dtype=weight.dtype)
    return drawn * weight.sum() / drawn.sum()


def _descend(setup: TrainingSetup, batch: Sequence[int], loss: Loss, weight: Tensor) -> Tensor:
    corpus = setup.corpus
    counts = torch.tensor(count_contexts([corpus.train[i] for i in batch], corpus.tasks), dtype=torch.float64)
    sums = torch.zeros(len(corpus.tasks), dtype=torch.float64)
    for part in passes(corpus.train, batch):
        labels = task_numbers([corpus.train[i] for i in part], corpus.tasks)
        values = at_contexts(setup, setup.train, part, loss)
        sums.index_add_(0, labels, values.detach().double().cpu())
        each = (weight / counts)[labels].to(values)
        if each.any():
            (each * values).sum().backward()
    means = torch.where(counts > 0, sums / counts, torch.nan)
    for task, mean, count in zip(corpus.tasks, means.tolist(), counts.tolist(), strict=True):
        if count and not math.isfinite(mean):
            raise FairspecError(f"the loss of task {task} is not finite. Choose a smaller --lr or another --method.")
    return means


def task_cosines(setup: TrainingSetup, batch: Sequence[int], method: Trained, weight: Tensor) -> list[float | None]:
    """cos(∇D_T, g) of each task on one batch, `None` where either has length 0. Leaves no gradient behind."""
    corpus = setup.corpus
    _descend(setup, batch, method.loss_function, _by_draws(setup, batch, method, weight))
    whole = _taken(setup.parameters)
    found: list[float | None] = []
    for number, task in enumerate(corpus.tasks):
        mine = [index for index in batch if corpus.train[index].task == task]
        if mine:
            _descend(setup, mine, method.loss_function, torch.eye(len(corpus.tasks), dtype=weight.dtype)[number])
        own = _taken(setup.parameters)
        length = _dot(own, own) ** 0.5 * _dot(whole, whole) ** 0.5
        found.append(_dot(own, whole) / length if length > 0 else None)
    return found


def _taken(parameters: Sequence[torch.nn.Parameter]) -> list[Tensor]:
    """The gradients, removed from their parameters."""
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return found


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    return float(sum((a.double() * b.double()).sum() for a, b in zip(first, second, strict=True)))


# --------------------------------------------------------------------------- held-out figures


def figures_of(setup: TrainingSetup, step: int = 0) -> Evaluation:
    """Held-out figures of a drafter as it is, without a method's weights and cosines."""
    found = held_out(setup, kl)
    return Evaluation(step=step, **found._asdict(), weight={}, cosine={})


class Figures(NamedTuple):
    """Means over a set of examples' contexts, by task."""

    misfit: dict[str, float]
    loss: dict[str, float]
    overlap: dict[str, float]


@torch.no_grad()
def held_out(setup: TrainingSetup, loss: Loss) -> Figures:
    """Mean KL, own loss and overlap of the held-out examples, by task."""
    corpus = setup.corpus
    counts = count_contexts(corpus.held_out, corpus.tasks)
    measured: list[Loss] = [kl, loss, lambda log_p, log_q, y: overlap(log_p, log_q)]
    setup.student.eval()
    sums = torch.zeros(len(measured), len(corpus.tasks), dtype=torch.float64)
    for part in passes(corpus.held_out, range(len(corpus.held_out))):
        labels = task_numbers([corpus.held_out[i] for i in part], corpus.tasks)
        both: Loss = lambda log_p, log_q, y: torch.stack([each(log_p, log_q, y) for each in measured], dim=-1)  # noqa: E731
        values = at_contexts(setup, setup.held_out, part, both)
        sums.index_add_(1, labels, values.double().cpu().T)
    setup.student.train()
    rows = (sums / torch.tensor(counts)).tolist()
    return Figures(*(dict(zip(corpus.tasks, row, strict=True)) for row in rows))
