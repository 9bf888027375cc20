"""`fairspec`: parse, call the face, print. No logic, and nothing heavy is imported before a command needs it.

Exit status: 0 done, 1 a failed check, 2 an error of usage or data (one line on stderr), 130 stopped by Ctrl-C. With
`--debug` an error shows its traceback.
"""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairspec_bench.records import FairspecError

if TYPE_CHECKING:
    from rich.console import Console

    from fairspec_bench.face import Finding
    from fairspec_bench.measure.compare import Comparison
    from fairspec_bench.records import Report
    from fairspec_bench.score.plan import Plan
    from fairspec_bench.score.run import Progress

app = typer.Typer(
    name="fairspec",
    help="Who gets the speed-up of speculative decoding? Measured per language, with intervals.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
site_app = typer.Typer(help="The static board of runs.", rich_markup_mode=None)
app.add_typer(site_app, name="site")

# typer keeps its own copy of click: the class of usage errors is found through one of its children.
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

STOPPED = 130  # what a shell calls a process that Ctrl-C ended; typer turns the interrupt into this status

Verifier = Annotated[str, typer.Argument(help="Folder, Hub id or embedded:verifier.")]
Drafter = Annotated[str, typer.Argument(help="Folder, Hub id, embedded:drafter, ngram, ngram:3 or oracle:0.8.")]
Suites = Annotated[list[str], typer.Option("--suite", help="A suite; repeatable. `fairspec tasks` lists them.")]
Languages = Annotated[str | None, typer.Option(help="Languages, comma-separated. Default: the suite's own.")]
Gamma = Annotated[int, typer.Option(help="Drafts per block.")]
Limit = Annotated[int | None, typer.Option(help="Only the first N prompts of each language.")]
BatchSize = Annotated[int, typer.Option("--batch_size", help="Rows decoded together.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Seed = Annotated[int, typer.Option(help="Seed of sampling and of the races' order.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
TopK = Annotated[int, typer.Option("--top_k", help="0 is off.")]
TopP = Annotated[float, typer.Option("--top_p", help="1 is off.")]
Fewshot = Annotated[int | None, typer.Option("--num_fewshot", help="Exemplars. Default: the suite's own.")]
Chat = Annotated[bool, typer.Option("--apply_chat_template", help="Render prompts by the tokenizer's chat template.")]
ModelArgs = Annotated[str | None, typer.Option("--model_args", help="k=v,k=v for the verifier: revision, attention.")]
DrafterArgs = Annotated[str | None, typer.Option("--drafter_args", help="k=v,k=v for the drafter.")]
Cap = Annotated[int | None, typer.Option(help="Most output tokens. Default: the suite's own.")]
RacePrompts = Annotated[int, typer.Option("--race_prompts", help="Prompts per language whose wall-clock is taken.")]
RaceRounds = Annotated[int, typer.Option("--race_rounds", help="Rounds of each race; 0 for no races.")]
Shard = Annotated[str | None, typer.Option(help="i/n: only the i-th of n parts; `fairspec merge` joins them.")]
Out = Annotated[Path | None, typer.Option(help="Run folder. Default: runs/VERIFIER--DRAFTER.")]
Format = Annotated[str, typer.Option("--format", help="table, json or csv.")]


@app.callback()
def common(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Options of every command."""


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Three languages, few prompts.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the run and the site.")] = Path("runs/demo"),
) -> None:
    """The main job on the built-in suites and pair: score, report, build the site, say where."""
    from fairspec_bench import face

    with _progress() as watch:
        made = face.demo(out, quick=quick, watch=watch)
    _print(face.render(made.report))
    _say(f"run:  {made.run}", f"page: {made.page}")


@app.command()
def doctor() -> None:
    """Device, versions, data and models: found or missing, and what to do about it."""
    from fairspec_bench import face

    _silence()
    findings = face.doctor()
    for finding in findings:
        _say(_finding(finding))
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def tasks(suite: Annotated[str | None, typer.Argument(help="Show one suite and its first prompt.")] = None) -> None:
    """The suites; or one: languages, prompts, licence, hashes, and a prompt shown whole."""
    from fairspec_bench import face

    if suite is None:
        for info in face.list_suites():
            _say(f"{info.name:<16}{len(info.languages):>3} languages  {info.licence:<13}{info.title}")
        return
    status, prompt = face.describe_suite(suite)
    info = status.info
    _say(f"{info.name} {info.version}: {info.title}", f"licence {info.licence}, {info.home}")
    for language, count in status.prompts.items():
        published = {True: "as published", False: "NOT the published data", None: ""}[status.as_published[language]]
        _say(f"  {language:<10}{count:>5} prompts  data sha256 {status.data_sha256[language][:16]}  {published}")
    if status.problem:
        raise FairspecError(status.problem)
    if prompt is not None:
        text = prompt.text if prompt.text is not None else str(prompt.messages)
        _say("", f"{prompt.key}, cap {prompt.cap}, stops {list(prompt.stops)}:", text)


@app.command()
def plan(
    verifier: Verifier,
    drafter: Drafter,
    suite: Suites,
    languages: Languages = None,
    gamma: Gamma = 4,
    limit: Limit = None,
    batch_size: BatchSize = 8,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    num_fewshot: Fewshot = None,
    apply_chat_template: Chat = False,
    model_args: ModelArgs = None,
    drafter_args: DrafterArgs = None,
    cap: Cap = None,
    race_prompts: RacePrompts = 50,
    race_rounds: RaceRounds = 5,
    shard: Shard = None,
) -> None:
    """Tokens, memory, disk and hours of a run beforehand."""
    from fairspec_bench import face

    _silence()
    _print_plan(face.plan(verifier, drafter, suite, **_options(locals())))


@app.command()
def run(
    verifier: Verifier,
    drafter: Drafter,
    suite: Suites,
    languages: Languages = None,
    gamma: Gamma = 4,
    limit: Limit = None,
    batch_size: BatchSize = 8,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    num_fewshot: Fewshot = None,
    apply_chat_template: Chat = False,
    model_args: ModelArgs = None,
    drafter_args: DrafterArgs = None,
    cap: Cap = None,
    race_prompts: RacePrompts = 50,
    race_rounds: RaceRounds = 5,
    shard: Shard = None,
    out: Out = None,
) -> None:
    """Score a pair on suites. Stopped or killed, the same command goes on where it was."""
    from fairspec_bench import face

    folder = out or face.default_out(verifier, drafter)
    with _progress() as watch:
        report = face.run(verifier, drafter, suite, folder, watch=watch, **_options(locals()))
    if report.config.part:
        _say(f"part {shard} done: {folder}. When all are: fairspec merge OUT PART…")
    else:
        _print(face.render(report))
        _say(f"run: {folder}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    other: Annotated[Path | None, typer.Argument(help="Another: the paired difference, other − first.")] = None,
    format: Format = "table",
) -> None:
    """The tables of a run, computed anew from its lines; of two runs, their paired difference."""
    from fairspec_bench import face

    _print_in(format, face.report(run) if other is None else face.compare(run, other))


@site_app.command("build")
def site_build(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option(help="Folder of the site, replaced whole.")] = Path("site"),
) -> None:
    """Render the board from run folders."""
    from fairspec_bench import face

    _say(f"page: {face.build_site(runs, out)}")


@app.command("testbed")
def train_testbed(
    text: Annotated[Path, typer.Option(help="Folder of <language>.txt.")],
    out: Annotated[Path, typer.Option(help="Folder for verifier/ and drafter/.")],
    skew: Annotated[float, typer.Option(help="0: equal shares of the languages; 2: steep.")] = 1.0,
    scale: Annotated[str, typer.Option(help="tiny or small.")] = "tiny",
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.")] = 0,
) -> None:
    """Train a verifier/drafter pair with a known language imbalance. Stopped, the same command goes on."""
    from fairspec_bench import face

    verifier, drafter = face.train_testbed(text, out, skew=skew, scale=scale, seed=seed, say=_say)
    _say(f"verifier: {verifier}", f"drafter:  {drafter}")


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="Folder for the whole run.")],
    parts: Annotated[list[Path], typer.Argument(help="The folders that --shard i/n filled.")],
) -> None:
    """Join the parts of a run into the whole."""
    from fairspec_bench import face

    _print(face.render(face.merge(out, parts)))
    _say(f"run: {out}")


# --------------------------------------------------------------------------- from options to the face


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `run` and `plan` under the names of the face."""
    from fairspec_bench import face

    same = ("gamma", "limit", "batch_size", "device", "dtype", "seed", "temperature", "top_k", "top_p")
    more = ("num_fewshot", "cap", "race_prompts", "race_rounds")
    languages = given["languages"]
    return {
        **{name: given[name] for name in (*same, *more)},
        "languages": None if languages is None else tuple(filter(None, languages.split(","))),
        "chat_template": given["apply_chat_template"],
        "model_args": face.parse_options(given["model_args"]),
        "drafter_args": face.parse_options(given["drafter_args"]),
        "part": face.parse_part(given["shard"]),
    }


# --------------------------------------------------------------------------- printing


def _console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


def _say(*lines: str) -> None:
    for line in lines:
        typer.echo(line)


def _print(shown: Any) -> None:
    _console().print(shown)


def _print_in(format: str, shown: Report | Comparison) -> None:
    from fairspec_bench import face
    from fairspec_bench.records import Report

    if format == "table":
        _print(face.render(shown))
    elif format == "json":
        _say(shown.model_dump_json(indent=1))
    elif format == "csv" and isinstance(shown, Report):
        _say(face.report_frame(shown).to_csv(index=False).rstrip("\n"))
    else:
        known = "table, json, csv" if isinstance(shown, Report) else "table, json (of two runs)"
        raise FairspecError(f"--format {format}: unknown. Known: {known}.")


def _finding(finding: Finding) -> str:
    mark = "ok     " if finding.ok else "MISSING" if finding.needed else "absent "
    return f"{mark} {finding.name}: {finding.found}{f'. {finding.advice}' if finding.advice else ''}"


def _print_plan(plan: Plan) -> None:
    from rich.table import Table

    table = Table("task", "prompts", "dropped", "prompt tokens", "longest", "output tokens ≤", box=None)
    for task in plan.tasks:
        counts = (task.prompts, task.dropped, task.prompt_tokens, task.longest_prompt, task.most_output_tokens)
        table.add_row(task.task, *(f"{count:,}" for count in counts))
    _print(table)
    _say("memory: " + ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in plan.memory_bytes.items()))
    _say(f"disk: {plan.disk_bytes / 2**20:,.1f} MiB")
    if plan.hours is not None:
        stages = ", ".join(f"{stage} {hours:.2f}" for stage, hours in plan.hours.items())
        _say(f"hours: {sum(plan.hours.values()):.2f} at most ({stages})")
    for assumption in plan.assumptions:
        _say(f"  assumed: {assumption}")


def _silence() -> None:
    """Weights of the size that is scored here load in a moment: no bar of its own for each model."""
    import transformers

    transformers.utils.logging.disable_progress_bar()


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with an ETA on a terminal, else a plain line whenever another unit begins."""
    _silence()
    with _bar() if sys.stderr.isatty() else _plain() as watch:
        yield watch


@contextmanager
def _plain() -> Iterator[Callable[[Progress], None]]:
    seen: set[object] = set()

    def watch(progress: Progress) -> None:
        if progress.unit not in seen:
            seen.add(progress.unit)
            share = progress.done / progress.total
            typer.echo(f"{share:4.0%} {progress.unit.stage:<14} {progress.unit.shard}", err=True)

    yield watch


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    bar = Bar(*columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True)

    def watch(progress: Progress) -> None:
        label = f"{progress.unit.stage} {progress.unit.shard}"
        if not bar.task_ids:
            bar.add_task(label, total=progress.total, completed=int(progress.done))
        bar.update(bar.task_ids[0], completed=progress.done, description=label)

    with bar:
        yield watch


# --------------------------------------------------------------------------- errors


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    command = shlex.join(["fairspec", *given])
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    if not debug:
        warnings.simplefilter("ignore")
    try:
        status = app(given, prog_name="fairspec", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except FairspecError as error:
        if debug:
            raise
        typer.echo(f"fairspec: {error}", err=True)
        status = 2
    except USAGE_ERROR as error:
        typer.echo(f"fairspec: {_usage(error)} See fairspec --help.", err=True)
        status = 2
    except BrokenPipeError:
        status = 0
    except Exception as error:
        if debug:
            raise
        message = " ".join(str(error).split())[:200]
        typer.echo(f"fairspec: an error of its own: {type(error).__name__}: {message} (--debug shows where)", err=True)
        status = 2
    if status == STOPPED:
        typer.echo(f"Stopped. What was finished is kept; to go on: {command}", err=True)
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: Exception) -> str:
    return " ".join(str(getattr(error, "format_message", lambda: error)()).split())
