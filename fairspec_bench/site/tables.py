"""The tables of one report: languages down, measures across, and the figures behind each picture.

Knows views and how a table is written (`cells`). `hrefs` leads from a language to its page, where the site has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from fairspec_bench.records import TaskReport
from fairspec_bench.site.cells import (
    DASH,
    Column,
    cell,
    change,
    est,
    est_cell,
    folded,
    head,
    language,
    link,
    number,
    row,
    table,
    tag,
)
from fairspec_bench.site.changes import ChangeView
from fairspec_bench.site.parts import Curve, Mark, escaped
from fairspec_bench.site.plots import Both
from fairspec_bench.site.views import TOLERATED, VALIDITY, SuiteView
from fairspec_bench.site.words import NOTHING, Kind, Vocabulary, figure, rule_words

NO_LINKS: Mapping[str, str] = {}
COUNTS = ("prompts", "clusters", "contexts", "tokens")


def language_table(
    view: SuiteView,
    names: Sequence[str],
    caption: str,
    *,
    ranks: bool = False,
    validity: bool = True,
    uid: str = "",
    hrefs: Mapping[str, str] = NO_LINKS,
) -> Markup:
    """The named measures by language, the validity columns last. The first table of a suite has ranks and flags."""
    measures = [view.words.measure(name) for name in names]
    shares = VALIDITY if validity else ()
    columns = [Column("Language", "text"), *([number("Rank range")] if ranks else [])]
    columns += [number(view.heading(measure)) for measure in measures]
    columns += [number(view.words.measure(name).label, "valid") for name in shares]
    rows = []
    for task in view.tasks:
        flags = [f' <span class="flag"><bdi>{escaped(flag)}</bdi></span>' for flag in task.flags] if ranks else []
        cells = [head(Markup(f"{language(view.words, task.language, hrefs.get(task.language, ''))}{''.join(flags)}"))]
        cells += [_rank_cell(view, task)] if ranks else []
        cells += [est_cell(task.measures.get(each.name, NOTHING), each.kind) for each in measures]
        cells += [_share_cell(task, name) for name in shares]
        rows.append(row(*cells))
    order = (2, "descending") if ranks and names[0] == "acceptance" else None
    return table(f"{caption}, {view.suite.suite}", columns, rows, caption=caption, uid=uid, order=order)


def _rank_cell(view: SuiteView, task: TaskReport) -> str:
    low = view.suite.ranks.get(task.task, (0, 0))[0]
    value = f' data-value="{low}"' if low else ""
    return f'<td class="num"{value}>{view.rank(task)}</td>'


def _share_cell(task: TaskReport, name: str) -> str:
    e = task.measures.get(name, NOTHING)
    return est_cell(e, "share", "valid warn" if e.value is not None and e.value > TOLERATED else "valid")


def marks_data(label: str, marks: Sequence[Mark], kind: Kind, words: Vocabulary) -> Markup:
    """The figures behind a dot plot of languages."""
    rows = [
        row(head(language(words, mark.code)), *(cell(DASH if v is None else figure(v, kind), "num") for v in ends))
        for mark in marks
        for ends in [(mark.estimate.value, mark.estimate.low, mark.estimate.high)]
    ]
    return folded(label, Column("Language"), *map(number, ("Value", "Low", "High")), rows=rows)


def both_data(label: str, rows: Sequence[Both], names: tuple[str, str], kind: Kind, words: Vocabulary) -> Markup:
    """The figures behind a plot of two dots a language."""
    body = [
        row(head(language(words, each.code)), est_cell(each.first, kind), est_cell(each.second, kind)) for each in rows
    ]
    return folded(label, Column("Language"), *map(number, names), rows=body)


def strips_data(label: str, views: Sequence[SuiteView], words: Vocabulary) -> Markup:
    """The figures behind a strip plot: runs down, languages across."""
    codes = sorted({code for view in views for code in view.codes})
    rows = [
        row(
            head(Markup(f"<bdi>{escaped(view.run.name)}</bdi>")),
            *(est_cell(view.acceptance_of(code), "ratio") for code in codes),
        )
        for view in views
    ]
    return folded(label, Column("Run"), *(number(language(words, code)) for code in codes), rows=rows)


def curves_data(label: str, curves: Sequence[Curve], x_title: str, kind: Kind, words: Vocabulary) -> Markup:
    """The figures behind a curve plot."""
    xs = sorted({x for curve in curves for x in curve.points})
    rows = [
        row(head(language(words, curve.code)), *(est_cell(curve.points.get(x, NOTHING), kind) for x in xs))
        for curve in curves
    ]
    return folded(label, Column("Language"), *(number(f"{x_title} {x}") for x in xs), rows=rows)


def across_table(view: SuiteView, glossary: str = "") -> Markup:
    """Every figure across languages, with its meaning or a link to it in the `glossary`."""
    rows = []
    for name, e in sorted(view.suite.across.items()):
        measure = view.words.measure(name)
        called = f"<bdi>{escaped(measure.heading)}</bdi>"
        if glossary and name in view.words.measures:
            called = f'<a href="{glossary}#{name}">{called}</a>'
        meaning = [] if glossary else [cell(measure.definition, "words")]
        rows.append(row(head(Markup(called)), est_cell(e, measure.kind), *meaning))
    columns = [Column("Measure"), number("Value"), *([] if glossary else [Column("Meaning")])]
    return table(f"Figures across languages, {view.suite.suite}", columns, rows)


def recorded_table(view: SuiteView) -> Markup:
    """Every measure that any language carries."""
    measures = view.recorded()
    columns = [Column("Language"), *(number(name.capitalize()) for name in COUNTS)]
    columns += [number(Markup(f"<bdi>{escaped(view.heading(measure))}</bdi>")) for measure in measures]
    rows = [
        row(
            head(language(view.words, task.language)),
            *(cell(str(getattr(task, name)), "num") for name in COUNTS),
            *(est_cell(task.measures.get(measure.name, NOTHING), measure.kind) for measure in measures),
        )
        for task in view.tasks
    ]
    return table(f"Every recorded figure by language, {view.suite.suite}", columns, rows)


def change_table(view: ChangeView, words: Vocabulary) -> Markup:
    """Acceptance before and after by language, worst before first."""
    rows = [
        row(
            head(language(words, code)),
            est_cell(before, "ratio"),
            est_cell(after, "ratio"),
            cell(change(moved), "num"),
            cell(tag("levelled down", "down") if fallen else "", "words"),
        )
        for code, before, after, moved, fallen in view.rows()
    ]
    caption = (
        "Acceptance by language, worst before first. Changes are paired by problem; their intervals hold for all "
        "languages at once."
    )
    columns = [Column("Language"), number("Before"), number("After"), number("Change"), Column("Verdict")]
    return table(f"Change by language, {view.suite}", columns, rows, caption=caption)


def figure_words(view: SuiteView, name: str, kind: Kind) -> Markup:
    """A figure across languages as a board's cell says it, short of languages where it is."""
    short = view.shortfall(name)
    return Markup(f"{est(view.mean(name), kind)}{f' {tag(short)}' if short else ''}")


