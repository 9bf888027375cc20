"""What is written beside a mended drafter: how it was asked for, what came of it, and the model card in words.

Knows records and Markdown. Figures are held-out ones at temperature 1, on prompts of no suite: not a score.
"""

from __future__ import annotations

from typing import Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fairspec_bench.mitigation.methods import METHODS
from fairspec_bench.mitigation.trainer import Evaluation, Recipe
from fairspec_bench.records import Environment, Record, Sha256

ASKED, RESULT, CARD, STATE = "mitigation-plan.json", "mitigation.json", "README.md", ".training.pt"
"""Names of the files in a mended drafter's folder; the result is written last."""


class Asked(Record):
    """What decides a mended drafter; another one in the same folder is refused."""

    schema_version: Literal[1] = 1
    method: str
    verifier: str
    verifier_sha256: Sha256
    drafter: str
    drafter_sha256: Sha256
    prompts: tuple[str, ...]
    corpus_sha256: Sha256
    training_texts: dict[str, int]
    held_out_texts: dict[str, int]
    recipe: Recipe
    lora_rank: int | None
    chat_template: bool
    dtype: str
    device: str


class Result(Record):
    """What came of it: held-out figures `before`, and `after` of the weights as saved (`None` where none were trained).

    `history` holds the evaluations made on the way, `best_step` the one whose weights were kept.
    """

    asked: Asked
    checked_suites: tuple[str, ...]
    unchecked_suites: tuple[str, ...]
    before: Evaluation
    after: Evaluation | None
    history: tuple[Evaluation, ...]
    best_step: int
    verifier_sha256_after: Sha256
    seconds: float
    environment: Environment


def card(result: Result) -> str:
    """The model card."""
    asked, method = result.asked, METHODS[result.asked.method]
    prompts, checked = ", ".join(asked.prompts), ", ".join(result.checked_suites) or "a suite at hand"
    training, held_out = sum(asked.training_texts.values()), sum(asked.held_out_texts.values())
    unchecked = f" Not at hand, hence not compared: {', '.join(result.unchecked_suites)}." * bool(
        result.unchecked_suites
    )
    aware = "It must be told each prompt's task when it is used.\n" if method.task_aware else ""
    return f"""---
tags: [speculative-decoding, drafter, fairspec-bench]
---
# A drafter mended by {asked.method}

Method: {method.title}. Drafter `{asked.drafter}` for verifier `{asked.verifier}`, whose weights did not move (SHA-256
`{asked.verifier_sha256[:16]}…` before, `{result.verifier_sha256_after[:16]}…` after). {aware}
- Prompts: {prompts}; texts are the verifier's own greedy continuations, {training} to train on,
  {held_out} held out, SHA-256 `{asked.corpus_sha256}`.
- No prompt is a question of {checked} (compared by hash).{unchecked}
{_made(result)}
## Held out, one seed, no intervals: a score comes from `fairspec run`

{_table(result)}
"""


def _made(result: Result) -> str:
    recipe, here = result.asked.recipe, result.environment
    where = f"{result.seconds:.0f} s on {here.device_name}, {here.threads} threads"
    if result.after is None:
        return f"- Fitted without training; {where}.\n"
    last, best = result.history[-1].step, result.best_step
    return (
        f"- {last} steps of {recipe.per_task} texts a task, rate {recipe.rate:g}, seed {recipe.seed}; {where}.\n"
        f"- The weights are of step {best}, the best by mean (1 − overlap)² over tasks on held-out texts.\n"
    )


def _table(result: Result) -> str:
    before, after = result.before, result.after
    if after is None:
        return "No figures were taken."
    head = "| task | misfit before (nats) | after | overlap before | after |\n|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {task} | {before.misfit[task]:.3f} | {after.misfit[task]:.3f} "
        f"| {before.overlap[task]:.3f} | {after.overlap[task]:.3f} |"
        for task in before.misfit
    )


def render_result(result: Result) -> RenderableType:
    """Held-out figures before and after as a Rich table."""
    before, after, asked = result.before, result.after, result.asked
    if after is None:
        return Text(f"{asked.method}: fitted on {sum(asked.training_texts.values())} texts. Score it: fairspec run.")
    table = Table("task", "misfit before", "after", "overlap before", "after", box=None, title_justify="left")
    table.title = f"{asked.method}, held out, weights of step {result.best_step}; a score comes from fairspec run"
    for task in before.misfit:
        figures = (before.misfit[task], after.misfit[task], before.overlap[task], after.overlap[task])
        table.add_row(task, *(f"{figure:.3f}" for figure in figures))
    return table
