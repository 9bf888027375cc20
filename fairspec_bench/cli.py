"""`fairspec`: parse, call the face, print. No logic, and nothing heavy is imported before a command needs it.

Exit status: 0 done, 1 a failed check, 2 an error of usage or data (one line on stderr), 130 stopped by Ctrl-C. With
`--debug` an error shows its traceback.
"""

from __future__ import annotations

import inspect
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairspec_bench import cli_board
from fairspec_bench.records import FairspecError
from fairspec_bench.terminal import mending, progress, say, show_rich, shown, silence

if TYPE_CHECKING:
    from fairspec_bench.health import Finding
    from fairspec_bench.measure.compare import Comparison
    from fairspec_bench.records import Report
    from fairspec_bench.score.plan import Plan

app = typer.Typer(
    name="fairspec",
    help="Who gets the speed-up of speculative decoding? Measured per language, with intervals.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_board.submit_app, name="submit")
app.add_typer(cli_board.site_app, name="site")
app.command("track")(cli_board.track)

# typer keeps its own copy of click: the class of usage errors is found through one of its children.
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

STOPPED = 130  # what a shell calls a process that Ctrl-C ended; typer turns the interrupt into this status

Verifier = Annotated[str, typer.Argument(help="Folder, Hub id or embedded:verifier.")]
Drafter = Annotated[str, typer.Argument(help="Folder, Hub id, embedded:drafter, lookup, lookup:3 or oracle:0.8.")]
Suites = Annotated[list[str], typer.Option("--suite", help="A suite; repeatable. `fairspec tasks` lists them.")]
Languages = Annotated[str | None, typer.Option(help="Languages, comma-separated. Default: the suite's own.")]
Limit = Annotated[int | None, typer.Option(help="Only the first N prompts of each language.")]
BatchSize = Annotated[int, typer.Option("--batch_size", help="Rows decoded together.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16. auto: bfloat16 on a GPU.")]
Seed = Annotated[int, typer.Option(help="Seed of sampling and of the races' order.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
TopK = Annotated[int, typer.Option("--top_k", help="0 is off.")]
TopP = Annotated[float, typer.Option("--top_p", help="1 is off.")]
Fewshot = Annotated[int | None, typer.Option("--num_fewshot", help="Exemplars. Default: the suite's own.")]
Chat = Annotated[bool, typer.Option("--apply_chat_template", help="Render prompts by the tokenizer's chat template.")]
ModelArgs = Annotated[
    str | None, typer.Option("--model_args", help="k=v,k=v for the verifier: revision, quantization… (docs/MODELS.md).")
]
DrafterArgs = Annotated[str | None, typer.Option("--drafter_args", help="k=v,k=v for the drafter.")]
Cap = Annotated[int | None, typer.Option(help="Most output tokens. Default: the suite's own.")]
RacePrompts = Annotated[int, typer.Option("--race_prompts", help="Prompts per language whose wall-clock is taken.")]
RaceRounds = Annotated[int, typer.Option("--race_rounds", help="Rounds of each race; 0 for no races.")]
RaceWidth = Annotated[
    float | None,
    typer.Option(
        "--race_width",
        help="A language's race ends once its speed-up is known to ± this share of itself; 0: with its prompts. "
        "Default: 0.03, or 0 with --shard.",
        show_default=False,
    ),
]
RaceBudget = Annotated[
    float | None, typer.Option("--race_budget", help="Or once so many seconds of a language are timed.")
]
Gammas = Annotated[str, typer.Option("--gamma", help="Drafts per block. Of 4,1,2 the first counts, all are swept.")]
BatchSizes = Annotated[
    str, typer.Option("--batch_size", help="Rows decoded together. Of 8,1,4 the first counts, all are swept.")
]
Shard = Annotated[str | None, typer.Option(help="i/n: only the i-th of n parts; `fairspec merge` joins them.")]
Float32Check = Annotated[
    bool | None,
    typer.Option(
        "--float32_check/--no-float32_check",
        help="Where greedy texts of a half type leave float32's: loads the verifier in float32 too. Default: if half.",
        show_default=False,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend", help="How blocks are run: eager, compile, graph; or vllm, another engine. auto: as pays here."
    ),
]
Out = Annotated[Path | None, typer.Option(help="Run folder. Default: runs/VERIFIER--DRAFTER.")]
ExecutorName = Annotated[str, typer.Option("--executor", help="Who does the work: local, or ray (docs/SCALING.md).")]
Workers = Annotated[
    int | None, typer.Option(help="With --executor ray. Default: one a GPU, or one a machine.", show_default=False)
]
Format = Annotated[str, typer.Option("--format", help="table, csv, json, md, latex or parquet.")]
Command = Callable[..., None]


@app.callback()
def common(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Options of every command."""


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Three languages, few prompts.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the run and the site.")] = Path("runs/demo"),
) -> None:
    """The main job on the built-in suites and pair: score, mend with s-CDF, score again, build the site, say where."""
    from fairspec_bench import face

    with progress() as show:
        made = face.demo(out, quick=quick, watch=shown(show), watch_mending=mending(show))
    show_rich(face.render(made.reports[0]))
    show_rich(face.render(made.change))
    say(f"runs: {made.before}, {made.after}", f"page: {made.page}")


@app.command()
def doctor() -> None:
    """Device, versions, data and models: found or missing, and what to do about it."""
    from fairspec_bench import health

    silence()
    findings = health.doctor()
    for finding in findings:
        say(_finding(finding))
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def tasks(suite: Annotated[str | None, typer.Argument(help="Show one suite and its first prompt.")] = None) -> None:
    """The suites; or one: languages, prompts, licence, hashes, and a prompt shown whole."""
    from fairspec_bench import face

    if suite is None:
        for info in face.list_suites():
            say(f"{info.name:<16}{len(info.languages):>3} languages  {info.licence:<13}{info.title}")
        return
    status, prompt = face.describe_suite(suite)
    info = status.info
    say(f"{info.name} {info.version}: {info.title}", f"licence {info.licence}, {info.home}")
    for language, count in status.prompts.items():
        published = {True: "as published", False: "NOT the published data", None: ""}[status.as_published[language]]
        say(f"  {language:<10}{count:>5} prompts  data sha256 {status.data_sha256[language][:16]}  {published}")
    if status.problem:
        raise FairspecError(status.problem)
    if prompt is not None:
        text = prompt.text if prompt.text is not None else str(prompt.messages)
        say("", f"{prompt.key}, cap {prompt.cap}, stops {list(prompt.stops)}:", text)


def _asking_like(other: Command) -> Callable[[Command], Command]:
    """Give a command the parameters of another before its own: typer reads them from its signature."""

    def give(command: Command) -> Command:
        shared, own = (inspect.signature(each, eval_str=True).parameters.values() for each in (other, command))
        named = [parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD]
        command.__signature__ = inspect.Signature([*shared, *named])  # type: ignore[attr-defined]
        return command

    return give


@app.command()
def plan(
    verifier: Verifier,
    drafter: Drafter,
    suite: Suites,
    languages: Languages = None,
    gamma: Gammas = "4",
    limit: Limit = None,
    batch_size: BatchSizes = "8",
    device: Device = "cpu",
    dtype: Dtype = "auto",
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
    race_width: RaceWidth = None,
    race_budget: RaceBudget = None,
    shard: Shard = None,
    float32_check: Float32Check = None,
    backend: Backend = "auto",
) -> None:
    """Tokens, memory, disk and hours of a run beforehand."""
    from fairspec_bench import face

    silence()
    _print_plan(face.plan(verifier, drafter, suite, **_options(locals())))


@app.command()
@_asking_like(plan)
def run(out: Out = None, executor: ExecutorName = "local", workers: Workers = None, **asked: Any) -> None:
    """Score a pair on suites. Stopped or killed, the same command goes on where it was."""
    from fairspec_bench import face

    pair = asked["verifier"], asked["drafter"]
    folder = out or face.default_out(*pair)
    with progress() as show:
        report = face.run(
            *pair,
            asked["suite"],
            folder,
            executor=executor,
            workers=workers,
            watch=shown(show),
            say=say,
            **_options(asked),
        )
    if report.config.part:
        say(f"part {asked['shard']} done: {folder}. When all are: fairspec merge OUT PART…")
    else:
        show_rich(face.render(report))
        say(f"run: {folder}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    other: Annotated[Path | None, typer.Argument(help="Another: the paired difference, other − first.")] = None,
    format: Format = "table",
    out: Annotated[Path | None, typer.Option(help="File to write to; parquet needs one.")] = None,
) -> None:
    """The tables of a run, computed anew from its lines; of two runs, their paired difference."""
    from fairspec_bench import face

    face.check_format(format, to_file=out is not None)
    _print_in(format, out, face.report(run) if other is None else face.compare(run, other))


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

    verifier, drafter = face.train_testbed(text, out, skew=skew, scale=scale, seed=seed, say=say)
    say(f"verifier: {verifier}", f"drafter:  {drafter}")


@app.command()
def mitigate(
    verifier: Verifier,
    drafter: Annotated[str, typer.Argument(help="Folder, Hub id or embedded:drafter: a model.")],
    method: Annotated[str, typer.Option(help="How; `fairspec methods` lists them.")] = "s-cdf",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the mended drafter. Default: drafters/DRAFTER-METHOD.")
    ] = None,
    prompts: Annotated[
        list[str] | None, typer.Option(help="embedded_math, embedded_story or a folder of <task>.txt; repeatable.")
    ] = None,
    languages: Annotated[str | None, typer.Option(help="Tasks, comma-separated. Default: all of --prompts.")] = None,
    limit: Annotated[int | None, typer.Option(help="Most prompts per task; a fifth is held out. Default: 80.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 60,
    lr: Annotated[float | None, typer.Option(help="Learning rate. Default: 2e-3 embedded, else 2e-5.")] = None,
    per_task: Annotated[int, typer.Option("--per_task", help="Texts of each task a step.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the batches.")] = 0,
    batch_size: BatchSize = 48,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    cap: Cap = None,
    lora: Annotated[int | None, typer.Option(help="Train adapters of this rank instead (needs peft).")] = None,
    apply_chat_template: Chat = False,
    model_args: ModelArgs = None,
    drafter_args: DrafterArgs = None,
) -> None:
    """Mend a drafter on the verifier's own text, by s-CDF or a rival. Stopped, the same command goes on."""
    from fairspec_bench import face

    with progress() as show:
        mended = face.mitigate(
            verifier,
            drafter,
            method,
            out,
            prompts=prompts or (),
            languages=_names(languages),
            limit=limit,
            steps=steps,
            lr=lr,
            per_task=per_task,
            seed=seed,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            cap=cap,
            lora=lora,
            chat_template=apply_chat_template,
            model_args=face.parse_options(model_args),
            drafter_args=face.parse_options(drafter_args),
            watch=mending(show),
        )
    show_rich(face.render(mended))
    say(f"drafter: {mended.folder}")


@app.command()
def reproduce(
    pair: Annotated[str, typer.Argument(help="A pair of `fairspec pairs`, or VERIFIER,DRAFTER.")] = "embedded",
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/reproduce-PAIR.")] = None,
    suite: Annotated[list[str] | None, typer.Option("--suite", help="Default: the pair's own suites.")] = None,
    languages: Languages = None,
    limit: Limit = None,
    prompts: Annotated[
        list[str] | None, typer.Option(help="What to mend on: a folder of <task>.txt; the embedded pair has its own.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many times the drafter is mended.")] = 3,
    steps: Annotated[int, typer.Option(help="Training steps of each.")] = 60,
    lr: Annotated[float | None, typer.Option(help="Learning rate. Default: 2e-3 embedded, else 2e-5.")] = None,
    training_limit: Annotated[
        int | None, typer.Option("--training_limit", help="Most training prompts a task.")
    ] = None,
    other: Annotated[
        list[Path] | None, typer.Option(help="Run folder of another pair, for the order of languages; repeatable.")
    ] = None,
    batch_size: BatchSize = 8,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    race_prompts: RacePrompts = 50,
    race_rounds: RaceRounds = 5,
    as_json: Annotated[bool, typer.Option("--json", help="The claims as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The claims as Markdown.")] = False,
) -> None:
    """The paper's claims, each beside what was measured here. Stopped, the same command goes on."""
    from fairspec_bench import face

    with progress() as show:
        made = face.reproduce(
            pair,
            out,
            **({"suites": suite} if suite else {}),
            languages=_names(languages),
            limit=limit,
            prompts=prompts or (),
            seeds=tuple(range(seeds)),
            steps=steps,
            lr=lr,
            training_limit=training_limit,
            others=other or (),
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            race_prompts=race_prompts,
            race_rounds=race_rounds,
            watch=shown(show),
            watch_mending=mending(show),
            say=lambda line: typer.echo(line, err=True),
        )
    if as_json:
        say(made.claims.model_dump_json(indent=1))
    elif as_markdown:
        say(face.markdown(made).rstrip("\n"))
    else:
        show_rich(face.render(made))
        say(f"runs: {made.before.parent}")


@app.command()
def agree(
    run: Annotated[Path, typer.Argument(help="A finished run folder of --backend vllm.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON instead of Markdown.")] = False,
) -> None:
    """Whether vLLM and this engine agree: the same ids, rounds and accepted drafts. Exit status 1 where they do not."""
    from fairspec_bench import face

    silence()
    found = face.agree(run)
    say(found.model_dump_json(indent=1) if as_json else face.agreement_page(found).rstrip("\n"))
    if not found.holds:
        raise typer.Exit(1)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="causal, rivals or transfer; causal trains the drafters of the others.")],
    out: Annotated[Path, typer.Option(help="Folder of all studies; this one's is inside.")] = Path("runs/studies"),
    workers: Annotated[int, typer.Option(help="Processes, of one thread each.")] = 2,
) -> None:
    """A study of the embedded verifier: hours on two cores. Stopped, the same command goes on."""
    from fairspec_bench import face

    silence()
    say(f"page: {face.study(name, out, workers=workers, say=lambda line: typer.echo(line, err=True))}")


@app.command()
def pairs() -> None:
    """The pairs of models that `reproduce` knows: memory, licences, revisions."""
    from fairspec_bench import face

    for pair in face.list_pairs():
        pinned = "pinned" if pair.pinned else "revision not pinned"
        licences = ", ".join(dict.fromkeys((pair.verifier.licence, pair.drafter.licence)))
        say(f"{pair.name:<28}{pair.memory_bytes / 2**30:7.2f} GiB  {licences}{', gated' * pair.gated}; {pinned}")
        say(f"{'':<28}{pair.verifier.model} ← {pair.drafter.model}")


@app.command()
def pin(
    names: Annotated[
        list[str] | None, typer.Argument(help="Pairs or Hub ids of models. Default: every pair that is not pinned.")
    ] = None,
) -> None:
    """Ask the Hub for commits: written into the files of pairs, printed for models."""
    from fairspec_bench import face

    for name in names or [pair.name for pair in face.list_pairs() if not pair.pinned]:
        for model, commit in face.pin(name):
            say(f"{model} revision={commit}")
        if "/" not in name:
            say(f"pinned: {name}")


@app.command()
def methods() -> None:
    """The ways to mend a drafter."""
    from fairspec_bench import face

    for name, title, task_aware in face.list_methods():
        say(f"{name:<18}{title}{' [task-aware]' if task_aware else ''}")


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="Folder for the whole run.")],
    parts: Annotated[list[Path], typer.Argument(help="The folders that --shard i/n filled.")],
) -> None:
    """Join the parts of a run into the whole."""
    from fairspec_bench import face

    show_rich(face.render(face.merge(out, parts)))
    say(f"run: {out}")


