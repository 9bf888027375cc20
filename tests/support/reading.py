"""Pages as the tests read them: elements, words, rows; what is inert; where links lead."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> javascript:alert(1) \u202egnp.exe\u2066 {{ 7*7 }}"


class Page(HTMLParser):
    """A page as elements, words and rows of cells; an element closed out of turn is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.rows: list[list[str]] = []
        self.headings: list[int] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of turn at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.elements if attribute in attrs]

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def table(self, uid: str) -> str:
        """The HTML of the table with that id."""
        found = re.search(rf'<table id="{uid}".*?</table>', self.html, re.S)
        assert found, f"no table {uid}"
        return found[0]


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def pages(out: Path) -> dict[str, Page]:
    return {str(p.relative_to(out)): read(p) for p in sorted(out.rglob("*.html"))}


def tree(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def assert_inert(page: Page) -> None:
    """Nothing in the page runs, loads or reorders, but the site's own style and script."""
    assert page.tags().isdisjoint({"img", "iframe", "object", "embed", "form", "base"})
    for style in re.findall(r"<style>(.*?)</style>", page.html, re.S):
        assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in page.html
    for tag, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on") or name == "style"], (tag, attrs)
        if tag == "script":
            assert re.fullmatch(r"(\.\./)?site\.js", attrs["src"] or ""), attrs
        else:
            assert "src" not in attrs, (tag, attrs)
        href = attrs.get("href") or ""
        assert not re.match(r"\s*(javascript|data:text|http:|//)", href, re.I), (tag, attrs)
        if href.startswith("https:") and attrs.get("rel") != "canonical":
            assert tag == "a", (tag, attrs)
            assert "noopener" in (attrs.get("rel") or ""), (tag, attrs)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", page.html) in ([], [""])
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", page.html)


def assert_all_inert(out: Path) -> None:
    for page in pages(out).values():
        assert_inert(page)


def assert_links_hold(out: Path) -> int:
    """Every link leads to a file of the site and every fragment to an id there; → how many there are."""
    found = pages(out)
    ids = {name: set(page.values("id")) for name, page in found.items()}
    count = 0
    for name, page in found.items():
        for href in page.values("href") + page.values("src"):
            if name == "404.html" or href.startswith(("data:", "https://")):
                continue
            path, _, fragment = href.partition("#")
            target = ((out / name).parent / path).resolve() if path else (out / name).resolve()
            assert target.is_relative_to(out.resolve()), (name, href)
            assert target.is_file(), (name, href)
            if fragment:
                assert fragment in ids[str(target.relative_to(out.resolve()))], (name, href)
            count += 1
    return count


def assert_well_made(name: str, page: Page) -> None:
    """Landmarks, one first heading, no level skipped, unique ids, named pictures, captioned or named tables."""
    tags = [tag for tag, _ in page.elements]
    assert [tags.count(tag) for tag in ("main", "header", "footer", "h1", "title")][:4] == [1, 1, 1, 1], name
    assert page.headings[0] == 1, name
    steps = zip(page.headings, page.headings[1:], strict=False)
    assert all(after <= before + 1 for before, after in steps), (name, page.headings)
    ids = page.values("id")
    assert len(ids) == len(set(ids)), name
    assert '<html lang="en">' in page.html, name
    assert "Skip to content" in page.words, name
    for tag, attrs in page.elements:
        if tag == "svg" and attrs.get("class") == "plot":
            assert attrs["role"] == "img"
            title, desc = (attrs["aria-labelledby"] or "").split()
            assert {title, desc} <= set(ids), name
        if attrs.get("class") == "scroll":
            assert attrs.get("tabindex") == "0", name
            assert attrs.get("role") == "region", name
            assert attrs.get("aria-label"), name
    figures = re.findall(r"<figure.*?</figure>", page.html, re.S)
    assert all("<table" in f and "<title" in f and "<desc" in f for f in figures), name
    assert all(
        re.search(r'class="scroll"[^>]*>\s*$', page.html[: m.start()]) for m in re.finditer("<table", page.html)
    ), name
