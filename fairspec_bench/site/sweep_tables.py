"""The tables of a sweep: speed-up by batch size and γ, where it stops paying, and one γ for all languages.

Knows views and how a table is written (`cells`).
"""

from __future__ import annotations

from markupsafe import Markup

from fairspec_bench.measure.lines import language_of
from fairspec_bench.measure.sweep import payoff_words, served_within
from fairspec_bench.records import SweepReport
from fairspec_bench.site.cells import Column, cell, est_cell, folded, head, language, number, row, table
from fairspec_bench.site.views import SuiteView
from fairspec_bench.site.words import NOTHING


def speedup_table(view: SuiteView, sweep: SweepReport, uid: str) -> Markup:
    """A row a language and γ, a column a batch size."""
    batches = _batches(sweep)
    found = {(each.task, each.gamma, each.batch_size): each.speedup for each in sweep.cells}
    columns = [Column("Language", "text"), number("γ"), *(number(f"Batch {batch}") for batch in batches)]
    rows = [
        row(
            head(language(view.words, language_of(each.task))),
            _count_cell(each.gamma),
            *(est_cell(found.get((each.task, each.gamma, batch), NOTHING), "times") for batch in batches),
            cell(payoff_words(each, view.verdict), "words"),
        )
        for each in sweep.payoffs
    ]
    caption = "Speed-up by batch size and γ"
    label = f"{caption}, {view.suite.suite}"
    return table(label, [*columns, Column("Pays", "text")], rows, caption=caption, uid=uid)


def pace_table(view: SuiteView, sweep: SweepReport) -> Markup:
    """Tokens a second by language, γ and batch size, the verifier alone too."""
    batches = _batches(sweep)
    found = {(each.task, each.gamma, each.batch_size): each.tokens_per_second for each in sweep.cells}
    rows = [
        row(
            head(language(view.words, language_of(task))),
            _count_cell(gamma) if gamma else cell("alone", "num"),
            *(est_cell(found.get((task, gamma, batch), NOTHING), "number") for batch in batches),
        )
        for task, gamma in dict.fromkeys((each.task, each.gamma) for each in sweep.cells)
    ]
    columns = [Column("Language"), number("γ"), *(number(f"Batch {batch}") for batch in batches)]
    return folded(f"Tokens a second by batch size, {view.suite.suite}", *columns, rows=rows)


def wait_table(view: SuiteView, sweep: SweepReport) -> Markup:
    """Seconds to an answer by language, γ and requests at once; nothing where none was served."""
    batches = _batches(sweep)
    found = {(each.task, each.gamma, each.batch_size): each for each in sweep.cells}
    rows = [
        row(
            head(language(view.words, language_of(task))),
            _count_cell(gamma) if gamma else cell("alone", "num"),
            cell(share, "words"),
            *(est_cell(latency, "number") for latency in latencies),
        )
        for task, gamma in dict.fromkeys((each.task, each.gamma) for each in sweep.cells)
        for share, latencies in served_within([found[task, gamma, batch] for batch in batches]).items()
    ]
    if not rows:
        return Markup()
    at_once = [number(f"{batch} at once") for batch in batches]
    columns = [Column("Language"), number("γ"), Column("Of requests", "text"), *at_once]
    return folded(f"Seconds to an answer, {view.suite.suite}", *columns, rows=rows)


def best_table(view: SuiteView, sweep: SweepReport) -> Markup:
    """The γ taken for all languages at each batch size, and what it is worth where it was not chosen."""
    tasks = list(dict.fromkeys(each.task for each in sweep.cells))
    columns = [number("Batch"), number("γ"), number("All, where chosen"), number("All, other half")]
    columns += [number(language(view.words, language_of(task))) for task in tasks]
    rows = [
        row(
            head(str(each.batch_size)),
            _count_cell(each.gamma),
            *(est_cell(figure, "times") for figure in (each.chosen, each.total)),
            *(est_cell(each.speedup.get(task, NOTHING), "times") for task in tasks),
        )
        for each in sweep.best
    ]
    caption = "One γ for all languages, chosen on half of the prompts, its speed-up on the other half"
    return table(f"Best γ by batch size, {view.suite.suite}", columns, rows, caption=caption)


def _batches(sweep: SweepReport) -> list[int]:
    return sorted({each.batch_size for each in sweep.cells})


def _count_cell(count: int) -> str:
    return f'<td class="num" data-value="{count}">{count}</td>'
