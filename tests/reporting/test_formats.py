"""Data out: frames are typed and survive CSV and Parquet; Markdown, HTML and LaTeX hold; hostile names do no harm."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_up_run import ENVIRONMENT, make_run
from markdown_it import MarkdownIt

import fairspec_bench
import fairspec_bench as fairspec
from fairspec_bench.api.reports import FORMATS, markdown
from fairspec_bench.metrics.comparison import Comparison, compare_runs
from fairspec_bench.metrics.report import build_report
from fairspec_bench.metrics.run_data import Lines
from fairspec_bench.reporting import escape, frames
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.lines import Dropped
from fairspec_bench.schemas.report import Estimate, Report, SweepCell, SweepReport
from fairspec_bench.schemas.stages import STAGES

RESULTS = Path(__file__).parents[2] / "docs" / "results"
DATA = Path(__file__).parents[2] / "docs" / "DATA.md"
TYPES = {"str", "float64", "Int64", "boolean"}
HOSTILE = (
    "=HYPERLINK(1)",
    "@SUM(A1)",
    " +1",
    "\uff1d1",
    "<script>alert(1)<",
    "[x](javascript:alert)",
    "[a",
    "a & b_c%d$e#f^g~h{i}\\end",
    "p|q\\|r",
    "e\x1b[31mf\u202eg\nh",
    "[bold]x",
    "日本",
)  # fmt: skip
"""Names of tasks; the first four are formulas to a spreadsheet."""

Shown = Report | Comparison


def made(run: tuple[RunConfig, Lines]) -> Report:
    return build_report(run[0], [ENVIRONMENT], run[1], replicates=200)


def compared(first: tuple[RunConfig, Lines], second: tuple[RunConfig, Lines]) -> Comparison:
    return compare_runs(first, second, replicates=200)


@pytest.fixture(scope="module")
def run() -> tuple[RunConfig, Lines]:
    config, lines = make_run({"en": 0.8, "te": 0.5}, 12, rounds=2)
    lost = "toy/te/3"
    kept = {
        name: [line for line in getattr(lines, name) if line.key != lost]
        for name in ("references", "answers", "drafter_answers", "replays", "timings")
    }
    return config, replace(lines, **kept, dropped=[Dropped(key=lost, reason="too long")])


@pytest.fixture(scope="module")
def shown(run: tuple[RunConfig, Lines]) -> tuple[Report, Comparison]:
    config, lines = make_run({"en": 0.8, "te": 0.5}, 12, rounds=2, defined=False)
    worse = [each.model_copy(update={"alpha": 0.8 * each.alpha}) for each in lines.replays]
    return made(run), compared(run, (config, replace(lines, replays=worse)))


@pytest.fixture(scope="module")
def hostile() -> tuple[Report, Comparison]:
    config, lines = make_run(dict.fromkeys(HOSTILE, 0.5), 2)
    named = config.model_copy(
        update={name: config.verifier.model_copy(update={"name": HOSTILE[0]}) for name in ("verifier", "drafter")}
    )
    return made((named, lines)), compared((named, lines), (named, lines))


# --------------------------------------------------------------------------- frames


def every_frame(shown: tuple[Report, Comparison], run: tuple[RunConfig, Lines]) -> dict[str, pd.DataFrame]:
    found = {"report": fairspec.report_frame(shown[0]), "comparison": fairspec.report_frame(shown[1])}
    return found | {kind: frames.lines_frame(*run, kind) for kind in frames.LINES}


def test_every_frame_is_typed_and_the_same_after_parquet(
    shown: tuple[Report, Comparison], run: tuple[RunConfig, Lines]
) -> None:
    found = every_frame(shown, run)
    assert set(found) == set(frames.COLUMNS)
    for name, frame in found.items():
        assert {each: str(dtype) for each, dtype in frame.dtypes.items()} == {
            column.name: column.dtype for column in frames.COLUMNS[name]
        }
        assert set(frame.dtypes.astype(str)) <= TYPES
        written = frames.parquet(frame)
        pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(written)), frame)
        stored = pq.read_table(io.BytesIO(written))
        assert stored.num_rows == len(frame)
        for column in stored.column_names:
            assert stored.column(column).null_count == frame[column].isna().sum()
    assert found["comparison"].value.isna().any(), "a drafter without q has no misfit: the test needs nulls"
    assert found["report"].task.isna().any()


def read_csv(text: str, frame: pd.DataFrame) -> pd.DataFrame:
    types = {str(name): str(dtype) for name, dtype in frame.dtypes.items()}
    return pd.read_csv(io.StringIO(text), dtype=types, keep_default_na=False, na_values=[""])


def test_csv_read_by_pandas_is_the_frame(shown: tuple[Report, Comparison], run: tuple[RunConfig, Lines]) -> None:
    for frame in every_frame(shown, run).values():
        pd.testing.assert_frame_equal(read_csv(frames.csv(frame), frame), frame, check_exact=True)
    for each in shown:
        assert fairspec.export(each, "csv").decode() == frames.csv(fairspec.report_frame(each))


def test_a_language_called_nan_is_no_hole() -> None:
    frame = fairspec.report_frame(made(make_run({"nan": 0.5, "en": 0.5}, 3)))
    assert set(read_csv(frames.csv(frame), frame).language.dropna()) == {"nan", "en"}


def test_a_report_has_every_figure_with_its_interval_and_unit(shown: tuple[Report, Comparison]) -> None:
    report, frame = shown[0], fairspec.report_frame(shown[0])
    for task in report.suites[0].tasks:
        mine = frame[frame.task == task.task].set_index("measure")
        for name, figure in task.measures.items():
            assert [None if pd.isna(v) else v for v in mine.loc[name, ["value", "low", "high"]]] == list(
                figure.model_dump().values()
            )
        assert set(mine.clusters) == {task.clusters}
    assert frame.unit.notna().all()
    assert frame.definition.notna().all()
    assert set(frame.verifier) == {"big"}
    assert set(frame.version) == {"1"}


def test_a_sweep_of_requests_has_its_latencies(shown: tuple[Report, Comparison]) -> None:
    given = {name: Estimate(value=value) for name, value in (("tokens_per_second", 9.0), ("latency_p95", 0.5))}
    cell = SweepCell(task="toy/en", batch_size=4, gamma=2, speedup=Estimate(), **given)
    sweep = SweepReport(rounds=1, cells=(cell,), payoffs=(), best=())
    suite = shown[0].suites[0].model_copy(update={"sweep": sweep})
    frame = fairspec.report_frame(shown[0].model_copy(update={"suites": (suite,)}))
    swept = frame[frame.measure.str.startswith("sweep_")]
    assert list(zip(swept.measure, swept.value.fillna(-1), swept.unit, swept.task, strict=True)) == [
        ("sweep_pace[batch=4, γ=2]", 9.0, "tokens/s", "toy/en"),
        ("sweep_latency_p95[batch=4, γ=2]", 0.5, "s", "toy/en"),
        ("sweep_speedup[batch=4, γ=2]", -1, "1", "toy/en"),
    ]


def test_a_comparison_has_every_change(shown: tuple[Report, Comparison]) -> None:
    (suite,), frame = shown[1].suites, fairspec.report_frame(shown[1])
    differences = frame[(frame.change == "difference") & frame.task.notna()].set_index(["measure", "task"])
    assert len(differences) == sum(map(len, suite.differences.values()))
    for name, by_task in suite.differences.items():
        for task, figure in by_task.items():
            assert differences.loc[(name, task), "value"] == figure.value or figure.value is None
    across = frame[frame.task.isna()].set_index(["measure", "change"])
    assert set(across.index) == {("unfairness", "difference"), *((name, "relative") for name in suite.relative)}
    assert across.loc[("unfairness", "difference"), "unit"] == "nats²"
    assert set(across.loc[pd.IndexSlice[:, "relative"], "unit"]) == {"1"}


def test_a_levelled_down_task_says_so(run: tuple[RunConfig, Lines]) -> None:
    config, lines = run
    worse = [each.model_copy(update={"alpha": each.alpha / 4}) for each in lines.replays]
    frame = fairspec.report_frame(compared(run, (config, replace(lines, replays=worse))))
    assert set(frame[frame["flags"] == "levelled down"].task) == {"toy/en", "toy/te"}


def test_lines_are_the_runs_own(run: tuple[RunConfig, Lines], shown: tuple[Report, Comparison]) -> None:
    """Their sums give the report's figures: so a row is of its prompt, and a mean of its contexts."""
    assert {*STAGES, "dropped"} == set(frames.LINES)
    replay = frames.lines_frame(*run, "replay")
    assert list(replay.key) == sorted(each.key for each in run[1].replays)
    for task in shown[0].suites[0].tasks:
        mine = replay[replay.language == task.language]
        weighted = {
            name: (mine[name] * mine.contexts).sum() for name in ("acceptance", "overlap", "misfit", "misfit_ce")
        }
        for name, total in weighted.items():
            assert total / mine.contexts.sum() == pytest.approx(task.measures[name].value, rel=1e-7)
        assert mine.blocks.mean() == pytest.approx(task.measures["blocks_expected"].value, rel=1e-7)
        assert mine.accepted.sum() / mine.tested.sum() == pytest.approx(task.measures["acceptance_expected"].value)
    timing = frames.lines_frame(*run, "race")
    assert len(timing) == len(run[1].timings)
    live = timing[timing["mode"] == "speculative"].groupby("language")[["accepted", "tested"]].sum()
    for task in shown[0].suites[0].tasks:
        accepted, tested = live.loc[task.language]
        assert accepted / tested == pytest.approx(task.measures["acceptance_observed"].value)
    assert timing[timing["mode"] != "speculative"][["blocks", "accepted", "tested"]].isna().all(axis=None)
    assert set(frames.lines_frame(*run, "reference").cluster) == set(run[0].clusters.values())
    dropped = frames.lines_frame(*run, "dropped").iloc[0]
    assert (dropped.key, dropped.language, dropped.reason) == ("toy/te/3", "te", "too long")
    with pytest.raises(FairspecError, match=r"lines 'texts': unknown\. Known: reference, answer, replay"):
        frames.lines_frame(*run, "texts")


