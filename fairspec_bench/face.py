"""The public face: what `fairspec` does, as functions. Every command is one of these, with the same names and defaults.

Knows which room does what and what the embedded pair is called. Each function loads what it needs when it is called.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fairspec_bench.records import SERVED, FairspecError, Prompt, Report, Shown, write_atomic

if TYPE_CHECKING:
    import pandas
    from rich.console import RenderableType

    from fairspec_bench.engine.drafting import Drafter
    from fairspec_bench.engine.model import Model
    from fairspec_bench.measure.compare import Comparison
    from fairspec_bench.mitigation.card import Result
    from fairspec_bench.records import ModelConfig
    from fairspec_bench.score.plan import Plan
    from fairspec_bench.score.prepare import Ask
    from fairspec_bench.score.run import Watch
    from fairspec_bench.studies.agreement import Agreement
    from fairspec_bench.studies.mend import Watched
    from fairspec_bench.studies.reproduce import Reproduced
    from fairspec_bench.suite.pairs import Pair, Pinned
    from fairspec_bench.suite.tasks import Suite, SuiteInfo, SuiteStatus

EMBEDDED = "embedded:"
CACHE_DIR = "FAIRSPEC_CACHE_DIR"
DEMO_SUITES = ("embedded_math", "embedded_story")
DEMO: Mapping[str, Any] = {"limit": 20, "batch_size": 20, "race_prompts": 3, "race_rounds": 5}
DEMO_QUICK: Mapping[str, Any] = {
    "languages": ("en", "ja", "te"),
    "limit": 6,
    "batch_size": 6,
    "race_prompts": 2,
    "race_rounds": 2,
}
DEMO_MENDING: Mapping[str, Any] = {
    "prompts": ("embedded_math", "embedded_story"),
    "limit": 40,
    "steps": 40,
    "per_task": 2,
}
DEMO_QUICK_MENDING: Mapping[str, Any] = {
    "prompts": ("embedded_math",),
    "languages": ("en", "ja", "te"),
    "limit": 15,
    "steps": 12,
}

Options = Mapping[str, str | int | float | bool]


# --------------------------------------------------------------------------- suites and models


def list_suites() -> tuple[SuiteInfo, ...]:
    """Every suite by name, without reading data."""
    from fairspec_bench.suite import tasks

    return tasks.list_suites()


def load_suite(name: str, **options: Any) -> Suite:
    """The prompts of a suite and their grading; options are those of `fairspec_bench.suite.tasks.load_suite`.

    Raises `FairspecError`.
    """
    from fairspec_bench.suite import tasks

    return tasks.load_suite(name, **options)


def describe_suite(name: str) -> tuple[SuiteStatus, Prompt | None]:
    """What is at hand of a suite, and its first prompt whole (`None` where the data is missing)."""
    from fairspec_bench.suite import tasks

    status = tasks.describe(name)
    if status.problem:
        return status, None
    return status, tasks.load_suite(name, languages=status.info.languages[:1], limit=1).prompts[0]


def load_pair(
    verifier: str,
    drafter: str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    model_args: Options | None = None,
    drafter_args: Options | None = None,
) -> tuple[Model, Drafter]:
    """A verifier and its drafter, checked to fit each other. Raises `FairspecError`."""
    from fairspec_bench.score.prepare import load_drafter_asked, load_verifier_asked

    given: dict[str, Any] = {"model_args": model_args, "drafter_args": drafter_args, "dtype": dtype, "device": device}
    asked = make_ask(verifier, drafter, (), **given)
    loaded = load_verifier_asked(asked)
    found = load_drafter_asked(asked, loaded)
    assert found is not None
    return loaded, found


def embedded(name: str) -> str | None:
    """The folder that `embedded:verifier` or `embedded:drafter` stands for; `None` for another name."""
    if not name.startswith(EMBEDDED):
        return None
    from fairspec_bench.testbed.pair import embedded_pair

    folders = dict(zip(("verifier", "drafter"), embedded_pair(), strict=True))
    folder = folders.get(name.removeprefix(EMBEDDED))
    if folder is None:
        raise FairspecError(f"{name}: unknown. Known: {', '.join(EMBEDDED + known for known in folders)}.")
    return str(folder)


# --------------------------------------------------------------------------- runs


def make_ask(
    verifier: str,
    drafter: str | None,
    suites: Sequence[str],
    *,
    model_args: Options | None = None,
    drafter_args: Options | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    languages: Sequence[str] | None = None,
    gamma: int | Sequence[int] = 4,
    batch_size: int | Sequence[int] = 8,
    device: str = "cpu",
    dtype: str = "auto",
    **options: Any,
) -> Ask:
    """A run as asked for; `options` are the fields of `fairspec_bench.score.prepare.Ask`. Raises `FairspecError`.

    `dtype` auto: bfloat16 on a GPU, float32 on a CPU. Of several `gamma` or `batch_size` the first is the run's own,
    and all are swept.
    """
    from fairspec_bench.score.prepare import Ask, drafter_ask, make_rule, model_ask

    return Ask(
        verifier=model_ask(verifier, embedded(verifier), model_args),
        drafter=drafter_ask(drafter, embedded(drafter), drafter_args) if drafter else None,
        suites=tuple(suites),
        rule=make_rule(temperature, top_k, top_p),
        languages=tuple(languages) if languages is not None else None,
        device=device,
        dtype=("bfloat16" if device.startswith("cuda") else "float32") if dtype == "auto" else dtype,
        **_own_and_swept("gamma", gamma),
        **_own_and_swept("batch_size", batch_size),
        **options,
    )


def _own_and_swept(name: str, given: int | Sequence[int]) -> dict[str, Any]:
    values = (given,) if isinstance(given, int) else tuple(given)
    if not values:
        raise FairspecError(f"{name}: no value. Give at least one.")
    return {name: values[0], f"{name}s": values[1:] if len(values) > 1 else ()}


def run(
    verifier: str,
    drafter: str | None,
    suites: Sequence[str],
    out: str | Path | None = None,
    *,
    executor: str = "local",
    workers: int | None = None,
    cache: Path | Literal["default"] | None = "default",
    watch: Watch | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Report:
    """Score a pair on suites in the run folder `out`, going on where an earlier call stopped; → its report.

    `options` are those of `fairspec_bench.face.make_ask`. A part of a run (`part=(i, n)`) gives a report of what it
    has; `merge` joins parts. `executor` is one of `score.executors`: `local`, or `ray` with so many `workers` (by
    default one a GPU, or a machine). `say` is told how blocks are run, where that is worth a word, and of workers
    lost. Raises `FairspecError`.
    """
    from fairspec_bench.score import executors
    from fairspec_bench.score.run import conduct

    ask = make_ask(verifier, drafter, suites, **options)
    folder = Path(out) if out is not None else default_out(verifier, drafter)
    if ask.backend == SERVED:
        if executor != "local":
            raise FairspecError(f"executor={executor}: not with backend=vllm, which spreads itself. Leave out one.")
        from fairspec_bench.serving.run import run_served

        return run_served(ask, folder, watch=watch)
    kept, tell = cache_folder() if cache == "default" else cache, say or (lambda line: None)
    with executors.start(executor, ask, cache=kept, workers=workers, say=tell) as started:
        if started.note:
            tell(f"note: {started.note}")
        return conduct(started, folder, watch=watch)


def plan(verifier: str, drafter: str | None, suites: Sequence[str], **options: Any) -> Plan:
    """What the same call of `run` would take: tokens, memory, disk, hours. Raises `FairspecError`."""
    from fairspec_bench.score.plan import plan_run

    ask = make_ask(verifier, drafter, suites, **options)
    if ask.backend == SERVED:
        raise FairspecError(f"backend={SERVED}: a plan times this engine, not another. Leave --backend out.")
    return plan_run(ask)


def default_out(verifier: str, drafter: str | None) -> Path:
    """`runs/VERIFIER--DRAFTER`, each by the last part of its name."""
    return Path("runs") / f"{slug(verifier)}--{slug(drafter or 'none')}"


def slug(name: str) -> str:
    """The last part of a model's name, fit for a folder's."""
    return re.sub(r"[^\w.-]+", "-", Path(name).name).strip("-.")


def cache_folder() -> Path:
    """Where references are kept for other runs: `FAIRSPEC_CACHE_DIR`, else the user's cache folder."""
    from platformdirs import user_cache_path

    root = os.environ.get(CACHE_DIR)
    return (Path(root) if root else user_cache_path("fairspec-bench")) / "references"


