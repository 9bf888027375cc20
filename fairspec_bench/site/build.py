"""The board as a static site: run folders and checked submissions in, a folder of pages out. No torch and no network.

Everything is rendered in memory before a byte is written, so that an error leaves the old site as it was. The same
reports give the same bytes. Text of others reaches a page escaped and without control characters; file names are slugs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fairspec_bench.metrics.advice import summaries
from fairspec_bench.metrics.catalogue import glossary
from fairspec_bench.metrics.sweep import payoff_words
from fairspec_bench.metrics.validity import SHARES, is_above_tolerated
from fairspec_bench.reporting.escape import inert
from fairspec_bench.reporting.svg import NO_DATA
from fairspec_bench.schemas.io import read_record
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.report import Estimate, Report
from fairspec_bench.schemas.submission import Verified
from fairspec_bench.scoring.report import make_report
from fairspec_bench.scoring.run_folder import REPORT, RunFolder
from fairspec_bench.site import findings, labels, stories, views
from fairspec_bench.site.address import NOWHERE, Address
from fairspec_bench.site.board import NEIGHBOURS, Board, Candidate, Entry, unranked_reason
from fairspec_bench.site.documents import terms
from fairspec_bench.site.downloads import COLUMNS, LICENCE, SCHEMAS, board_csv, board_json, schemas
from fairspec_bench.site.labels import NOTHING, Labels, unique_slugs
from fairspec_bench.site.pages import PAGES, Pages
from fairspec_bench.site.publish import MARKER, SiteError, publish
from fairspec_bench.site.sharing import badge_words, badges, bibtex, croissant, events
from fairspec_bench.site.views import Run, RunChange, SuiteView, change_views
from fairspec_bench.submissions.schema import skeleton
from fairspec_bench.suites.tracks import Track

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
ASSETS = ("style.css", "site.js")
FUNCTIONS: tuple[Callable[..., object], ...] = (
    labels.figure,
    labels.bare,
    labels.signed,
    labels.span,
    labels.sampling_words,
    labels.is_web_address,
    labels.kind_title,
    summaries,
    labels.timer_words,
    payoff_words,
    is_above_tolerated,
    views.overview_plot,
    badge_words,
    bibtex,
)
"""What every template can call by name, besides `findings`."""


def build_site(
    runs: Sequence[Path],
    out: Path,
    changes: Sequence[RunChange] = (),
    *,
    tracks: Sequence[Track] = (),
    entries: Sequence[Entry] = (),
    address: Address = NOWHERE,
) -> Path:
    """Render local runs and the boards of these tracks into `out`, replaced whole, and return its first page.

    `address` is where the site will be. Raises `RecordError` for a folder without a readable report, `SiteError` if
    `out` holds anything but an earlier site or cannot be written. The site that was there stays until the new one is
    complete.
    """
    loaded = load_runs(runs)
    folders = {folder.resolve(): run.slug for folder, run in zip(runs, loaded, strict=True)}
    for each in (path for change in changes for path in (change.before, change.after)):
        if each.resolve() not in folders:
            raise SiteError(f"{each}: a change is shown between runs of the board. Name it among the runs too.")
    publish(render(loaded, changes, folders, tracks=tracks, entries=entries, address=address), out)
    return out / "index.html"


def load_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """The reports of these folders, each under a slug of its own. Raises `RecordError`."""
    names = [inert(folder.resolve().name) for folder in folders]
    return tuple(map(Run, names, unique_slugs(names), map(report_of, folders)))


def report_of(folder: Path) -> Report:
    """The report kept in a run folder, or where none is, the one that its lines give. Raises `RecordError`."""
    kept = folder / REPORT
    return read_record(kept, Report) if kept.exists() else make_report(RunFolder(folder))


def make_boards(tracks: Sequence[Track], entries: Sequence[Entry], names: Labels) -> tuple[list[Board], list[str]]:
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
        members[track.name].append(_candidate(entry, entry.verified, slug, track, names))
    members = {name: _without_copies(mine, by_name[name]) for name, mine in members.items()}
    named = unique_slugs(track.name for track in tracks)
    return [Board(track, slug, members[track.name]) for track, slug in zip(tracks, named, strict=True)], slugs


def _without_copies(candidates: Sequence[Candidate], track: Track) -> list[Candidate]:
    """Of submissions with the same sums to the last digit, or of one name, only one is ranked: the track's baseline,
    else the one with more marks of an audit, else the first by slug."""
    known: dict[object, Candidate] = {}
    reasons: dict[str, str] = {}
    for each in sorted(candidates, key=lambda each: (each.slug != track.baseline, -len(each.marks), each.slug)):
        if (first := known.setdefault(each.verified.sums.model_dump_json(), each)) is not each:
            reasons[each.slug] = f"the same lines as {first.slug}"
        elif (first := known.setdefault(("name", skeleton(each.name)), each)) is not each:
            reasons[each.slug] = f"its name looks like that of {first.slug}"
    return [replace(each, reason=each.reason or reasons.get(each.slug, "")) for each in candidates]


def _candidate(entry: Entry, verified: Verified, slug: str, track: Track, names: Labels) -> Candidate:
    run = Run(verified.entry.name, slug, verified.report)
    views = {suite.suite: SuiteView(run, suite, names) for suite in verified.report.suites}
    return Candidate(entry, verified, slug, unranked_reason(verified, entry.audit, track), run, views)


# --------------------------------------------------------------------------- pages


def render(
    runs: Sequence[Run],
    changes: Sequence[RunChange] = (),
    folders: Mapping[Path, str] | None = None,
    *,
    tracks: Sequence[Track] = (),
    entries: Sequence[Entry] = (),
    address: Address = NOWHERE,
) -> dict[str, str]:
    """Every file of the site by its relative path; `folders` gives the slug of each run folder that `changes` name."""
    folder = template_folder()
    names = Labels.load()
    ordered = sorted(entries, key=lambda entry: entry.slug)
    boards, slugs = make_boards(sorted(tracks, key=lambda track: track.name), ordered, names)
    templates = environment(folder, names, boards, address)
    templates.globals["data_date"] = stories.latest(runs, boards)
    pages = Pages(templates, boards, names)
    suites = views.board(runs, names)
    every = [view for each in suites.values() for view in each]
    refused = [
        (entry, f"submissions/{slug}.html")
        for entry, slug in zip(ordered, slugs, strict=True)
        if entry.verified is None
    ]
    changed = [view for change in changes for view in change_views(change, every, folders or {})]
    assets = {name: (folder / name).read_text(encoding="utf-8") for name in ASSETS}
    made = {
        **assets,
        **dict(pages.top(suites=suites, runs=runs, changed=changed, refused=refused)),
        "404.html": _missing(pages, assets["style.css"], address),
        **dict(pages.runs(runs)),
        **dict(pages.of_boards()),
        **{page: pages.page("refused.html", page, entry=entry) for entry, page in refused},
        "board.json": board_json(runs, boards, [entry for entry, _ in refused], stories.latest(runs, boards)),
        "board.csv": board_csv(runs, boards),
        MARKER: "",
        **schemas(),
        **badges(boards),
    }
    made["croissant.json"] = croissant(made["board.csv"], stories.latest(runs, boards), address)
    return made | dict(_for_machines(pages, address, boards, made))


def _for_machines(
    pages: Pages, address: Address, boards: Sequence[Board], made: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """What needs the site's own address: the list of its pages, and the feed of submissions and audits."""
    if address.base_url:
        listed = sorted(name for name in made if name.endswith(".html") and name != "404.html")
        yield "sitemap.xml", pages.page("sitemap.xml", "sitemap.xml", listed=listed)
        yield "robots.txt", f"User-agent: *\nAllow: /\nSitemap: {address.base_url}sitemap.xml\n"
        yield "feed.xml", pages.page("feed.xml", "feed.xml", events=events(boards))


