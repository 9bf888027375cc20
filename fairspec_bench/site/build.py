"""Run folders and checked submissions in, a static site out.

Knows where templates lie and which pages there are. Knows nothing of what a figure means (`views`, `board`) or how it
is drawn, and needs no torch and no network.

Everything is rendered in memory before a byte is written, so an error leaves the old site as it was. The same reports
give the same bytes. Text of others reaches a page escaped and without control characters; file names are slugs.
"""

from __future__ import annotations

import base64
import gc
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fairspec_bench.entries import Verified
from fairspec_bench.measure.escape import inert
from fairspec_bench.records import Report, read_record
from fairspec_bench.site import (
    audit_tables,
    board_plots,
    board_tables,
    cells,
    pair_tables,
    sweep_tables,
    tables,
    views,
    words,
)
from fairspec_bench.site.board import Board, Candidate, Entry, unranked_reason
from fairspec_bench.site.board_pages import BoardPages
from fairspec_bench.site.changes import Changed, change_views
from fairspec_bench.site.documents import Document, documents
from fairspec_bench.site.downloads import COLUMNS, SCHEMAS, board_csv, board_json, schemas
from fairspec_bench.site.names import unique_slugs
from fairspec_bench.site.parts import NO_DATA
from fairspec_bench.site.publish import MARKER, SiteError, publish
from fairspec_bench.site.views import Run, SuiteView
from fairspec_bench.site.words import Vocabulary
from fairspec_bench.suite.tracks import Track

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
ASSETS = ("style.css", "site.js")


def build_site(
    runs: Sequence[Path],
    out: Path,
    changes: Sequence[Changed] = (),
    *,
    tracks: Sequence[Track] = (),
    entries: Sequence[Entry] = (),
) -> Path:
    """Render local runs and the boards of these tracks into `out`, replaced whole, and return its first page.

    Raises `RecordError` for a folder without a readable report, `SiteError` if `out` holds anything but an earlier site
    or cannot be written. The site that was there stays until the new one is complete.
    """
    loaded = load_runs(runs)
    folders = {folder.resolve(): run.slug for folder, run in zip(runs, loaded, strict=True)}
    for each in (path for change in changes for path in (change.before, change.after)):
        if each.resolve() not in folders:
            raise SiteError(f"{each}: a change is shown between runs of the board. Name it among the runs too.")
    with _no_collection():
        files = render(loaded, changes, folders, tracks=tracks, entries=entries)
    publish(files, out)
    return out / "index.html"


@contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage is not looked for: among the records of a thousand submissions that takes a tenth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def load_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """The reports of these folders, each under a slug of its own. Raises `RecordError`."""
    names = [inert(folder.resolve().name) for folder in folders]
    reports = [read_record(folder / "report.json", Report) for folder in folders]
    return tuple(map(Run, names, unique_slugs(names), reports))


def make_boards(tracks: Sequence[Track], entries: Sequence[Entry], words: Vocabulary) -> tuple[list[Board], list[str]]:
    """A board for each track, and the slug of each entry. Raises `SiteError` for an entry that has no track here."""
    slugs = unique_slugs(entry.slug for entry in entries)
    if len({entry.slug for entry in entries}) < len(entries):
        raise SiteError("entries: two of them have one slug. Give each submission once.")
    by_name = {track.name: track for track in tracks}
    members: dict[str, list[Candidate]] = {track.name: [] for track in tracks}
    for entry, slug in zip(entries, slugs, strict=True):
        if entry.verified is None:
            continue
        track = by_name.get(entry.verified.entry.track)
        if track is None:
            raise SiteError(f"{entry.slug}: its track {entry.verified.entry.track!r} is not among those of the site.")
        members[track.name].append(_candidate(entry, entry.verified, slug, track, words))
    named = unique_slugs(track.name for track in tracks)
    return [Board(track, slug, members[track.name]) for track, slug in zip(tracks, named, strict=True)], slugs


