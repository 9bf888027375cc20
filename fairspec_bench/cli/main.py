"""`fairspec`: parse, call the API, print. No logic, and nothing heavy is imported before arguments are checked.

Exit status: 0 done, 1 a failed check, 2 an error of usage or data (one line on stderr), 130 stopped by Ctrl-C. With
`--debug` an error shows its traceback.
"""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairspec_bench.api.experiments import REPRODUCE, SHARED
from fairspec_bench.api.mitigation import MITIGATE
from fairspec_bench.api.options import RUN
from fairspec_bench.cli import board
from fairspec_bench.cli.grouped_help import GroupedCommand, GroupedCommands
from fairspec_bench.cli.parameters import declared
from fairspec_bench.cli.progress import of_run, of_training, progress, say, show_rich, silence
from fairspec_bench.schemas.base import FairspecError, unknown
from fairspec_bench.schemas.options import ExecutionOptions, ReproduceOptions, check_values, parameters

if TYPE_CHECKING:
    from fairspec_bench.api.doctor import CheckResult
    from fairspec_bench.metrics.comparison import Comparison
    from fairspec_bench.schemas.report import Report
    from fairspec_bench.scoring.plan import Plan

app = typer.Typer(
    name="fairspec",
    cls=GroupedCommands,
    help="Who gets the speed-up of speculative decoding? Measured per language, with intervals.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
MEASURE, IMPROVE, PUBLISH, LOOK = "Measure", "Improve", "Publish", "Look"

# typer keeps its own copy of click: the class of usage errors is found through one of its children.
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

Others = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DRAFTER]...", help="More drafters: a run folder each below --out, the verifier's work done once."
    ),
]

STOPPED = 130  # what a shell calls a process that Ctrl-C ended; typer turns the interrupt into this status


def with_others(drafter: str | None, others: list[str] | None) -> str | list[str] | None:
    """All drafters of a command, one of them as it is."""
    return [drafter, *others] if drafter is not None and others else drafter


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"fairspec-bench {version('fairspec-bench')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command."""


# --------------------------------------------------------------------------- measure


@app.command(
    cls=GroupedCommand,
    rich_help_panel=MEASURE,
    epilog="Example:\n\n  fairspec run embedded:verifier embedded:drafter --suite embedded_math --limit 20",
)
@declared(*RUN, *parameters(ExecutionOptions))
def run(options: dict[str, Any], others: Others = None) -> None:
    """Score a pair on suites. Resumable: rerun the same command."""
    from fairspec_bench.api.runs import default_out, run_folders
    from fairspec_bench.api.runs import run as score

    suites, folder, drafter = options.pop("suite"), options.pop("out"), with_others(options.pop("drafter"), others)
    folder = folder or default_out(options["verifier"], drafter)
    with progress() as show:
        found = score(suites=suites, drafter=drafter, out=folder, **options, on_progress=of_run(show), say=say)
    reports = found if isinstance(found, dict) else {drafter: found}
    for report, where in zip(reports.values(), run_folders(folder, drafter).values(), strict=True):
        if shard := report.config.shard:
            say(f"shard {shard[0]}/{shard[1]} done: {where}. When all are: fairspec merge OUT SHARD…")
        else:
            _print_first(report, where)


@app.command(cls=GroupedCommand, rich_help_panel=MEASURE)
@declared(*RUN)
def plan(options: dict[str, Any], others: Others = None) -> None:
    """Estimate the tokens, memory, disk and hours of a run."""
    from fairspec_bench.api.runs import plan as estimate

    silence()
    drafter = with_others(options.pop("drafter"), others)
    found = estimate(suites=options.pop("suite"), drafter=drafter, **options)
    for name, each in found.items() if isinstance(found, dict) else [("", found)]:
        if name:
            say(f"{name}:")
        _print_plan(each)


@app.command(rich_help_panel=MEASURE)
def merge(
    out: Annotated[Path, typer.Argument(help="Folder for the whole run.")],
    shards: Annotated[list[Path], typer.Argument(help="The run folders made with --shard i/n.")],
) -> None:
    """Join the shards of a run into the whole."""
    from fairspec_bench.api.runs import merge as join

    _print_first(join(out, shards), out)


@app.command(cls=GroupedCommand, rich_help_panel=MEASURE)
@declared(*REPRODUCE, *SHARED)
def reproduce(
    options: dict[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="The claims as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The claims as Markdown.")] = False,
) -> None:
    """Judge the paper's claims by what is measured here. Resumable: rerun the same command."""
    from fairspec_bench.api.experiments import reproduce as judge
    from fairspec_bench.api.reports import markdown, render

    suites, count = options.pop("suite"), options.pop("seeds")
    check_values(ReproduceOptions(seeds=count))
    seeds = tuple(range(count))
    with progress() as show:
        made = judge(
            suites=suites,
            seeds=seeds,
            **options,
            on_progress=of_run(show),
            on_training=of_training(show),
            say=lambda line: typer.echo(line, err=True),
        )
    if as_json:
        say(made.claims.model_dump_json(indent=1))
    elif as_markdown:
        say(markdown(made).rstrip("\n"))
    else:
        show_rich(render(made))
        say(f"runs: {made.before.parent}")


