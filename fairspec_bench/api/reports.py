"""Reports and comparisons: computed, shown, exported, rendered as a site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fairspec_bench.schemas.base import FairspecError, NotebookRecord, RecordError, unknown
from fairspec_bench.schemas.io import stored_at, write_atomic
from fairspec_bench.schemas.report import Report

if TYPE_CHECKING:
    import pandas
    from rich.console import RenderableType

    from fairspec_bench.api.mitigation import FineTuned
    from fairspec_bench.experiments.reproduce import Reproduced
    from fairspec_bench.metrics.advice import Advice
    from fairspec_bench.metrics.comparison import Comparison


def report(folder: str | Path) -> Report:
    """The report of a run, computed from its lines; written beside them if the run is complete.

    That of an unfinished run or a shard covers what is finished, and is flagged so. Raises `RecordError` for damaged
    lines.
    """
    path = _run_folder(folder)
    from fairspec_bench.scoring.report import make_report
    from fairspec_bench.scoring.run_folder import RunFolder

    return make_report(RunFolder(path))


def _run_folder(folder: str | Path) -> Path:
    """A run folder, or that of a submission. Raises `RecordError` for another one."""
    path = Path(folder)
    path = path / "run" if (path / "submission.toml").exists() else path
    if stored_at(path / "run.json") is None:
        raise RecordError(f"{path / 'run.json'}: no such file. Is this a run folder?")
    return path


def report_frame(shown: Report | Comparison) -> pandas.DataFrame:
    """Every figure of a report, or every change of a comparison, one a row: docs/DATA.md has the columns."""
    from fairspec_bench.reporting import frames

    return frames.report_frame(shown) if isinstance(shown, Report) else frames.comparison_frame(shown)


def lines_frame(folder: str | Path, kind: str) -> pandas.DataFrame:
    """A run's lines of one kind (reference, answer, replay, race …), one a row: docs/DATA.md has the columns.

    Raises `FairspecError` for an unknown kind, `RecordError` for damaged lines.
    """
    from fairspec_bench.reporting import frames
    from fairspec_bench.scoring.report import lines_of
    from fairspec_bench.scoring.run_folder import RunFolder

    opened = RunFolder(_run_folder(folder))
    return frames.lines_frame(opened.config, lines_of(opened), kind)


def compare(first: str | Path, second: str | Path) -> Comparison:
    """The paired differences of two runs with the same reference outputs, second − first. Raises `FairspecError`."""
    from fairspec_bench.scoring import report

    return report.compare(_run_folder(first), _run_folder(second))


def advise(run: str | Path, others: Sequence[str | Path] = (), *, requests: int | None = None) -> Advice:
    """What a run says of its drafter: language by language, whether it pays when so many requests are served at once.

    Every verdict follows from a whole interval. `requests` is one of the loads that the run timed, by default the
    fewest; `others` are runs of other drafters for the same verifier, which a router may choose from. Raises
    `FairspecError`.
    """
    from fairspec_bench.scoring import report

    return report.advise(_run_folder(run), [_run_folder(other) for other in others], requests)


def serving_configuration(advice: Advice) -> str:
    """The commands that start vLLM as advised, and which language goes where. Raises `FairspecError`."""
    from fairspec_bench.scoring.executors.serving.configuration import vllm_commands

    return vllm_commands(advice)


def render(shown: Report | Comparison | Advice | FineTuned | Reproduced) -> RenderableType:
    """A report, a comparison, advice, the result of fine-tuning or judged claims as Rich tables."""
    from fairspec_bench.metrics.advice import Advice
    from fairspec_bench.metrics.comparison import Comparison
    from fairspec_bench.reporting import tables

    if isinstance(shown, Report):
        return tables.render(shown)
    if isinstance(shown, Comparison):
        return tables.render_comparison(shown)
    if isinstance(shown, Advice):
        return tables.render_advice(shown)
    from fairspec_bench.api.mitigation import FineTuned

    if isinstance(shown, FineTuned):
        from fairspec_bench.mitigation.model_card import render_result

        return render_result(shown.result)
    from fairspec_bench.experiments.claims import render_claims

    return render_claims(shown.claims)


def markdown(shown: Report | Comparison | Advice | FineTuned | Reproduced) -> str:
    """The tables of `render` as Markdown."""
    from fairspec_bench.reporting import formats

    return formats.markdown(render(shown))


def html(shown: Report | Comparison | Advice) -> str:
    """The tables of `render` as HTML for a notebook, below the names of a run's models."""
    from rich.console import Group

    from fairspec_bench.reporting import formats, tables

    shown_tables = render(shown)
    head = [tables.headline(shown.config)] if isinstance(shown, Report) else []
    return formats.html(Group(*head, shown_tables))


NotebookRecord.notebook_html = html  # records themselves cannot render: that is a layer above them
FORMATS = ("table", "csv", "json", "md", "latex", "parquet")


def check_format(format: str, *, to_file: bool = True) -> None:
    """Raises `FairspecError` for a format that is none of `FORMATS`, or that is not text and has no file to go to."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if format == "parquet" and not to_file:
        raise FairspecError("--format parquet: no text to show. Give --out FILE.")


def export(shown: Report | Comparison, format: str, out: str | Path | None = None) -> bytes:
    """A report or comparison in one of `FORMATS`, text as UTF-8; also written to the file `out`, whole or not at all.

    Raises `FairspecError` for an unknown format, `RecordError` for a file that cannot be written.
    """
    from fairspec_bench.reporting import formats, frames

    check_format(format)
    made: Mapping[str, Callable[[], str | bytes]] = {
        "table": lambda: formats.plain(render(shown)),
        "csv": lambda: frames.csv(report_frame(shown)),
        "json": lambda: shown.model_dump_json(indent=1) + "\n",
        "md": lambda: markdown(shown).rstrip("\n") + "\n",
        "latex": lambda: formats.latex(render(shown)),
        "parquet": lambda: frames.parquet(report_frame(shown)),
    }
    content = made[format]()
    whole = content.encode() if isinstance(content, str) else content
    if out is not None:
        write_atomic(Path(out), whole)
    return whole


def build_site(
    runs: Sequence[str | Path], out: str | Path = "site", *, changes: Sequence[tuple[str | Path, str | Path]] = ()
) -> Path:
    """Render the board of these run folders into `out`; → its first page. Raises `FairspecError`.

    `changes` are pairs (before, after) of these runs whose difference is shown.
    """
    from fairspec_bench.site import build
    from fairspec_bench.site.views import RunChange

    if not runs:
        raise FairspecError("site: no runs given. Name one or more run folders.")
    shown = [RunChange(Path(first), Path(second), compare(first, second)) for first, second in changes]
    return build.build_site([Path(run) for run in runs], Path(out), shown)


def parse_change(text: str) -> tuple[str, str]:
    """`BEFORE,AFTER`, two run folders."""
    first, comma, second = text.partition(",")
    if not (first and comma and second):
        raise FairspecError(f"--change {text}: not of the form BEFORE,AFTER. Name two run folders.")
    return first, second