def merge(out: str | Path, parts: Sequence[str | Path]) -> Report:
    """Join the parts of a run made with `part=(i, n)`; → the report of the whole. Raises `FairspecError`."""
    from fairspec_bench.score.merge import merge as join

    return report(join(Path(out), [Path(part) for part in parts]).path)


# --------------------------------------------------------------------------- reports


def report(folder: str | Path) -> Report:
    """The report of a run, computed anew from its lines; written beside them if the run is whole.

    Of an unfinished run or a part it is the report so far, flagged so. Raises `RecordError` for damaged lines.
    """
    from fairspec_bench.score.folder import RunFolder
    from fairspec_bench.score.run import make_report

    return make_report(RunFolder(Path(folder)))


def report_frame(shown: Report | Comparison) -> pandas.DataFrame:
    """Every figure of a report, or every change of a comparison, one a row: docs/DATA.md has the columns."""
    from fairspec_bench.measure import frames

    return frames.report_frame(shown) if isinstance(shown, Report) else frames.comparison_frame(shown)


def lines_frame(folder: str | Path, kind: str) -> pandas.DataFrame:
    """A run's lines of one kind (trace, answer, replay, timing …), one a row: docs/DATA.md has the columns.

    Raises `FairspecError` for an unknown kind, `RecordError` for damaged lines.
    """
    from fairspec_bench.measure import frames
    from fairspec_bench.score.folder import RunFolder
    from fairspec_bench.score.run import lines_of

    opened = RunFolder(Path(folder))
    return frames.lines_frame(opened.config, lines_of(opened), kind)