@app.command(rich_help_panel=MEASURE)
def agree(
    run: Annotated[Path, typer.Argument(help="A finished run folder of a serving engine.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON instead of Markdown.")] = False,
) -> None:
    """Compare a vLLM run with this engine, prompt by prompt. Ids, rounds, accepted drafts; exit 1 if any differ."""
    from fairspec_bench.api.experiments import agree as compare_engines
    from fairspec_bench.api.experiments import agreement_page

    silence()
    found = compare_engines(run)
    say(found.model_dump_json(indent=1) if as_json else agreement_page(found).rstrip("\n"))
    if not found.holds:
        raise typer.Exit(1)


@app.command(
    "lm-eval",
    rich_help_panel=MEASURE,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
def lm_eval(context: typer.Context) -> None:
    """Run lm-eval with this engine as the model `speculative`. Any generate_until task; acceptance beside its scores.

    \b
    fairspec lm-eval --model speculative \\
        --model_args verifier=VERIFIER,drafter=DRAFTER,gamma=4 \\
        --tasks TASK,TASK --batch_size 8 --output_path OUT --log_samples

    \b
    --model_args of `speculative`:
      verifier, drafter, gamma, dtype, backend         as in `fairspec run`
      revision, attention, device_map                  the verifier's
      drafter_revision, drafter_temperature, …         the drafter's
      truncation, max_length, add_bos_token, think_end_token, enable_thinking,
      chat_template_args, tokenizer, …                 as in lm-eval's hf

    Outputs and scores are those of `--model hf` with the verifier alone. Samples and results get `speculative`:
    tokens, blocks, drafts, what was tested and accepted by position, tokens per verifier call.

    Everything else is lm-eval's own, passed through unchanged: `fairspec lm-eval run --help`, `fairspec lm-eval ls
    tasks`.
    """
    try:
        from fairspec_bench.api.lm_eval import run as evaluate
    except ModuleNotFoundError as error:
        raise FairspecError(f"lm-eval: its hf model needs {error.name}. pip install {error.name}.") from error
    silence()
    acceptance = evaluate(context.args)
    if acceptance:
        _print_acceptance(acceptance)


# --------------------------------------------------------------------------- improve


@app.command(cls=GroupedCommand, rich_help_panel=IMPROVE)
@declared(*MITIGATE)
def mitigate(options: dict[str, Any]) -> None:
    """Fine-tune a drafter on the verifier's own output. Resumable: rerun the same command."""
    from fairspec_bench.api.mitigation import mitigate as fine_tune
    from fairspec_bench.api.reports import render

    with progress() as show:
        made = fine_tune(**options, on_progress=of_training(show))
    show_rich(render(made))
    say(f"drafter: {made.folder}")


@app.command(rich_help_panel=IMPROVE)
def methods() -> None:
    """List the methods of mitigation."""
    from fairspec_bench.api.mitigation import list_methods

    for name, title, task_aware in list_methods():
        say(f"{name:<18}{title}{' [task-aware]' if task_aware else ''}")


@app.command("testbed", rich_help_panel=IMPROVE)
def train_testbed(
    text: Annotated[Path, typer.Option(help="Folder of <language>.txt.")],
    out: Annotated[Path, typer.Option(help="Folder for verifier/ and drafter/.")],
    skew: Annotated[float, typer.Option(help="0: equal shares of the languages; 2: steep.")] = 1.0,
    scale: Annotated[str, typer.Option(help="tiny or small.")] = "tiny",
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.")] = 0,
) -> None:
    """Train a verifier/drafter pair with a known language imbalance. Resumable: rerun the same command."""
    from fairspec_bench.api.mitigation import train_testbed as train

    verifier, drafter = train(text, out, skew=skew, scale=scale, seed=seed, say=say)
    say(f"verifier: {verifier}", f"drafter:  {drafter}")


@app.command(rich_help_panel=IMPROVE)
def study(
    name: Annotated[
        str, typer.Argument(help="causal, compare-methods or transfer; the others need causal's drafters.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of all studies; this one's is inside.")] = Path("runs/studies"),
    workers: Annotated[int, typer.Option(help="Processes, of one thread each.")] = 2,
) -> None:
    """Run an experiment on the embedded verifier. Hours on two cores. Resumable: rerun the same command."""
    from fairspec_bench.api.experiments import study as run_study

    silence()
    say(f"page: {run_study(name, out, workers=workers, say=lambda line: typer.echo(line, err=True))}")


# --------------------------------------------------------------------------- publish

app.add_typer(board.submit_app, name="submit", rich_help_panel=PUBLISH)
app.command("track", rich_help_panel=PUBLISH)(board.track)
app.add_typer(board.site_app, name="site", rich_help_panel=PUBLISH)


# --------------------------------------------------------------------------- look


@app.command(rich_help_panel=LOOK)
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Three languages, few prompts: a minute.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Two suites and longer races: ten minutes.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the run and the site.")] = Path("runs/demo"),
) -> None:
    """Score, fine-tune and rescore the embedded pair. Then build its site."""
    from fairspec_bench.api.demo import demo as run_demo
    from fairspec_bench.reporting.first_screen import render_change

    if quick and full:
        raise FairspecError("--quick and --full: give one of them.")
    with progress() as show:
        made = run_demo(out, size="quick" if quick else "full" if full else "demo", on_progress=show)
    _print_first(made.reports[0], made.before)
    show_rich(render_change(made.change))
    say(f"After fine-tuning with s-CDF: fairspec report {made.after}", f"page: {made.page}")