def test_lines_of_a_folder() -> None:
    frame = fairspec_bench.lines_frame(RESULTS / "ntrex-mgsm", "race")
    assert {"autoregressive", "speculative", "control"} == set(frame["mode"])
    assert (frame.decode_ns > 0).all()


def test_the_columns_are_documented() -> None:
    """If this fails, bring the table of that frame in docs/DATA.md up to `frames.COLUMNS`."""
    parts = DATA.read_text(encoding="utf-8").split("\n## ")[1:]
    assert len(parts) == len(frames.COLUMNS)
    for part, (name, columns) in zip(parts, frames.COLUMNS.items(), strict=True):
        rows = [f"| `{each.name}` | {each.dtype} | {each.unit} | {each.meaning} |" for each in columns]
        assert re.findall(r"^\| `.*", part, flags=re.M) == rows, name


# --------------------------------------------------------------------------- the file


def test_a_file_is_written_whole_or_not_at_all(
    shown: tuple[Report, Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for format in FORMATS:
        out = tmp_path / f"new/report.{format}"
        assert fairspec.export(shown[1], format, out) == out.read_bytes()
    assert [path.suffix[1:] for path in sorted((tmp_path / "new").iterdir())] == sorted(FORMATS)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "new/report.parquet"), fairspec.report_frame(shown[1]))
    before = (tmp_path / "new/report.csv").read_bytes()

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fairspec_bench.schemas.io.os.fsync", broken)
    with pytest.raises(FairspecError, match="No space left"):
        fairspec.export(shown[0], "csv", tmp_path / "new/report.csv")
    assert (tmp_path / "new/report.csv").read_bytes() == before
    assert len(list((tmp_path / "new").iterdir())) == len(FORMATS)