def compare(first: str | Path, second: str | Path) -> Comparison:
    """The paired differences of two runs on the same texts, second − first. Raises `FairspecError`."""
    from fairspec_bench.studies import reproduce

    return reproduce.compare(Path(first), Path(second))


def render(shown: Report | Comparison | Mended | Reproduced) -> RenderableType:
    """A report, a comparison, a mending or judged claims as Rich tables."""
    from fairspec_bench.measure import compare, show
    from fairspec_bench.studies.claims import render_claims
    from fairspec_bench.studies.reproduce import Reproduced

    if isinstance(shown, Reproduced):
        return render_claims(shown.claims)
    if isinstance(shown, Mended):
        from fairspec_bench.mitigation.card import render_result

        return render_result(shown.result)
    return show.render(shown) if isinstance(shown, Report) else compare.render_comparison(shown)


def markdown(shown: Report | Comparison | Mended | Reproduced) -> str:
    """The tables of `render` as Markdown."""
    from fairspec_bench.measure import formats

    return formats.markdown(render(shown))


def html(shown: Report | Comparison) -> str:
    """The tables of `render` as HTML for a notebook, below the names of a run's models."""
    from rich.console import Group

    from fairspec_bench.measure import formats, show

    tables = render(shown)
    return formats.html(Group(show.headline(shown.config), tables) if isinstance(shown, Report) else tables)


Shown.shown_by = html  # what notebooks ask a report or comparison for; records themselves know no rendering

FORMATS = ("table", "csv", "json", "md", "latex", "parquet")


def check_format(format: str, *, to_file: bool = True) -> None:
    """Raises `FairspecError` for a format that is none of `FORMATS`, or that is not text and has no file to go to."""
    if format not in FORMATS:
        raise FairspecError(f"--format {format}: unknown. Known: {', '.join(FORMATS)}.")
    if format == "parquet" and not to_file:
        raise FairspecError("--format parquet: no text to show. Give --out FILE.")


def export(shown: Report | Comparison, format: str, out: str | Path | None = None) -> bytes:
    """A report or comparison in one of `FORMATS`, text as UTF-8; also written to the file `out`, whole or not at all.

    Raises `FairspecError` for an unknown format, `RecordError` for a file that cannot be written.
    """
    from fairspec_bench.measure import formats, frames

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
    from fairspec_bench.site.changes import Changed

    if not runs:
        raise FairspecError("site: no runs given. Name one or more run folders.")
    shown = [Changed(Path(first), Path(second), compare(first, second)) for first, second in changes]
    return build.build_site([Path(run) for run in runs], Path(out), shown)


# --------------------------------------------------------------------------- mending