def runs_table(suite: str, views: Sequence[SuiteView], uid: str) -> Markup:
    """Local runs of one suite beside each other, in the order given."""
    columns = [
        Column("Run", "text"),
        number("Mean acceptance"),
        Column("Worst language", "number"),
        number("Unfairness U, corrected (nats²), and its noise floor"),
        number("Speed-up, worst language"),
        number("Speed-up, mean"),
        Column("Race", "text"),
        Column("Validity, worst language", "text"),
    ]
    rows = [
        row(
            head(_run_name(view)),
            _mean_cell(view, "acceptance", "ratio"),
            worst_cell(view, "acceptance", "ratio"),
            unfairness_cell(view),
            est_cell(view.lowest("speedup")[1], "times"),
            _mean_cell(view, "speedup", "times"),
            cell(Markup(f"<bdi>{escaped(view.run.report.race_verdict)}</bdi>"), "words"),
            cell(validity_words(view), "words"),
        )
        for view in views
    ]
    return table(f"Runs of {suite}", columns, rows, caption="Runs", uid=uid, css="board runs")


def _run_name(view: SuiteView) -> Markup:
    run, config = view.run, view.run.report.config
    small = f" {tag('machinery only')}" if run.small else ""
    return Markup(
        f"{link(run.page, run.name)}\n"
        f'<span class="pair"><bdi>{escaped(run.verifier)}</bdi> ← <bdi>{escaped(run.drafter)}</bdi></span>\n'
        f'<span class="pair">γ = {config.gamma}, {escaped(rule_words(config.rule))}{small}</span>'
    )


def _mean_cell(view: SuiteView, name: str, kind: Kind) -> str:
    mean = view.mean(name)
    value = "" if mean.value is None else f' data-value="{mean.value:.6g}"'
    return f'<td class="num"{value}>{figure_words(view, name, kind)}</td>'


def worst_cell(view: SuiteView, name: str, kind: Kind) -> str:
    """The language with the lowest figure, and the figure."""
    code, e = view.lowest(name)
    if not code:
        return cell(DASH)
    known = f"{escaped(view.words.language(code))} <code>{escaped(code)}</code>"
    shown = est(e, kind)
    return f'<td class="who" data-value="{e.value:.6g}"><span class="language">{known}</span> {shown}</td>'


def unfairness_cell(view: SuiteView) -> str:
    """U with its interval, its floor, and whether it says anything."""
    u, floor = view.across("unfairness"), view.suite.noise_floor
    value = "" if u.value is None else f' data-value="{u.value:.6g}"'
    shown = DASH if floor is None else figure(floor, "number")
    noise = tag("within noise") if view.within_noise() else ""
    return f'<td class="num"{value}>{est(u, "number")} <span class="floor">floor {shown}</span>{noise}</td>'


def validity_words(view: SuiteView) -> Markup:
    """The worst language of each validity column that is not 0 everywhere."""
    found = [f"{each.label} {figure(e.value, 'share')} ({code})" for each, code, e in view.validity()]
    if found:
        return Markup(f"<bdi>{escaped(', '.join(found))}</bdi>")
    return Markup("nothing to flag") if view.has(*VALIDITY) else DASH
