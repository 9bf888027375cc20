"""Escapes text that others wrote for a page, a table in Markdown or LaTeX, a spreadsheet."""

from __future__ import annotations

import html as _html
import re
import unicodedata

JOINERS = "\u200c\u200d"  # shape letters in Persian and the Indic scripts; every other format character goes
HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
FORMULA = ("=", "+", "-", "@")
_LATEX_ASCII = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    **{special: f"\\{special}" for special in "&%$#_{}"},
}
_LATEX_SIGNS = {
    **{"–": "--", "—": "---", "−": "$-$", "†": r"\textdagger{}", "²": "$^2$", "‖": r"$\|$", "…": r"\ldots{}"},
    **{"≤": r"$\leq$", "≥": r"$\geq$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "÷": r"$\div$", "ₓ": "$_x$"},
    **{"→": r"$\to$", "←": r"$\gets$", "√": r"$\surd$", "∇": r"$\nabla$", "₊": "$_+$", "₁": "$_1$", "₂": "$_2$"},
    **{"α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "ρ": r"$\rho$", "τ": r"$\tau$"},
    **{"ᾱ": r"$\bar{\alpha}$", "Σ": r"$\Sigma$", "Π": r"$\Pi$", "≈": r"$\approx$", "\u00a0": "~"},
}


def inert(text: str) -> str:
    """`text` with control, bidirectional, surrogate and private characters as U+FFFD, tabs and line ends as blanks."""
    if text.isascii() and text.isprintable():
        return text

    def safe(c: str) -> str:
        if c in "\t\n\r":
            return " "
        return "\ufffd" if unicodedata.category(c) in HARMFUL and c not in JOINERS else c

    return "".join(map(safe, text))


def html(text: str) -> str:
    """`text` inert and fit to stand between tags or in a quoted attribute."""
    return _html.escape(inert(text))


def markdown(text: str) -> str:
    """`text` inert, without tags, links or further cells: what could begin one is written as an entity."""
    plain = _html.escape(inert(text), quote=False)
    return plain.replace("\\", "&#92;").replace("|", "&#124;").replace("](", "]&#40;")


def latex(text: str) -> str:
    """`text` inert and in ASCII that every LaTeX engine sets; a letter of another script is given by its code."""
    written = "".join(map(_latex, inert(text)))
    # At the start of a table's row a bracket would be an option of the line's end before it.
    return f"{{[}}{written[1:]}" if written.startswith("[") else written


def _latex(c: str) -> str:
    if c.isascii():
        return _LATEX_ASCII.get(c, c)
    return _LATEX_SIGNS.get(c) or f"\\texttt{{U+{ord(c):04X}}}"


def spreadsheet(text: str) -> str:
    """`text` inert and, where a spreadsheet would take it for a formula, behind an apostrophe.

    Some split a line at semicolons or tabs, so that what follows one begins a cell.
    """
    plain = re.sub(r"([;\t|]\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])", r"\1'", inert(text))
    begin = unicodedata.normalize("NFKC", re.sub(r"^\s+", "", plain)[:1])
    return f"'{plain}" if begin in FORMULA else plain
