"""A page with nothing on it but a table that `site.js` works on, in the markup that the site's own pages use.

Knows that markup, and rows whose right order under any sort can be told by eye. Knows nothing of reports.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

LEADERBOARD = Path(__file__).resolve().parents[2] / "leaderboard"
Row = tuple[str, str, float | None, float | None]  # name, note, and two figures; None is no data

# As the server gives them: by the first figure, descending. Equal figures and names in capitals test the order.
ROWS: tuple[Row, ...] = (
    ("oak 10", "Qwen drafter", 0.9, 10),
    ("Birch", "tall", 0.8, None),
    ("oak 9", "qwen small", 0.7, 1),
    ("ash", "ＱＷＥＮ wide", 0.7, 2.25),
    ("élan", "tall", 0.7, 2.5),
    ("cedar", "<img src=x onerror=alert(1)>", None, -1),
)

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"


def table(rows: Sequence[Row], name: str = "trees") -> str:
    """A table with the four columns of a row, presorted by the third."""
    lines = "\n".join(
        f'<tr><th scope="row">{escape(title)}</th><td>{escape(note)}</td>{_figure(first)}{_figure(second)}</tr>'
        for title, note, first, second in rows
    )
    return f"""<div class="scroll" role="region" tabindex="0" aria-label="Region of {name}">
<table id="{name}" data-interactive>
<caption>Table of {name}</caption>
<thead>
<tr><th scope="col" data-sort="text">Name</th><th scope="col" data-sort="text">Note</th>
<th scope="col" class="num" data-sort="number" aria-sort="descending">First</th>
<th scope="col" class="num" data-sort="number">Second</th></tr>
</thead>
<tbody>
{lines}
</tbody>
</table>
</div>"""


def _figure(value: float | None) -> str:
    return '<td class="num">–</td>' if value is None else f'<td class="num" data-value="{value}">{value:.2f}</td>'


def write_page(folder: Path, *tables: str) -> Path:
    """`index.html` with these tables, and beside it the real style and script."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("style.css", "site.js"):
        shutil.copy(LEADERBOARD / name, folder / name)
    body = "\n".join(tables)
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tables</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
<script src="site.js" defer></script>
</head>
<body>
<main class="wide">
<h1>Tables</h1>
<p><a href="#below">Below</a></p>
{body}
<p class="tall" id="below">{"<br>" * 80}</p>
</main>
</body>
</html>
"""
    (folder / "index.html").write_text(page, encoding="utf-8")
    return folder
