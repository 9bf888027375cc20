"""What an audit found: the same prompts scored again, and prompts that the submitter had not seen.

Knows audits and how a table is written.
"""

from __future__ import annotations

from markupsafe import Markup

from fairspec_bench.site.board import Candidate
from fairspec_bench.site.cells import (
    DASH,
    Column,
    cell,
    change,
    est_cell,
    head,
    number,
    row,
    table,
)
from fairspec_bench.site.parts import escaped
from fairspec_bench.site.words import Vocabulary, figure


def audit_table(candidate: Candidate, words: Vocabulary) -> Markup:
    """What an audit found on the prompts that it scored again."""
    audit = candidate.entry.audit
    rows = [
        row(
            head(Markup(f"<bdi>{escaped(task.task)}</bdi>")),
            cell(str(task.prompts), "num"),
            cell(str(task.contexts), "num"),
            cell(figure(task.same_drafts, "share"), "num"),
            cell(figure(task.chance_difference, "number"), "num"),
            *_claimed(task.acceptance_claimed, task.acceptance_found),
            *_claimed(task.misfit_claimed, task.misfit_found),
        )
        for task in (audit.sample if audit else ())
    ]
    names = ["Prompts", "Contexts", "Same drafts", "Mean difference of the chance of acceptance"]
    names += [f"{measure} {side}" for measure in ("Acceptance", "Misfit") for side in ("claimed", "found")]
    caption = "The same prompts, scored again by the auditor"
    return table("Audit", [Column("Task"), *map(number, names)], rows, caption=caption)


def _claimed(*sides: float | None) -> list[str]:
    return [cell(DASH if side is None else figure(side, "ratio"), "num") for side in sides]


def fresh_table(candidate: Candidate) -> Markup:
    """Public against fresh prompts."""
    audit = candidate.entry.audit
    rows = [
        row(
            head(Markup(f"<bdi>{escaped(task.task)}</bdi>")),
            cell(str(task.prompts), "num"),
            est_cell(task.public, "ratio"),
            est_cell(task.fresh, "ratio"),
            cell(change(task.difference), "num"),
        )
        for task in (audit.fresh if audit else ())
    ]
    names = ("Prompts", "Public", "Fresh", "Public − fresh")
    caption = "Acceptance on the track's prompts and on prompts the submitter had not seen"
    return table("Fresh prompts", [Column("Task"), *map(number, names)], rows, caption=caption)