def _candidate(entry: Entry, verified: Verified, slug: str, track: Track, words: Vocabulary) -> Candidate:
    run = Run(verified.entry.name, slug, verified.report)
    views = {suite.suite: SuiteView(run, suite, words) for suite in verified.report.suites}
    return Candidate(entry, verified, slug, unranked_reason(verified, entry.audit, track), run, views)


# --------------------------------------------------------------------------- pages


def render(
    runs: Sequence[Run],
    changes: Sequence[Changed] = (),
    folders: Mapping[Path, str] | None = None,
    *,
    tracks: Sequence[Track] = (),
    entries: Sequence[Entry] = (),
) -> dict[str, str]:
    """Every file of the site by its relative path; `folders` gives the slug of each run folder that `changes` name."""
    folder = template_folder()
    vocabulary = Vocabulary.parse((folder / "measures.json").read_bytes(), (folder / "languages.json").read_bytes())
    ordered = sorted(entries, key=lambda entry: entry.slug)
    boards, slugs = make_boards(sorted(tracks, key=lambda track: track.name), ordered, vocabulary)
    pages = environment(folder, vocabulary)
    pages.globals["boards"] = boards
    suites = views.board(runs, vocabulary)
    every = [view for each in suites.values() for view in each]
    changed = [view for change in changes for view in change_views(change, every, folders or {})]
    refused = [
        (entry, f"submissions/{slug}.html")
        for entry, slug in zip(ordered, slugs, strict=True)
        if entry.verified is None
    ]
    files = {name: (folder / name).read_text(encoding="utf-8") for name in ASSETS}
    files |= {
        "index.html": _page(pages, "index.html", suites=suites, runs=runs, changed=changed, refused=refused),
        "methodology.html": _page(pages, "methodology.html", measures=vocabulary.measures.values()),
        "data.html": _page(pages, "data.html", columns=COLUMNS, schemas=list(SCHEMAS)),
        "cite.html": _page(pages, "cite.html"),
        "404.html": _missing(pages, files["style.css"]),
        "board.json": board_json(runs, boards, [entry for entry, _ in refused]),
        "board.csv": board_csv(runs, boards),
        MARKER: "",
        **schemas(),
    }
    files |= {each.page: _document(pages, each) for each in documents()}
    for run in runs:
        shown = [SuiteView(run, suite, vocabulary) for suite in run.report.suites]
        files[run.page] = _page(pages, "run.html", root="../", run=run, views=shown)
    if boards or entries:
        files |= BoardPages(pages, boards, vocabulary).render()
        files |= {page: _page(pages, "refused.html", root="../", entry=entry) for entry, page in refused}
    return files


def _page(pages: Environment, template: str, *, root: str = "", **given: object) -> str:
    return pages.get_template(template).render(root=root, **given)


def _missing(pages: Environment, css: str) -> str:
    """The page for a missing address, which carries its style: it cannot know where the file lies."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return _page(pages, "404.html", css=Markup(css), digest=digest)


def _document(pages: Environment, document: Document) -> str:
    return _page(pages, "document.html", document=document)


def template_folder() -> Path:
    """`leaderboard/` of a checkout, or its copy inside an installed package. Raises `SiteError`."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_leaderboard", package.parent / "leaderboard"):
        if (folder / "base.html").is_file():
            return folder
    raise SiteError(f"{package}: the page templates are missing. Install fairspec-bench again.")


def environment(folder: Path, vocabulary: Vocabulary) -> Environment:
    """Templates with escaping always on; plain text also loses its control characters, `None` is a dash."""
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.globals.update(
        policy=POLICY,
        words=vocabulary,
        boards=[],
        cells=cells,
        figure=words.figure,
        rule_words=words.rule_words,
        tables=tables,
        audit_tables=audit_tables,
        board_tables=board_tables,
        pair_tables=pair_tables,
        sweep_tables=sweep_tables,
        board_plots=board_plots,
        overview_plot=views.overview_plot,
        validity=views.VALIDITY,
    )
    return made


def _finalize(value: object) -> object:
    if value is None:
        return NO_DATA
    return inert(value) if type(value) is str else value
