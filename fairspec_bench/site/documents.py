"""The documents of the repository as pages: Markdown in, harmless HTML out.

A link to another document leads to its page; a link to a file that the site does not have is plain text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from fairspec_bench.reporting.escape import html as escaped
from fairspec_bench.site.publish import SiteError

PAGES: Mapping[str, str] = {
    "METRICS.md": "metrics.html",
    "SUBMITTING.md": "submit.html",
    "REPRODUCING.md": "reproduce.html",
    "RULES.md": "rules.html",
    "CHANGELOG.md": "changelog.html",
    "GLOSSARY.md": "glossary.html",
}


@dataclass(frozen=True)
class Document:
    """A page of text: its title, its address, its headings of the second order, its HTML."""

    title: str
    page: str
    headings: tuple[tuple[str, str], ...]
    body: Markup


def documents() -> tuple[Document, ...]:
    """Every document as a page. Raises `SiteError` for one that is missing."""
    sources = {name: _read(name) for name in PAGES}
    parsed = {name: _parse(text) for name, text in sources.items()}
    ids = {name: {str(t.attrGet("id")) for t in tokens if t.type == "heading_open"} for name, tokens in parsed.items()}
    return tuple(_document(name, tokens, ids) for name, tokens in parsed.items())


def terms() -> dict[str, str]:
    """What the glossary says of each of its terms, as plain text without the places in the code."""
    found: dict[str, str] = {}
    for item in re.findall(r"^- (.+?)(?=^-|^#|\Z)", _read("GLOSSARY.md"), re.M | re.S):
        said = re.sub(r"\[METRICS\]\([^)]*\)( ·)?|`fairspec_bench/[^`]*`,?|`", "", " ".join(item.split()))
        said = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", said).replace("*", "\0").replace("\0\0", "**").replace("\0", "")
        for name, meaning in re.findall(r"\*\*([^*]+)\*\*[^*:]*: ([^*]+)", said):
            found[name] = meaning.strip(" .;,") + "."
    return found


def _read(name: str) -> str:
    package = Path(__file__).resolve().parents[1]
    for path in (package / "_docs" / name, package.parent / "docs" / name, package.parent / name):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise SiteError(f"{package}: the document {name} is missing. Install fairspec-bench again.")


def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _parse(text: str) -> list[Token]:
    """The tokens, each heading with an id of its own."""
    tokens = _markdown().parse(text)
    taken: set[str] = set()
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            plain = re.sub(r"[^\w]+", "-", _words(tokens[place + 1]).lower()).strip("-") or "section"
            slug = next(s for n in range(1, 10_000) if (s := plain if n == 1 else f"{plain}-{n}") not in taken)
            taken.add(slug)
            token.attrSet("id", slug)
    return tokens


def _words(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [])


def _document(name: str, tokens: list[Token], ids: Mapping[str, set[str]]) -> Document:
    title, headings = name, []
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h1":
            title = _words(tokens[place + 1])
        if token.type == "heading_open" and token.tag == "h2":
            headings.append((str(token.attrGet("id")), _words(tokens[place + 1])))
        if token.children:
            token.children = _links(token.children, name, ids)
        if (aligned := token.attrs.pop("style", None)) == "text-align:right":
            token.attrSet("class", "num")
        elif aligned == "text-align:center":
            token.attrSet("class", "middle")
    return Document(title, PAGES[name], tuple(headings), _render(tokens))


def _render(tokens: Sequence[Token]) -> Markup:
    """The HTML; each table in a region that scrolls, named by the heading above it."""
    markdown = _markdown()
    above = "Table"
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            above = _words(tokens[place + 1])
        elif token.type == "table_open":
            token.meta["label"] = above

    def opened(this: Any, all_tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        label = escaped(all_tokens[place].meta["label"])
        return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>\n'

    def closed(this: Any, all_tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        return "</table></div>\n"

    def block(this: Any, all_tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        return f'<pre tabindex="0"><code>{escape(all_tokens[place].content)}</code></pre>\n'

    markdown.add_render_rule("fence", block)
    markdown.add_render_rule("code_block", block)
    markdown.add_render_rule("table_open", opened)
    markdown.add_render_rule("table_close", closed)
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))


def _links(children: Sequence[Token], name: str, ids: Mapping[str, set[str]]) -> list[Token]:
    """The inline tokens with links that hold; pictures become their words."""
    kept: list[Token] = []
    open_links: list[bool] = []
    for token in children:
        if token.type == "image":
            kept.append(Token("text", "", 0, content=token.content))
        elif token.type == "link_open":
            target = _target(str(token.attrGet("href") or ""), name, ids)
            open_links.append(bool(target))
            if target:
                token.attrSet("href", target)
                if target.startswith("https://"):
                    token.attrSet("rel", "noopener noreferrer")
                kept.append(token)
        elif token.type != "link_close" or open_links.pop():
            kept.append(token)
    return kept


def _target(href: str, name: str, ids: Mapping[str, set[str]]) -> str:
    """Where a link leads on the site; empty where nowhere."""
    if href.startswith("https://"):
        return href
    path, _, fragment = href.partition("#")
    document = path.rpartition("/")[2] if path else name
    known = document in PAGES and path in ("", document, f"docs/{document}", f"../{document}")
    if not known:
        return ""
    there = unquote(fragment)
    page = "" if document == name else PAGES[document]
    return f"{page}#{there}" if there in ids[document] else page