@app.command(rich_help_panel=LOOK)
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    other: Annotated[Path | None, typer.Argument(help="Another: the paired difference, other − first.")] = None,
    format: Annotated[str, typer.Option("--format", help="table, csv, json, md, latex or parquet.")] = "table",
    out: Annotated[Path | None, typer.Option(help="File to write to; parquet needs one.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Every table, not only the first screen.")] = False,
) -> None:
    """Show what a run found, or the paired difference of two. All is computed from their lines."""
    from fairspec_bench.api import reports

    reports.check_format(format, to_file=out is not None)
    if other is None and format == "table" and out is None and not full:
        _print_first(reports.report(run), run)
    else:
        _print_in(format, out, reports.report(run) if other is None else reports.compare(run, other))


@app.command(rich_help_panel=LOOK)
def advise(
    run: Annotated[Path, typer.Argument(help="A run folder with a race or a sweep.")],
    others: Annotated[
        list[Path] | None, typer.Argument(help="Runs of other drafters for the same verifier: a router over all.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="Requests served at once: a load that the run timed. Default: the fewest.")
    ] = None,
    format: Annotated[str, typer.Option("--format", help="table, json, md, or vllm: commands to start it.")] = "table",
) -> None:
    """Is the drafter worth it, language by language? Which to switch it off for, and what that gains."""
    from fairspec_bench.api import reports

    formats = {
        "table": None,
        "json": lambda advice: advice.model_dump_json(indent=1),
        "md": reports.markdown,
        "vllm": reports.serving_configuration,
    }
    if format not in formats:
        raise unknown("format", format, formats)
    advice = reports.advise(run, others or (), requests=requests)
    if (written := formats[format]) is None:
        show_rich(reports.render(advice))
    else:
        say(written(advice).rstrip("\n"))


@app.command(rich_help_panel=LOOK)
def tasks(suite: Annotated[str | None, typer.Argument(help="Show one suite and its first prompt.")] = None) -> None:
    """List the suites, or show one. Languages, prompts, licence, hashes, first prompt."""
    from fairspec_bench.api.suites import describe_suite, list_suites

    if suite is None:
        for info in list_suites():
            say(f"{info.name:<16}{len(info.languages):>3} languages  {info.licence:<13}{info.title}")
        return
    status, prompt = describe_suite(suite)
    info = status.info
    say(f"{info.name} {info.version}: {info.title}", f"licence {info.licence}, {info.home}")
    for language, count in status.prompts.items():
        published = {True: "as published", False: "NOT the published data", None: ""}[status.as_published[language]]
        say(f"  {language:<10}{count:>5} prompts  data sha256 {status.data_sha256[language][:16]}  {published}")
    if status.problem:
        raise FairspecError(status.problem)
    if prompt is not None:
        text = prompt.text if prompt.text is not None else str(prompt.messages)
        say("", f"{prompt.key}, max_new_tokens {prompt.max_new_tokens}, stops {list(prompt.stops)}:", text)


@app.command(rich_help_panel=LOOK)
def pairs() -> None:
    """List the pairs that `reproduce` takes by name. Memory, licences, revisions."""
    from fairspec_bench.api.models import list_pairs

    for pair in list_pairs():
        pinned = "pinned" if pair.pinned else "revision not pinned"
        licences = ", ".join(dict.fromkeys((pair.verifier.licence, pair.drafter.licence)))
        say(f"{pair.name:<28}{pair.memory_bytes / 2**30:7.2f} GiB  {licences}{', gated' * pair.gated}; {pinned}")
        say(f"{'':<28}{pair.verifier.model} ← {pair.drafter.model}")


@app.command(rich_help_panel=LOOK)
def pin(
    names: Annotated[
        list[str] | None, typer.Argument(help="Pairs or Hub ids of models. Default: every pair that is not pinned.")
    ] = None,
) -> None:
    """Look up commits on the Hub. They are written into the files of pairs, and printed for models."""
    from fairspec_bench.api import models

    for name in names or [pair.name for pair in models.list_pairs() if not pair.pinned]:
        for model, commit in models.pin(name):
            say(f"{model} revision={commit}")
        if "/" not in name:
            say(f"pinned: {name}")


@app.command(rich_help_panel=LOOK)
def doctor(
    verifier: Annotated[str | None, typer.Argument(help="A pair to examine without loading weights.")] = None,
    drafter: Annotated[str | None, typer.Argument(help="Its drafter.")] = None,
) -> None:
    """Check device, versions, data and models, or a pair. What is missing is shown with what to do about it."""
    from fairspec_bench.api import doctor

    silence()
    if verifier is not None:
        pair = doctor.examine_pair(verifier, drafter)
        for finding in pair:
            say(_finding(finding, "OK     ", "REFUSED", "NOTE   "))
        if any(finding.needed and not finding.ok for finding in pair):
            raise typer.Exit(2)
        return
    findings = doctor.doctor()
    for finding in findings:
        say(_finding(finding, "ok     ", "MISSING", "absent "))
    say(doctor.runnable(findings))
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)


