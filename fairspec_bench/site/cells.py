"""Tables as the pages and their script expect them, put together in Python where templates would be slow.

Knows figures, languages and markup. The script (`leaderboard/site.js`) asks of a table that it may sort: an id and
`data-interactive`, `data-sort` on each heading, `data-value` on each numeric cell that has data, one body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fairspec_bench.records import Estimate
from fairspec_bench.site.parts import escaped
from fairspec_bench.site.words import Kind, Vocabulary, bare, figure, signed

HTTPS = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]{1,5})?(/[A-Za-z0-9._~%/?=&#+-]*)?")
DASH = Markup('<abbr class="none" title="no data: not measured, or not defined for this drafter">–</abbr>')


@dataclass(frozen=True)
class Column:
    """A heading; `sort` is `text` or `number`, nothing where sorting has no sense."""

    heading: str | Markup
    sort: str = ""
    css: str = ""


def number(heading: str | Markup, css: str = "") -> Column:
    return Column(heading, "number", f"num {css}".strip())


def table(
    label: str,
    columns: Sequence[Column],
    rows: Iterable[str],
    *,
    caption: str | Markup = "",
    uid: str = "",
    order: tuple[int, str] | None = None,
    css: str = "",
) -> Markup:
    """A table in a region that scrolls; with a `uid` the script may sort it. `order`: the presorted column, and how."""
    heads = []
    for place, column in enumerate(columns):
        extra = f' data-sort="{column.sort}"' if column.sort and uid else ""
        extra += f' aria-sort="{order[1]}"' if order is not None and order[0] == place else ""
        style = f' class="{column.css}"' if column.css else ""
        heads.append(f'<th scope="col"{style}{extra}>{markup(column.heading)}</th>')
    named = f' id="{uid}" data-interactive' if uid else ""
    style = f' class="{css}"' if css else ""
    above = f"<caption><span>{markup(caption)}</span></caption>\n" if caption else ""
    return Markup(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(label)}">\n<table{named}{style}>\n{above}'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n</table>\n</div>"
    )


def folded(label: str, *columns: Column, rows: Iterable[str]) -> Markup:
    """The figures behind a picture, shown on demand; `label` must be the page's own."""
    inner = table(label, columns, rows)
    return Markup(f'<details class="data"><summary>The figures</summary>\n{inner}\n</details>')


def markup(text: str) -> str:
    """Markup as it is, anything else escaped."""
    return text if isinstance(text, Markup) else escaped(text)


def row(*cells: str) -> str:
    """A row of finished cells."""
    return f"<tr>{''.join(cells)}</tr>\n"


def head(content: str | Markup) -> str:
    """The cell that names a row."""
    return f'<th scope="row">{markup(content)}</th>'


def cell(content: str | Markup, css: str = "") -> str:
    return f'<td class="{css}">{markup(content)}</td>' if css else f"<td>{markup(content)}</td>"


def est(e: Estimate, kind: Kind) -> Markup:
    """A figure and its interval, or the dash of no data."""
    return Markup(_est(e, kind))


def _est(e: Estimate, kind: Kind) -> str:
    if e.value is None:
        return DASH
    words = f'<span class="value">{figure(e.value, kind)}</span>'
    if e.low is None or e.high is None:
        return words
    return f'{words} <span class="ci">[{bare(e.low, kind)}, {bare(e.high, kind)}]</span>'


def est_cell(e: Estimate, kind: Kind, css: str = "", after: str = "") -> str:
    """A numeric cell that the script can sort by; `after` is finished markup that follows the figure."""
    value = "" if e.value is None else f' data-value="{e.value:.6g}"'
    return f'<td class="{f"num {css}" if css else "num"}"{value}>{_est(e, kind)}{after}</td>'


def change(e: Estimate) -> Markup:
    """A difference with its sign and interval."""
    if e.value is None:
        return DASH
    words = f'<span class="value">{signed(e.value)}</span>'
    if e.low is None or e.high is None:
        return Markup(words)
    return Markup(f'{words} <span class="ci">[{signed(e.low)}, {signed(e.high)}]</span>')


def change_cell(e: Estimate, css: str = "") -> str:
    value = "" if e.value is None else f' data-value="{e.value:.6g}"'
    return f'<td class="{f"num {css}" if css else "num"}"{value}>{change(e)}</td>'


def language(words: Vocabulary, code: str, href: str = "") -> Markup:
    """A language by its English name, its own in its own script, and its code."""
    known = words.languages.get(code)
    if known is None:
        name = f"<bdi>{escaped(code)}</bdi>"
        return Markup(f'<a href="{escaped(href)}">{name}</a>' if href else name)
    english, own = known
    name = f'<a href="{escaped(href)}">{escaped(english)}</a>' if href else escaped(english)
    native = f' <bdi class="own" lang="{escaped(code)}">{escaped(own)}</bdi>' if own != english else ""
    return Markup(f'<span class="language">{name}{native} <code>{escaped(code)}</code></span>')


def tag(text: str, css: str = "") -> Markup:
    return Markup(f'<span class="{f"tag {css}" if css else "tag"}">{escaped(text)}</span>')


def link(href: str, text: str) -> Markup:
    """A link of the site to something that others named."""
    return Markup(f'<a href="{escaped(href)}"><bdi>{escaped(text)}</bdi></a>')


def outside(url: str) -> Markup:
    """An address outside the site, as a link if it is plain https, else as text."""
    if HTTPS.fullmatch(url) is None:
        return Markup(f"<bdi>{escaped(url)}</bdi>")
    return Markup(f'<a href="{escaped(url)}" rel="nofollow noopener noreferrer"><bdi>{escaped(url)}</bdi></a>')