def mitigate(
    verifier: str,
    drafter: str,
    method: str = "s-cdf",
    out: str | Path | None = None,
    *,
    prompts: Sequence[str] = (),
    languages: Sequence[str] | None = None,
    steps: int = 60,
    lr: float | None = None,
    per_task: int = 3,
    seed: int = 0,
    lora: int | None = None,
    model_args: Options | None = None,
    drafter_args: Options | None = None,
    cache: Path | Literal["default"] | None = "default",
    watch: Callable[[Watched], None] = lambda seen: None,
    **options: Any,
) -> Mended:
    """Mend a drafter by one of `mitigation.methods.METHODS` into the folder `out`; → where it is and what came of it.

    `prompts` are names of built-in ones or folders of `<task>.txt`; the embedded verifier has a default. `lr` defaults
    to 2e-3 for the embedded pair and 2e-5 elsewhere. `options` are the fields of
    `fairspec_bench.studies.mend.Ask`. Stopped, the same call goes on. Raises `FairspecError`.
    """
    from fairspec_bench.mitigation.trainer import make_recipe
    from fairspec_bench.score.prepare import drafter_ask, model_ask
    from fairspec_bench.studies import mend

    home = embedded(verifier)
    if not prompts and home is None:
        raise FairspecError("no prompts to mend on. Give --prompts NAME or a folder of <task>.txt.")
    ask = mend.Ask(
        verifier=model_ask(verifier, home, model_args),
        drafter=drafter_ask(drafter, embedded(drafter), drafter_args),
        method=method,
        prompts=tuple(prompts) or ("embedded_math",),
        recipe=make_recipe(steps=steps, rate=lr or (2e-5 if home is None else 2e-3), per_task=per_task, seed=seed),
        languages=tuple(languages) if languages is not None else None,
        lora_rank=lora,
        **options,
    )
    folder = Path(out) if out is not None else Path("drafters") / f"{slug(drafter)}-{method}"
    result = mend.mend(ask, folder, cache=cache_folder() if cache == "default" else cache, watch=watch)
    return Mended(folder, result)


@dataclass(frozen=True)
class Mended:
    """A mended drafter's folder and what came of it."""

    folder: Path
    result: Result


def list_methods() -> tuple[tuple[str, str, bool], ...]:
    """Every way to mend a drafter: its name, its title, and whether it must be told each prompt's task."""
    from fairspec_bench.mitigation.methods import METHODS

    return tuple((name, method.title, method.task_aware) for name, method in METHODS.items())


def list_pairs() -> tuple[Pair, ...]:
    """The pairs of models that `reproduce` knows by name. Raises `FairspecError` for a file that is none."""
    from fairspec_bench.suite import pairs

    return pairs.list_pairs()


def pin(name: str) -> tuple[Pinned, ...]:
    """The commits that models now mean on the Hub: written into the file of a pair, only told for a model's id.

    Models of a pair that name a commit keep it and are left out. Raises `FairspecError`.
    """
    from fairspec_bench import hub
    from fairspec_bench.suite import pairs

    if name in {pair.name for pair in pairs.list_pairs()}:
        return pairs.pin(name)
    if "/" not in name or not hub.HUB_ID.fullmatch(name):
        raise FairspecError(f"{name}: no pair, and no Hub id (owner/name). `fairspec pairs` lists the pairs.")
    return (pairs.Pinned(name, hub.resolve(name)),)


