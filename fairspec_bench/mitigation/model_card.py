"""What is written beside a fine-tuned drafter: the plan, the result, and the model card.

Figures are held-out ones at temperature 1, on prompts of no suite: not a score.
"""

from __future__ import annotations

from typing import Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fairspec_bench.mitigation.methods import METHODS
from fairspec_bench.mitigation.trainer import Evaluation, TrainingRecipe
from fairspec_bench.schemas.base import Record, Sha256
from fairspec_bench.schemas.config import Environment

PLAN, RESULT, CARD, STATE = "mitigation-plan.json", "mitigation.json", "README.md", ".training.pt"
"""Names of the files in a fine-tuned drafter's folder; the result is written last."""


class FineTunePlan(Record):
    """Everything that decides a fine-tuned drafter; another plan in the same folder is refused."""

    schema_version: Literal[1] = 1
    method: str
    verifier: str
    verifier_revision: str | None = None
    verifier_sha256: Sha256
    drafter: str
    drafter_revision: str | None = None
    drafter_sha256: Sha256
    prompts: tuple[str, ...]
    corpus_sha256: Sha256
    training_examples: dict[str, int]
    held_out_examples: dict[str, int]
    recipe: TrainingRecipe
    lora_rank: int | None
    chat_template: bool
    dtype: str
    device: str


class FineTuneResult(Record):
    """Held-out figures `before`, and `after` of the weights as saved (`None` where none were trained).

    `history` holds the evaluations on the way, `best_step` the step whose weights were kept.
    """

    plan: FineTunePlan
    checked_suites: tuple[str, ...]
    unchecked_suites: tuple[str, ...]
    before: Evaluation
    after: Evaluation | None
    history: tuple[Evaluation, ...]
    best_step: int
    verifier_sha256_after: Sha256
    seconds: float
    environment: Environment


def model_card(result: FineTuneResult) -> str:
    """The model card as Markdown."""
    plan, method = result.plan, METHODS[result.plan.method]
    prompts, checked = ", ".join(plan.prompts), ", ".join(result.checked_suites) or "a suite at hand"
    training, held_out = sum(plan.training_examples.values()), sum(plan.held_out_examples.values())
    unchecked = f" Not at hand, hence not compared: {', '.join(result.unchecked_suites)}." * bool(
        result.unchecked_suites
    )
    aware = "It needs each prompt's task when it is used.\n" if method.task_aware else ""
    return f"""---
tags: [speculative-decoding, drafter, fairspec-bench]
---
# A drafter {"fitted" if result.after is None else "fine-tuned"} by {plan.method}

Method: {method.title}. Drafter `{plan.drafter}` for verifier `{plan.verifier}`, whose weights did not move (SHA-256
`{plan.verifier_sha256[:16]}…` before, `{result.verifier_sha256_after[:16]}…` after). {aware}
- Prompts: {prompts}; examples are the verifier's own greedy continuations, {training} to train on,
  {held_out} held out, SHA-256 `{plan.corpus_sha256}`.
- No prompt is a question of {checked} (compared by hash).{unchecked}
{_training_line(result)}
## Held out, one seed, no intervals: a score comes from `fairspec run`

{_table(result)}
"""


def _training_line(result: FineTuneResult) -> str:
    recipe, environment = result.plan.recipe, result.environment
    where = f"{result.seconds:.0f} s on {environment.device_name}, {environment.threads} threads"
    if result.after is None:
        return f"- Fitted without training; {where}.\n"
    last, best = result.history[-1].step, result.best_step
    return (
        f"- {last} steps of {recipe.per_task} examples a task, rate {recipe.rate:g}, seed {recipe.seed}; {where}.\n"
        f"- The weights are of step {best}, the best by mean (1 − overlap)² over tasks on held-out examples.\n"
    )


def _table(result: FineTuneResult) -> str:
    before, after = result.before, result.after
    if after is None:
        return "No figures were taken."
    head = "| task | misfit before (nats) | after | overlap before | after |\n|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {task} | {before.misfit[task]:.3f} | {after.misfit[task]:.3f} "
        f"| {before.overlap[task]:.3f} | {after.overlap[task]:.3f} |"
        for task in before.misfit
    )


def render_result(result: FineTuneResult) -> RenderableType:
    """Held-out figures before and after as a Rich table."""
    before, after, plan = result.before, result.after, result.plan
    if after is None:
        return Text(
            f"{plan.method}: fitted on {sum(plan.training_examples.values())} examples. Score it: fairspec run."
        )
    table = Table("task", "misfit before", "after", "overlap before", "after", box=None, title_justify="left")
    table.title = f"{plan.method}, held out, weights of step {result.best_step}; a score comes from fairspec run"
    for task in before.misfit:
        figures = (before.misfit[task], after.misfit[task], before.overlap[task], after.overlap[task])
        table.add_row(task, *(f"{figure:.3f}" for figure in figures))
    return table