@app.command(
    "lm-eval",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
def lm_eval(context: typer.Context) -> None:
    """lm-eval with our engine as the model `speculative`: any generate_until task, acceptance beside its scores.

    \b
    fairspec lm-eval --model speculative \\
        --model_args verifier=VERIFIER,drafter=DRAFTER,gamma=4 \\
        --tasks TASK,TASK --batch_size 8 --output_path OUT --log_samples

    \b
    --model_args of `speculative`:
      verifier, drafter   as in `fairspec run`: folder, Hub id, embedded:…,
                          an n-gram folder, lookup, oracle:0.8
      gamma               drafts per block (4)
      dtype               float32, bfloat16, float16; auto: bfloat16 on a GPU
      backend             eager, compile, graph; auto: as pays here
      revision, attention, device_map                  the verifier's
      drafter_revision, drafter_temperature, …         the drafter's
      truncation, max_length, add_bos_token, think_end_token, enable_thinking,
      chat_template_args, tokenizer, …                 as in lm-eval's hf

    Texts and scores are those of `--model hf` with the verifier alone. Samples and results get `speculative`: tokens,
    blocks, drafts, what was tested and accepted by position, tokens per verifier call.

    All else is lm-eval's own and goes through unchanged: `fairspec lm-eval run --help`, `fairspec lm-eval ls tasks`.
    """
    try:
        from fairspec_bench import harness
    except ModuleNotFoundError as error:
        raise FairspecError(f"lm-eval: its hf model needs {error.name}. pip install {error.name}.") from error
    silence()
    told = harness.run(context.args)
    if told:
        _print_acceptance(told)


# --------------------------------------------------------------------------- from options to the face


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `run` and `plan` under the names of the face."""
    from fairspec_bench import face

    same = ("limit", "device", "dtype", "seed", "temperature", "top_k", "top_p", "num_fewshot", "cap", "float32_check")
    race = ("race_prompts", "race_rounds", "race_width", "race_budget")
    languages = given["languages"]
    return {
        **{name: given[name] for name in (*same, *race)},
        **{name: face.parse_numbers(name, given[name]) for name in ("gamma", "batch_size")},
        "backend": None if given["backend"] == "auto" else given["backend"],
        "languages": _names(languages),
        "chat_template": given["apply_chat_template"],
        "model_args": face.parse_options(given["model_args"]),
        "drafter_args": face.parse_options(given["drafter_args"]),
        "part": face.parse_part(given["shard"]),
    }


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(filter(None, text.split(",")))


# --------------------------------------------------------------------------- printing


def _print_in(format: str, out: Path | None, shown: Report | Comparison) -> None:
    from fairspec_bench import face

    if out is not None:
        face.export(shown, format, out)
        say(f"written: {out}")
    elif format == "table":
        show_rich(face.render(shown))
    else:
        say(face.export(shown, format).decode().rstrip("\n"))


def _finding(finding: Finding) -> str:
    mark = "ok     " if finding.ok else "MISSING" if finding.needed else "absent "
    return f"{mark} {finding.name}: {finding.found}{f'. {finding.advice}' if finding.advice else ''}"


def _print_acceptance(told: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.table import Table

    shown = ("acceptance_observed", "draft_utilisation", "block_efficiency", "tokens_per_verifier_call")
    table = Table("task", "answers", "tokens", *(name.replace("_", " ") for name in shown), box=None)
    for task, figures in told.items():
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