def _missing(pages: Pages, css: str, address: Address) -> str:
    """The page for a missing address, shown at any depth: it carries its style, and links only from the site's root."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return pages.page("404.html", "404.html", root=address.root, css=Markup(css), digest=digest)


def template_folder() -> Path:
    """`leaderboard/` of a checkout, or its copy inside an installed package. Raises `SiteError`."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_leaderboard", package.parent / "leaderboard"):
        if (folder / "base.html").is_file():
            return folder
    raise SiteError(f"{package}: the page templates are missing. Install fairspec-bench again.")


@dataclass(frozen=True)
class Heading:
    """The head of a column; `sort` is how the script sorts it, `text` or `number`; empty where it cannot be sorted."""

    title: str
    sort: str
    css: str


def _version() -> str:
    """The version of this package; empty in a checkout that is not installed."""
    try:
        return version("fairspec-bench")
    except PackageNotFoundError:
        return ""


def _text(title: str, sort: str = "text", css: str = "") -> Heading:
    return Heading(title, sort, css)


def _number(title: str, css: str = "") -> Heading:
    return Heading(title, "number", f"num {css}".strip())


def environment(folder: Path, names: Labels, boards: Sequence[Board] = (), address: Address = NOWHERE) -> Environment:
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
        address=address,
        navigation=[page for page in PAGES if page.title and (boards or not page.needs_boards)],
        boards=boards,
        labels=names,
        text=_text,
        number=_number,
        glossary=glossary(),
        terms=terms(),
        columns=COLUMNS,
        schemas=["board", *SCHEMAS],
        **{each.__name__: each for each in FUNCTIONS},
        findings=findings,
        stories=stories,
        version=_version(),
        licence=LICENCE,
        Task=Task,
        Estimate=Estimate,
        **{"NOTHING": NOTHING, "NO_DATA": NO_DATA, "SHARES": SHARES, "NEIGHBOURS": NEIGHBOURS},
    )
    return made


def _finalize(value: object) -> object:
    if value is None:
        return NO_DATA
    return inert(value) if type(value) is str else value
