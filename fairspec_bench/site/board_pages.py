"""The pages of tracks: boards, submissions, languages, pairs.

Knows boards and which template shows what of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from jinja2 import Environment

from fairspec_bench.records import TaskReport
from fairspec_bench.site.board import ALL_PAIRS, NEIGHBOURS, Board, Candidate
from fairspec_bench.site.by_language import LanguagePage, language_pages
from fairspec_bench.site.changes import ChangeView
from fairspec_bench.site.forked import forked
from fairspec_bench.site.names import unique_slugs
from fairspec_bench.site.words import Vocabulary


class BoardPages:
    """Every page that follows from the boards, by its relative path."""

    def __init__(self, templates: Environment, boards: Sequence[Board], words: Vocabulary) -> None:
        self.templates, self.boards, self.words = templates, boards, words
        codes = sorted({task.language for board in boards for c in board.candidates for task in _tasks(c)})
        slugs = unique_slugs(codes)
        self.languages = {code: f"languages/{slug}.html" for code, slug in zip(codes, slugs, strict=True)}
        self.pairs = {
            board.slug: {(a.slug, b.slug): f"compare/{b.slug}--{a.slug}.html" for a, b in board.pairs}
            for board in boards
        }

    def render(self) -> dict[str, str]:
        files = dict(self._boards())
        for board in self.boards:
            files |= forked(partial(self._of, board), len(board.candidates))
        pages = language_pages(self.boards, self.words, self.languages)
        files["languages.html"] = self._page("languages.html", languages=pages)
        files |= {page.page: self._language(page) for page in pages}
        files["compare.html"] = self._page("compare.html", pairs=self.pairs, all_pairs=ALL_PAIRS, neighbours=NEIGHBOURS)
        files["archive.html"] = self._page("archive.html")
        return files

    def _page(self, template: str, root: str = "", **given: object) -> str:
        return self.templates.get_template(template).render(root=root, **given)

    def _boards(self) -> Iterator[tuple[str, str]]:
        for board in self.boards:
            yield board.page, self._page("track.html", "../", board=board, pages=self.languages)

    def _of(self, board: Board, part: int, of: int) -> dict[str, str]:
        """Every `of`-th page of the board's submissions and pairs, from the `part`-th on."""
        candidates, pairs = board.candidates[part::of], board.pairs[part::of]
        return dict(self._submissions(board, candidates)) | dict(self._pairs(board, pairs))

    def _submissions(self, board: Board, candidates: Sequence[Candidate]) -> Iterator[tuple[str, str]]:
        hrefs = {code: f"../{page}" for code, page in self.languages.items()}
        near = self._near(board)
        for each in candidates:
            yield (
                each.page,
                self._page(
                    "submission.html",
                    "../",
                    board=board,
                    candidate=each,
                    hrefs=hrefs,
                    changes=self._changes(board, each),
                    parent=board.parent(each),
                    near=near.get(each.slug, []),
                ),
            )

    def _near(self, board: Board) -> dict[str, list[tuple[Candidate, str]]]:
        """For each submission those it is compared with, and the pages."""
        found: dict[str, list[tuple[Candidate, str]]] = {}
        for first, second in board.pairs:
            page = self.pairs[board.slug][first.slug, second.slug]
            found.setdefault(first.slug, []).append((second, page))
            found.setdefault(second.slug, []).append((first, page))
        return found

    def _changes(self, board: Board, candidate: Candidate) -> list[ChangeView]:
        """Before and after of a mended drafter, suite by suite."""
        parent = board.parent(candidate)
        if parent is None:
            return []
        return [
            ChangeView(parent.views[each.suite], candidate.views[each.suite], each)
            for each in board.compared(parent, candidate)
        ]

    def _pairs(self, board: Board, pairs: Sequence[tuple[Candidate, Candidate]]) -> Iterator[tuple[str, str]]:
        for first, second in pairs:
            page = self.pairs[board.slug][first.slug, second.slug]
            compared = board.compared(first, second)
            yield (
                page,
                self._page(
                    "comparison.html",
                    "../",
                    board=board,
                    first=first,
                    second=second,
                    compared=compared,
                    pages=self.languages,
                ),
            )

    def _language(self, page: LanguagePage) -> str:
        return self._page("language.html", "../", language=page)


def _tasks(candidate: Candidate) -> Iterator[TaskReport]:
    for view in candidate.views.values():
        yield from view.suite.tasks