# --------------------------------------------------------------------------- printing


def _print_in(format: str, out: Path | None, shown: Report | Comparison) -> None:
    from fairspec_bench.api.reports import export, render

    if out is not None:
        export(shown, format, out)
        say(f"written: {out}")
    elif format == "table":
        show_rich(render(shown))
    else:
        say(export(shown, format).decode().rstrip("\n"))


def _print_first(report: Report, folder: Path) -> None:
    from fairspec_bench.reporting.first_screen import render_first

    show_rich(render_first(report))
    say(f"Every table: fairspec report {folder} --full")


def _finding(finding: CheckResult, ok: str, needed: str, other: str) -> str:
    mark = ok if finding.ok else needed if finding.needed else other
    return f"{mark} {finding.name}: {finding.found}{f'. {finding.advice}' if finding.advice else ''}"


def _print_acceptance(acceptance: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.table import Table

    shown = ("acceptance_observed", "draft_utilisation", "block_efficiency", "tokens_per_verifier_call")
    table = Table("task", "answers", "tokens", *(name.replace("_", " ") for name in shown), box=None)
    for task, figures in acceptance.items():
        ratios = (figures.get(name) for name in shown)
        cells = ("–" if ratio is None else f"{ratio:.3f}" for ratio in ratios)
        table.add_row(task, f"{figures['answers']}", f"{figures.get('tokens', 0):,}", *cells)
    show_rich(table)


def _print_plan(plan: Plan) -> None:
    from rich.table import Table

    table = Table("task", "prompts", "dropped", "prompt tokens", "longest", "output tokens ≤", box=None)
    for task in plan.tasks:
        counts = (task.prompts, task.dropped, task.prompt_tokens, task.longest_prompt, task.most_output_tokens)
        table.add_row(task.task, *(f"{count:,}" for count in counts))
    show_rich(table)
    say("memory: " + ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in plan.memory_bytes.items()))
    say(f"disk: {plan.disk_bytes / 2**20:,.1f} MiB")
    if plan.hours is not None:
        stages = ", ".join(f"{stage} {hours:.2f}" for stage, hours in plan.hours.items())
        say(f"hours: {sum(plan.hours.values()):.2f} at most ({stages})")
    for assumption in plan.assumptions:
        say(f"  assumed: {assumption}")


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
        typer.echo(f"fairspec: {_usage(error)}", err=True)
        status = 2
    except BrokenPipeError:
        status = 0
    except Exception as error:
        if debug:
            raise
        message = " ".join(str(error).split())[:200]
        typer.echo(f"fairspec: internal error: {type(error).__name__}: {message} (--debug shows where)", err=True)
        status = 2
    if status == STOPPED:
        typer.echo(f"Stopped. Finished work is kept; to resume: {command}", err=True)
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: Exception) -> str:
    """A usage error in one line, with the nearest option where one is unknown."""
    context: Any = getattr(error, "ctx", None)
    name, help_of = getattr(error, "option_name", None), context.command_path if context else "fairspec"
    if name is None:
        message = " ".join(str(getattr(error, "format_message", lambda: error)()).split())
        return f"{message.rstrip('.')}. See {help_of} --help." if not message.endswith("?") else message
    known = [option for each in context.command.params for option in each.opts if option.startswith("--")]
    near = get_close_matches(name, known, 1) or [option for option in known if option.startswith(name)][:1]
    return f"No such option: {name}.{f' Did you mean {near[0]}?' if near else ''} See {help_of} --help."