def reproduce(
    pair: str = "embedded",
    out: str | Path | None = None,
    *,
    prompts: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    others: Sequence[str | Path] = (),
    steps: int = 60,
    lr: float | None = None,
    training_limit: int | None = None,
    watch: Watch | None = None,
    watch_mending: Callable[[Watched], None] = lambda seen: None,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Reproduced:
    """Judge the paper's claims on a pair of `list_pairs`, or `VERIFIER,DRAFTER`, scored, mended and scored again.

    → the claims judged, and the run folders they rest on. Mended by s-CDF, once for each seed. `options` are those of
    `fairspec_bench.face.make_ask`, by default the pair's own suites. Without `prompts` only the embedded verifier's
    drafter is mended, and the claims about mending are not testable. `others` are run folders of other pairs, for the
    order of languages. Raises `FairspecError`.
    """
    from fairspec_bench.mitigation.trainer import make_recipe
    from fairspec_bench.score.prepare import drafter_ask, model_ask
    from fairspec_bench.studies import mend
    from fairspec_bench.studies.reproduce import run_reproduce

    names, revisions, given = _pair(pair)
    home = embedded(names[0])
    given |= options
    ask = make_ask(*names, given.pop("suites"), model_args=revisions[0], drafter_args=revisions[1], **given)
    mending = None
    if prompts or home is not None:
        mending = mend.Ask(
            verifier=model_ask(names[0], home, revisions[0]),
            drafter=drafter_ask(names[1], embedded(names[1]), revisions[1]),
            method="s-cdf",
            prompts=tuple(prompts) or ("embedded_math",),
            recipe=make_recipe(steps=steps, rate=lr or (2e-5 if home is None else 2e-3)),
            languages=ask.languages,
            limit=training_limit,
            chat_template=ask.chat_template,
            dtype=ask.dtype,
            device=ask.device,
        )
    folder = Path(out) if out is not None else Path("runs") / f"reproduce-{slug(names[1]) if ',' in pair else pair}"
    return run_reproduce(
        ask,
        mending,
        folder,
        seeds=seeds,
        others=[report(other) for other in others],
        cache=cache_folder(),
        watch=watch or (lambda seen: None),
        watch_mending=watch_mending,
        say=say,
    )


def agree(run: str | Path) -> Agreement:
    """A finished vLLM run beside our own loop and replay of the same pair: what they count alike and what not.

    Raises `FairspecError`.
    """
    from fairspec_bench.records import RunConfig, read_record
    from fairspec_bench.score.folder import RUN
    from fairspec_bench.score.prepare import drafter_ask, model_ask
    from fairspec_bench.studies import agreement

    config = read_record(Path(run) / RUN, RunConfig)
    if config.drafter is None:
        raise FairspecError(f"{run}: has no drafter, so nothing to agree on. Run it with one.")
    (verifier, pinned), (drafter, its_pinned) = map(_as_run, (config.verifier, config.drafter))
    return agreement.agree(
        Path(run),
        model_ask(verifier, embedded(verifier), pinned),
        drafter_ask(drafter, embedded(drafter), its_pinned),
    )


def _as_run(model: ModelConfig) -> tuple[str, Options]:
    """A model of a run by its name, at the commit that was run."""
    from fairspec_bench.hub import COMMIT

    revision = model.revision or ""
    return model.name, {"revision": revision} if COMMIT.fullmatch(revision) else {}


def agreement_page(found: Agreement) -> str:
    """The same as Markdown."""
    from fairspec_bench.studies import agreement

    return agreement.agreement_page(found)


STUDIES = ("causal", "rivals", "transfer")
STUDIED_SKEW = 2


def study(name: str, out: str | Path = "runs/studies", *, workers: int = 2, say: Callable[[str], None] = print) -> Path:
    """One of `STUDIES` on the embedded verifier into `out/NAME`; → its page. Stopped, the same call goes on.

    `rivals` and `transfer` mend drafters that `causal` trained. Raises `FairspecError`.
    """
    from fairspec_bench.score.prepare import model_ask
    from fairspec_bench.studies.causal import run_causal
    from fairspec_bench.studies.rivals import run_rivals
    from fairspec_bench.studies.transfer import run_transfer

    root, verifier = Path(out), f"{EMBEDDED}verifier"
    home = embedded(verifier)
    assert home is not None
    if name not in STUDIES:
        raise FairspecError(f"study {name}: unknown. Known: {', '.join(STUDIES)}.")
    if name == "causal":
        run_causal(root / name, verifier=Path(home), say=say)
        return root / name / "causal.md"
    drafters = {f"order-{n}": root / "causal" / "drafters" / f"skew-{STUDIED_SKEW}-order-{n}" for n in (1, 2, 3)}
    for folder in drafters.values():
        if not (folder / "recipe.json").exists():
            raise FairspecError(f"{folder}: no drafter there. Run first: fairspec study causal --out {root}.")
    given: dict[str, Any] = {"cache": cache_folder(), "workers": workers, "say": say}
    asked = model_ask(verifier, home)
    if name == "rivals":
        run_rivals(root / name, verifier=asked, drafters=drafters, **given)
    else:
        run_transfer(root / name, verifier=asked, drafter=drafters["order-1"], **given)
    return root / name / f"{name}.md"


def _pair(text: str) -> tuple[tuple[str, str], tuple[Options, Options], dict[str, Any]]:
    """The two models of a named pair or of `VERIFIER,DRAFTER`, their revisions, and the options that go with them."""
    from fairspec_bench.suite.pairs import load_pair_file

    verifier, comma, drafter = text.partition(",")
    if comma:
        return (verifier, drafter), ({}, {}), {"suites": DEMO_SUITES if embedded(verifier) else ()}
    known = load_pair_file(text)
    models = known.verifier, known.drafter
    first, second = ({"revision": each.revision} if each.revision else {} for each in models)
    options = {"suites": known.suites, "chat_template": known.chat_template}
    return (models[0].model, models[1].model), (first, second), options


# --------------------------------------------------------------------------- the rest


def train_testbed(
    text: str | Path,
    out: str | Path,
    *,
    skew: float = 1.0,
    scale: str = "tiny",
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> tuple[Path, Path]:
    """Train a pair with a known language imbalance on a folder of `<language>.txt`; → verifier's and drafter's folders.

    The drafter's shares of the languages fall as `rank ** -skew`. Stopped, the same call goes on. Raises
    `FairspecError`.
    """
    from fairspec_bench.testbed.pair import TEXT_SCALES, train_on_text

    if scale not in TEXT_SCALES:
        raise FairspecError(f"scale {scale!r}: unknown. Known: {', '.join(TEXT_SCALES)}.")
    return train_on_text(Path(text), Path(out), skew=skew, scale=scale, seed=seed, say=say)


@dataclass(frozen=True)
class Demo:
    """What the demo made: run folders and reports before and after mending, and the first page of the site."""

    before: Path
    after: Path
    reports: tuple[Report, Report]
    change: Comparison
    page: Path


def demo(
    out: str | Path = "runs/demo",
    *,
    quick: bool = False,
    watch: Watch | None = None,
    watch_mending: Callable[[Watched], None] = lambda seen: None,
) -> Demo:
    """The main job on the embedded suites and pair: score, mend with s-CDF, score again, build the site; → all of it.

    Stopped, the same call goes on. Raises `FairspecError`.
    """
    root, suffix = Path(out), "-quick" if quick else ""
    options, mending = (DEMO_QUICK, DEMO_QUICK_MENDING) if quick else (DEMO, DEMO_MENDING)
    before, after = (root / f"{name}{suffix}" for name in ("embedded-pair", "embedded-pair-mended"))
    verifier, drafter = (EMBEDDED + name for name in ("verifier", "drafter"))
    first = run(verifier, drafter, DEMO_SUITES, before, watch=watch, **options)
    mended = mitigate(verifier, drafter, "s-cdf", root / f"drafter-mended{suffix}", watch=watch_mending, **mending)
    second = run(verifier, str(mended.folder), DEMO_SUITES, after, watch=watch, **options)
    page = build_site([before, after], root / "site", changes=[(before, after)])
    return Demo(before, after, (first, second), compare(before, after), page)


def parse_options(text: str | None) -> dict[str, str | int | float | bool]:
    """`k=v,k=v` as lm-eval writes it, values read as int, float, true or false where they can be."""
    options: dict[str, str | int | float | bool] = {}
    for item in filter(None, (text or "").split(",")):
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise FairspecError(f"{item!r}: not of the form name=value. Example: --model_args revision=main.")
        options[name.strip()] = _value(value.strip())
    return options


def _value(text: str) -> str | int | float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """`1,2,4`: whole numbers, at least one."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise FairspecError(f"--{option} {text}: not whole numbers. Example: --{option} 1,2,4.") from None


def parse_change(text: str) -> tuple[str, str]:
    """`BEFORE,AFTER`, two run folders."""
    first, comma, second = text.partition(",")
    if not (first and comma and second):
        raise FairspecError(f"--change {text}: not of the form BEFORE,AFTER. Name two run folders.")
    return first, second


def parse_part(text: str | None) -> tuple[int, int] | None:
    """`i/n`, the first part being 1."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise FairspecError(f"--shard {text}: not of the form i/n with 1 <= i <= n. Example: --shard 1/4.")
    return int(found[1]), int(found[2])
