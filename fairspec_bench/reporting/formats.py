"""Tables and lines of a report as plain text, Markdown, HTML and LaTeX, every text escaped for its format."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table

from fairspec_bench.reporting import escape
from fairspec_bench.reporting.tables import markdown_table

WIDTH = 160
TABLE = r"""\begin{table}[htbp]
\centering
\caption{%s}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%%
\begin{tabular}{%s}
\toprule
%s
\bottomrule
\end{tabular}}
\end{table}
"""
MINUS = re.compile(r"(?<![^\s\[])-(?=\d)")


def plain(shown: RenderableType) -> str:
    """As a terminal of 160 columns shows it."""
    text = io.StringIO()
    Console(file=text, width=WIDTH).print(shown)
    return text.getvalue()


def markdown(shown: RenderableType) -> str:
    """As Markdown, for a page kept beside its run."""
    return "\n".join(_markdown(part) for part in _parts(shown))


def _markdown(part: RenderableType) -> str:
    if not isinstance(part, Table):
        return f"{escape.markdown(str(part))}\n"
    head, *body = _texts(part)
    return f"## {escape.markdown(str(part.title))}\n\n{markdown_table(head, body)}\n"


def html(shown: RenderableType) -> str:
    """As HTML for a notebook: tables and paragraphs that need no style sheet and hold no script."""
    return f"<div>\n{''.join(map(_html, _parts(shown)))}</div>\n"


def _html(part: RenderableType) -> str:
    if not isinstance(part, Table):
        return f"<p>{escape.html(str(part))}</p>\n"
    head, *body = _texts(part)
    sides = [f'style="text-align: {column.justify}"' for column in part.columns]

    def row(texts: list[str], first: str, other: str) -> str:
        cells = zip([first, *[other] * (len(texts) - 1)], sides, map(escape.html, texts), strict=True)
        return f"<tr>{''.join(f'<{name} {side}>{text}</{name[:2]}>' for name, side, text in cells)}</tr>\n"

    caption = f'<caption style="text-align: left">{escape.html(str(part.title))}</caption>'
    headings = row(head, 'th scope="col"', 'th scope="col"')
    rows = "".join(row(texts, 'th scope="row"', "td") for texts in body)
    return f"<table>\n{caption}\n<thead>\n{headings}</thead>\n<tbody>\n{rows}</tbody>\n</table>\n"


def latex(shown: RenderableType) -> str:
    """As LaTeX for a document that loads `booktabs` and `graphicx`, in ASCII; a table wider than the page is shrunk."""
    return "\n".join(["% Needs \\usepackage{booktabs,graphicx}.", *(_latex(part) for part in _parts(shown))])


def _latex(part: RenderableType) -> str:
    if not isinstance(part, Table):
        return f"\\noindent {_latex_text(str(part))}\\par\n"
    head, *body = (" & ".join(map(_latex_text, row)) + r" \\" for row in _texts(part))
    sides = "".join(str(column.justify)[0] for column in part.columns)
    return TABLE % (_latex_text(str(part.title)), sides, "\n".join([head, r"\midrule", *body]))


def _latex_text(text: str) -> str:
    return MINUS.sub("$-$", escape.latex(text))


def _parts(shown: RenderableType) -> Iterator[RenderableType]:
    if isinstance(shown, Group):
        for part in shown.renderables:
            yield from _parts(part)
    else:
        yield shown


def _texts(table: Table) -> Iterator[list[str]]:
    """The table's headings, then its rows."""
    yield [str(column.header) for column in table.columns]
    yield from map(list, zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True))
