"""The pages of the site and the templates that make them.

A page that shows nothing but the figures already loaded is a template and an entry of `PAGES`: docs/howto/page.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import Environment

from fairspec_bench.schemas.report import TaskReport
from fairspec_bench.site.board import Board, Candidate
from fairspec_bench.site.documents import documents
from fairspec_bench.site.findings import language_pages
from fairspec_bench.site.labels import Labels, unique_slugs
from fairspec_bench.site.tokens import TrackTexts
from fairspec_bench.site.views import ChangeView, Run, SuiteView


@dataclass(frozen=True)
class Page:
    """A page at the top of the site, made by the template of its name.

    Attributes:
        name: the file, `languages.html`; the template in `leaderboard/` has the same name.
        title: what the navigation calls it; empty for a page that the navigation leaves out.
        needs_boards: whether it is left out of a site without tracks.
    """

    name: str
    title: str = ""
    needs_boards: bool = False


PAGES: tuple[Page, ...] = (
    Page("index.html", "Board"),
    Page("languages.html", "Languages", needs_boards=True),
    Page("compare.html", "Compare", needs_boards=True),
    Page("methodology.html", "Methodology"),
    Page("rules.html", "Rules"),
    Page("submit.html", "Submit"),
    Page("data.html", "Data"),
    Page("archive.html", needs_boards=True),
    Page("cite.html"),
)
"""The pages at the top, in the order of the navigation."""


class Pages:
    """Renders every page, by its relative path."""

    def __init__(self, templates: Environment, boards: Sequence[Board], labels: Labels) -> None:
        self.templates, self.boards, self.labels = templates, boards, labels
        codes = sorted({task.language for board in boards for c in board.candidates for task in _tasks(c)})
        slugs = unique_slugs(codes)
        self.languages = {code: f"languages/{slug}.html" for code, slug in zip(codes, slugs, strict=True)}
        self.pairs = {
            board.slug: {(a.slug, b.slug): f"compare/{b.slug}--{a.slug}.html" for a, b in board.pairs}
            for board in boards
        }
        self.language_pages = language_pages(boards, labels, self.languages)
        self.viewers = {board.slug: list(TrackTexts(board).viewers()) for board in boards}

    def page(self, template: str, path: str, /, **values: object) -> str:
        """The page at `path` by its template, which sees the `path` and the way from it to the top, `root`."""
        root = "../" * path.count("/")
        return self.templates.get_template(template).render(**{"path": path, "root": root, **values})

    def top(self, **values: object) -> Iterator[tuple[str, str]]:
        """The pages of `PAGES` and the documents; `values` are what their templates use besides the boards."""
        written = {document.page: document for document in documents()}
        for page in PAGES:
            if page.name not in written and (self.boards or not page.needs_boards):
                yield page.name, self.page(page.name, page.name, pages=self, **values)
        for name, document in written.items():
            yield name, self.page("document.html", name, document=document)

    def runs(self, runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
        for run in runs:
            views = [SuiteView(run, suite, self.labels) for suite in run.report.suites]
            yield run.page, self.page("run.html", run.page, run=run, views=views)

    def of_boards(self) -> Iterator[tuple[str, str]]:
        """Tracks, submissions, pairs and languages."""
        for board in self.boards:
            viewers = self.viewers[board.slug]
            yield board.page, self.page("track.html", board.page, board=board, pages=self.languages, viewers=viewers)
            for viewer in viewers:
                others = [each for each in viewers if each.suite == viewer.suite]
                yield (
                    viewer.page,
                    self.page("tokens.html", viewer.page, viewer=viewer, others=others, hrefs=self.languages),
                )
            yield from self._submissions(board)
            yield from self._pairs(board)
        for page in self.language_pages:
            yield page.page, self.page("language.html", page.page, language=page, viewers=self.viewers)

    def _submissions(self, board: Board) -> Iterator[tuple[str, str]]:
        hrefs = {code: f"../{page}" for code, page in self.languages.items()}
        near = self._near(board)
        for each in board.candidates:
            yield (
                each.page,
                self.page(
                    "submission.html",
                    each.page,
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
        """Before and after of a fine-tuned drafter, suite by suite."""
        parent = board.parent(candidate)
        if parent is None:
            return []
        return [
            ChangeView(parent.views[each.suite], candidate.views[each.suite], each)
            for each in board.compared(parent, candidate)
        ]

    def _pairs(self, board: Board) -> Iterator[tuple[str, str]]:
        for first, second in board.pairs:
            values = {"first": first, "second": second, "compared": board.compared(first, second)}
            page = self.pairs[board.slug][first.slug, second.slug]
            yield page, self.page("comparison.html", page, board=board, pages=self.languages, **values)


def _tasks(candidate: Candidate) -> Iterator[TaskReport]:
    for view in candidate.views.values():
        yield from view.suite.tasks
