"""Run folders in, a static site out.

Knows where templates lie, how pages and downloads are made of reports, and how a folder of them is replaced whole.
Knows nothing of what a figure means (`views`) or how it is drawn (`plots`), and needs no torch and no network.

Everything is rendered in memory before a byte is written, so an error leaves the old site as it was. The same reports
give the same bytes. Text of a report reaches a page escaped and without control characters; file names are slugs.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fairspec_bench.records import Estimate, FairspecError, Report, read_record
from fairspec_bench.site.changes import Changed, change_views
from fairspec_bench.site.plots import NO_DATA, inert
from fairspec_bench.site.views import (
    TOLERATED,
    VALIDITY,
    Run,
    SuiteView,
    Vocabulary,
    bare,
    board,
    figure,
    overview_plot,
    rule_words,
)

COLUMNS = ("run", "verifier", "drafter", "gamma", "suite", "language", "measure", "value", "low", "high")
MARKER = ".fairspec-site"  # in a folder that this module made and may therefore replace


class SiteError(FairspecError):
    """The site cannot be built: the message says what to mend."""


def build_site(runs: Sequence[Path], out: Path, changes: Sequence[Changed] = ()) -> Path:
    """Render the board of these run folders and changes into `out`, replaced whole, and return its first page.

    Raises `RecordError` for a folder without a readable report, `SiteError` if `out` holds anything but an earlier site
    or cannot be written. The site that was there stays until the new one is complete.
    """
    loaded = load_runs(runs)
    folders = {folder.resolve(): run.slug for folder, run in zip(runs, loaded, strict=True)}
    for each in (path for change in changes for path in (change.before, change.after)):
        if each.resolve() not in folders:
            raise SiteError(f"{each}: a change is shown between runs of the board. Name it among the runs too.")
    files = render(loaded, changes, folders)
    publish(files, out)
    return out / "index.html"


def load_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """The reports of these folders, each under a slug of its own. Raises `RecordError`."""
    runs: list[Run] = []
    taken: set[str] = set()
    for folder in folders:
        name = inert(folder.resolve().name)
        slug = _unique(slugify(name), taken)
        taken.add(slug)
        runs.append(Run(name, slug, read_record(folder / "report.json", Report)))
    return tuple(runs)


def slugify(name: str) -> str:
    """`name` in a-z, 0-9 and single hyphens, at most 60 characters; `run` if nothing is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:60].strip("-") or "run"


def _unique(slug: str, taken: set[str]) -> str:
    number = 2
    candidate = slug
    while candidate in taken:
        candidate, number = f"{slug}-{number}", number + 1
    return candidate


# --------------------------------------------------------------------------- pages


def render(
    runs: Sequence[Run], changes: Sequence[Changed] = (), folders: Mapping[Path, str] | None = None
) -> dict[str, str]:
    """Every file of the site by its relative path; `folders` gives the slug of each run folder that `changes` name."""
    folder = template_folder()
    words = Vocabulary.parse((folder / "measures.json").read_bytes(), (folder / "languages.json").read_bytes())
    pages = _environment(folder, words)
    suites = board(runs, words)
    views = [view for each in suites.values() for view in each]
    changed = [view for change in changes for view in change_views(change, views, folders or {})]
    files = {
        "index.html": pages.get_template("index.html").render(root="", suites=suites, runs=runs, changed=changed),
        "methodology.html": pages.get_template("methodology.html").render(root="", measures=words.measures.values()),
        "404.html": pages.get_template("404.html").render(root=""),
        "board.json": board_json(runs),
        "board.csv": board_csv(runs),
        MARKER: "",
    }
    for run in runs:
        views = [SuiteView(run, suite, words) for suite in run.report.suites]
        files[run.page] = pages.get_template("run.html").render(root="../", run=run, views=views)
    return files


def template_folder() -> Path:
    """`leaderboard/` of a checkout, or its copy inside an installed package. Raises `SiteError`."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_leaderboard", package.parent / "leaderboard"):
        if (folder / "base.html").is_file():
            return folder
    raise SiteError(f"{package}: the page templates are missing. Install fairspec-bench again.")


def _environment(folder: Path, words: Vocabulary) -> Environment:
    """Templates with escaping always on; plain text also loses its control characters, `None` is a dash."""
    css = (folder / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.globals.update(
        css=Markup(css),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        words=words,
        figure=figure,
        bare=bare,
        rule_words=rule_words,
        overview_plot=overview_plot,
        nothing=Estimate(),
        validity=VALIDITY,
        tolerated=TOLERATED,
    )
    return environment


def _finalize(value: object) -> object:
    if value is None:
        return NO_DATA
    return inert(value) if type(value) is str else value


# --------------------------------------------------------------------------- downloads


def board_json(runs: Sequence[Run]) -> str:
    """Every figure of the board, with the configuration that made it, as JSON in ASCII."""
    entries = [
        {
            "name": run.name,
            "page": run.page,
            "small_pair": run.small,
            **run.report.model_dump(mode="json", include={"config": {"verifier", "drafter", "rule", "gamma", "seed"}}),
            **run.report.model_dump(mode="json", include={"suites", "race_verdict", "notes"}),
        }
        for run in runs
    ]
    return json.dumps({"schema_version": 1, "runs": entries}, indent=1, sort_keys=True, allow_nan=False) + "\n"


def board_csv(runs: Sequence[Run]) -> str:
    """One line for each figure: its place, value and 95 % interval; no data is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        place: list[str | int] = [run.name, run.verifier, run.drafter, run.report.config.gamma]
        for suite in run.report.suites:
            groups = [("", suite.across), *((task.language, task.measures) for task in suite.tasks)]
            for language, measures in groups:
                writer.writerows(_csv_rows([*place, suite.suite, language], measures))
    return text.getvalue()


def _csv_rows(place: Iterable[str | int], measures: Mapping[str, Estimate]) -> Iterable[list[Any]]:
    cells = [_csv_cell(cell) for cell in place]
    for name, estimate in sorted(measures.items()):
        yield [*cells, _csv_cell(name), estimate.value, estimate.low, estimate.high]


def _csv_cell(cell: str | int) -> str | int:
    """Text that no spreadsheet takes for a formula."""
    if isinstance(cell, int):
        return cell
    plain = inert(cell)
    return f"'{plain}" if plain[:1] in ("=", "+", "-", "@") else plain


# --------------------------------------------------------------------------- the folder


def publish(files: Mapping[str, str], out: Path) -> None:
    """Put `files` where `out` is: written beside it first, then exchanged for it. Raises `SiteError`."""
    target = out.resolve()
    try:
        if target.exists() and not _ours(target):
            raise SiteError(f"{out}: holds something other than a site made here. Choose a new or empty folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            _write(files, stage / "new")
            if target.exists():
                os.replace(target, stage / "old")
            try:
                os.replace(stage / "new", target)
            except OSError:
                if (stage / "old").exists():
                    os.replace(stage / "old", target)
                raise
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise SiteError(f"{out}: cannot be written ({error.strerror}). Free space or choose another folder.") from error


def _ours(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MARKER).is_file() or not any(folder.iterdir()))


def _write(files: Mapping[str, str], folder: Path) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