# --------------------------------------------------------------------------- notebooks


class Elements(HTMLParser):
    """The elements of a piece of HTML, which must all be closed, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.append(tag)
        self.attributes |= {f"{name}={value}" for name, value in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


PLAIN = {"div", "p", "table", "caption", "thead", "tbody", "tr", "th", "td"}
SIDES = {"style=text-align: left", "style=text-align: right", "scope=col", "scope=row"}


def test_a_notebook_shows_tables_with_intervals(shown: tuple[Report, Comparison]) -> None:
    for each in shown:
        html = each._repr_html_()
        assert html is not None
        found = Elements(html)
        assert set(found.tags) <= PLAIN
        assert found.attributes <= SIDES
        assert found.tags.count("table") == len(re.findall("^## ", markdown(each), flags=re.M))
        assert any(re.fullmatch(r"-?\d\.\d+ \[-?\d\.\d+, -?\d\.\d+\]", word) for word in found.words)
    assert "big ← small, γ = 3" in Elements(shown[0]._repr_html_() or "").words


def test_records_alone_know_no_rendering(shown: tuple[Report, Comparison], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairspec_bench.schemas.base.NotebookRecord.notebook_html", None)
    assert [each._repr_html_() for each in shown] == [None, None]


def test_hostile_names_are_words_in_a_notebook(hostile: tuple[Report, Comparison]) -> None:
    for each in hostile:
        found = Elements(each._repr_html_() or "")
        assert set(found.tags) <= PLAIN
        assert found.attributes <= SIDES
        assert {escape.inert(name) for name in HOSTILE} <= {word.removesuffix(" †") for word in found.words}
        assert not set("\x1b\u202e") & set("".join(found.words))


# --------------------------------------------------------------------------- Markdown and the terminal


def test_hostile_names_are_words_in_markdown(hostile: tuple[Report, Comparison]) -> None:
    for each in hostile:
        rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown(each))
        found = Elements(rendered)
        assert set(found.tags) <= PLAIN | {"h2", "em", "strong"}
        rows = re.findall(r"<tr>\n(.*?)</tr>", rendered, flags=re.S)
        assert {row.count("<td") for row in rows} - {0} <= {3, 4, 5, 6, 7, 8}
        assert {"p|q\\|r", "<script>alert(1)<", "[x](javascript:alert)"} <= {
            word.removesuffix(" †") for word in found.words
        }


def test_hostile_names_are_words_in_a_terminal(hostile: tuple[Report, Comparison]) -> None:
    text = fairspec.export(hostile[0], "table").decode()
    assert "[bold]x" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


# --------------------------------------------------------------------------- spreadsheets


def test_no_name_is_a_formula(hostile: tuple[Report, Comparison]) -> None:
    for each in hostile:
        frame = fairspec.report_frame(each)
        read = read_csv(frames.csv(frame), frame)
        for column in ("language", "verifier", "drafter"):
            for before, after in zip(frame.get(column, ()), read.get(column, ()), strict=True):
                if pd.notna(before):
                    assert after == ("'" if before in HOSTILE[:4] else "") + escape.inert(before)
        pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(frames.parquet(frame))), frame)
        assert set(HOSTILE) <= set(frame.language.dropna()), "a frame, and Parquet, hold the names as they are"


def test_negative_figures_stay_numbers(run: tuple[RunConfig, Lines]) -> None:
    config, lines = run
    worse = [each.model_copy(update={"alpha": each.alpha / 2}) for each in lines.replays]
    text = frames.csv(fairspec.report_frame(compared(run, (config, replace(lines, replays=worse)))))
    assert re.search(r",-0\.\d+,-0\.\d+,-0\.\d+,1,", text)
    assert "'-" not in text


# --------------------------------------------------------------------------- LaTeX

KNOWN = {
    "begin", "end", "centering", "caption", "resizebox", "ifdim", "width", "linewidth", "else", "fi", "toprule",
    "midrule", "bottomrule", "noindent", "par", "textdagger", "textbackslash", "textasciitilde", "textasciicircum",
    "textless", "textgreater", "textbar", "texttt", "gamma", "alpha", "bar", "div", "Sigma", "Pi", "rho", "tau", "beta",
    "leq", "geq", "pm", "times", "cdot", "to", "gets", "surd", "nabla", "approx", "ldots",
}  # fmt: skip


def check_latex(text: str) -> list[list[str]]:
    """The cells of every row; what a LaTeX engine would stop at is asserted not to be there."""
    assert text.isascii()
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= KNOWN | {"usepackage"}
    body = re.sub(r"^% Needs .*\n", "", text)
    bare = re.sub(r"\\([\\&%$#_{}|])", lambda found: "\n" if found[1] == "\\" else " ", body)
    assert not re.search(r"[~^](?![{2])|#", bare)
    assert [line for line in bare.splitlines() if "%" in line] == [
        line for line in bare.splitlines() if line.endswith("{!}{%")
    ]
    depth = 0
    for c in bare:
        depth += (c == "{") - (c == "}")
        assert depth >= 0
    assert depth == 0
    opened: list[str] = []
    for end, name in re.findall(r"\\(begin|end)\{(\w+)\}", body):
        if end == "end":
            assert opened.pop() == name
        else:
            opened.append(name)
    assert not opened
    rows = []
    for sides, inner in re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}", body, flags=re.S):
        for line in inner.splitlines():
            assert line.startswith(("\\toprule", "\\midrule", "\\bottomrule")) or line.endswith(r" \\")
            assert line
            if line.endswith(r" \\"):
                assert not line.startswith("[")
                cells = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
                assert len(cells) == len(sides)
                assert all(cell.replace("\\$", "").count("$") % 2 == 0 for cell in cells)
                rows.append([cell.strip() for cell in cells])
    assert not re.search(
        r"(?<!\\)[_&]", re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}|\$[^$]*\$", "", body, flags=re.S)
    )
    return rows


def test_latex_holds_what_the_tables_hold(shown: tuple[Report, Comparison]) -> None:
    for each in shown:
        text = fairspec.export(each, "latex").decode()
        rows = check_latex(text)
        assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\begin{table}") > 0
        tables = [line for line in markdown(each).splitlines() if line.startswith("| ") and "---" not in line]
        assert len(rows) == len(tables)
        assert any(
            re.fullmatch(r"(\$-\$)?0\.\d+ \[(\$-\$)?\d\.\d+, (\$-\$)?\d\.\d+\]", cell) for row in rows for cell in row
        )


def test_hostile_names_compile(hostile: tuple[Report, Comparison]) -> None:
    for each in hostile:
        rows = check_latex(fairspec.export(each, "latex").decode())
        firsts = {row[0].removesuffix(r" \textdagger{}") for row in rows}
        assert r"a \& b\_c\%d\$e\#f\textasciicircum{}g\textasciitilde{}h\{i\}\textbackslash{}end" in firsts
        assert {"{[}a", r"\texttt{U+65E5}\texttt{U+672C}", r"p\textbar{}q\textbackslash{}\textbar{}r"} <= firsts


def test_every_sign_of_the_committed_reports_has_its_command() -> None:
    """A new definition with a sign that LaTeX is not told of would be shown by its code."""
    for each in (
        fairspec.report(RESULTS / "ntrex-mgsm"),
        fairspec.compare(RESULTS / "ntrex-mgsm", RESULTS / "ntrex-mended-mgsm"),
    ):
        text = fairspec.export(each, "latex").decode()
        check_latex(text)
        assert "U+" not in text
