"""The claims of the paper, experiments on mitigation, agreement between engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairspec_bench.api.demo import EMBEDDED_SUITES
from fairspec_bench.api.mitigation import BUILT_IN_PROMPTS, default_rate
from fairspec_bench.api.names import slug
from fairspec_bench.api.options import RUN, cache_folder, check_run, run_options
from fairspec_bench.api.reports import report
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.models.hub import COMMIT, EMBEDDED, local_folder
from fairspec_bench.schemas.base import FairspecError, unknown
from fairspec_bench.schemas.options import (
    Arguments,
    ReproduceOptions,
    RunOptions,
    check_values,
    model_spec,
    named,
    parameters,
    takes,
    unswept,
)

if TYPE_CHECKING:
    from fairspec_bench.experiments.agreement import Agreement
    from fairspec_bench.experiments.reproduce import Reproduced
    from fairspec_bench.mitigation.finetune import FineTuneProgress
    from fairspec_bench.schemas.config import ModelConfig
    from fairspec_bench.scoring.run import ProgressCallback

REPRODUCE = parameters(ReproduceOptions)
_SHARED = ("languages", "limit", "batch_size", "device", "dtype", "race_prompts", "race_rounds")
SHARED = tuple(map(unswept, parameters(RunOptions, _SHARED)))
"""Options of a run that `fairspec reproduce` takes; Python takes all."""


@takes(*REPRODUCE, *RUN)
def reproduce(
    pair: str = "embedded",
    out: str | Path | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    suites: Sequence[str] = (),
    on_progress: ProgressCallback | None = None,
    on_training: Callable[[FineTuneProgress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Reproduced:
    """Judge the paper's claims on a pair that is scored, fine-tuned by s-CDF and scored again.

    → the claims and the run folders that they rest on. The same call resumes an interrupted one.

    Args:
        pair: the name of one of `list_pairs`, or `VERIFIER,DRAFTER`.
        out: the folder of all runs, `runs/reproduce-PAIR` by default.
        seeds: one fine-tuning for each.
        suites: by default the pair's own.
        on_progress: called after every chunk of a run.
        on_training: called after every chunk of fine-tuning.
        say: called with a line at the beginning of each stage.
        **options: docs/OPTIONS.md. Without `prompts` only the embedded verifier's drafter is fine-tuned, and the claims
            about mitigation are not testable. `other`: run folders of other pairs, for the order of languages.

    Raises:
        FairspecError: for anything that the user can correct, in one line.
    """
    own = {each.name for each in REPRODUCE}
    asked = named(ReproduceOptions, {name: value for name, value in options.items() if name in own})
    asked["others"] = tuple(map(Path, asked.get("others", ())))
    chosen = ReproduceOptions(pair, **asked)
    check_values(chosen)
    names, revisions, given = _pair(pair)
    given |= {name: value for name, value in options.items() if name not in own}
    default_suites = given.pop("suites")
    run = run_options(*names, suites or default_suites, model_args=revisions[0], drafter_args=revisions[1], **given)
    check_run(run)
    from fairspec_bench.experiments.reproduce import run_reproduce
    from fairspec_bench.mitigation import finetune
    from fairspec_bench.mitigation.trainer import make_recipe

    training = None
    if chosen.prompts or names[0].startswith(EMBEDDED):
        training = finetune.FineTuneOptions(
            verifier=model_spec(names[0], options=revisions[0]),
            drafter=drafter_spec(names[1], options=revisions[1]),
            method="s-cdf",
            prompts=chosen.prompts or BUILT_IN_PROMPTS,
            recipe=make_recipe(steps=chosen.steps, rate=chosen.lr or default_rate(names[0])),
            languages=run.languages,
            limit=chosen.training_limit,
            chat_template=run.chat_template,
            chat_template_args=run.chat_template_args,
            dtype=run.dtype,
            device=run.device,
        )
    folder = Path(out) if out is not None else Path("runs") / f"reproduce-{slug(names[1]) if ',' in pair else pair}"
    return run_reproduce(
        run,
        training,
        folder,
        seeds=seeds,
        others=[report(other) for other in chosen.others],
        cache=cache_folder(),
        watch=on_progress or (lambda progress: None),
        on_fine_tuning=on_training,
        say=say,
    )


def agree(run: str | Path) -> Agreement:
    """A finished vLLM run beside this package's own decoding and replay of the same pair: what agrees and what not.

    Raises `FairspecError`.
    """
    from fairspec_bench.schemas.config import RunConfig
    from fairspec_bench.schemas.io import read_record
    from fairspec_bench.scoring.run_folder import RUN as CONFIG

    config = read_record(Path(run) / CONFIG, RunConfig)
    if config.drafter is None:
        raise FairspecError(f"{run}: has no drafter, so nothing to agree on. Run it with one.")
    from fairspec_bench.experiments import agreement

    return agreement.agree(
        Path(run),
        model_spec(config.verifier.name, options=_pinned(config.verifier)),
        drafter_spec(config.drafter.name, options=_pinned(config.drafter)),
    )


def _pinned(model: ModelConfig) -> Arguments:
    """The commit of a model of a run, if it has one."""
    revision = model.revision or ""
    return {"revision": revision} if COMMIT.fullmatch(revision) else {}


def agreement_page(found: Agreement) -> str:
    """The same as Markdown."""
    from fairspec_bench.experiments import agreement

    return agreement.agreement_page(found)


STUDIED_SKEW = 2
STUDIED_DRAFTERS = 8


def _causal(root: Path, **given: Any) -> None:
    from fairspec_bench.experiments.causal import run_causal

    folder = local_folder(f"{EMBEDDED}verifier")
    assert folder is not None
    run_causal(root / "causal", verifier=folder, say=given["say"])


def _compare_methods(root: Path, **given: Any) -> None:
    from fairspec_bench.experiments.compare_methods import run_compare_methods

    run_compare_methods(
        root / "compare-methods", verifier=model_spec(f"{EMBEDDED}verifier"), drafters=_drafters(root), **given
    )


def _transfer(root: Path, **given: Any) -> None:
    from fairspec_bench.experiments.transfer import run_transfer

    drafter = _drafters(root)["order-1"]
    run_transfer(root / "transfer", verifier=model_spec(f"{EMBEDDED}verifier"), drafter=drafter, **given)


STUDIES: Mapping[str, Callable[..., None]] = {
    "causal": _causal,
    "compare-methods": _compare_methods,
    "transfer": _transfer,
}


def study(name: str, out: str | Path = "runs/studies", *, workers: int = 2, say: Callable[[str], None] = print) -> Path:
    """One of `STUDIES` on the embedded verifier into `out/NAME`; → its page. The same call resumes it.

    `compare-methods` and `transfer` fine-tune drafters that `causal` trained. Raises `FairspecError`.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    if workers < 1:
        raise FairspecError(f"workers={workers}: must be at least 1.")
    if name != "causal":
        _drafters(Path(out))
    STUDIES[name](Path(out), cache=cache_folder(), workers=workers, say=say)
    return Path(out) / name / f"{name}.md"


def _drafters(root: Path) -> dict[str, Path]:
    """The drafters that `causal` trained. Raises `FairspecError` where there is none."""
    drafters = {
        f"order-{n}": root / "causal" / "drafters" / f"skew-{STUDIED_SKEW}-order-{n}"
        for n in range(1, STUDIED_DRAFTERS + 1)
    }
    for folder in drafters.values():
        if not (folder / "recipe.json").exists():
            raise FairspecError(f"{folder}: no drafter there. Run first: fairspec study causal --out {root}.")
    return drafters


def _pair(text: str) -> tuple[tuple[str, str], tuple[Arguments, Arguments], dict[str, Any]]:
    """The two models of a named pair or of `VERIFIER,DRAFTER`, their revisions, and the options that go with them."""
    from fairspec_bench.suites.pairs import load_pair_file

    verifier, comma, drafter = text.partition(",")
    if comma:
        return (verifier, drafter), ({}, {}), {"suites": EMBEDDED_SUITES if verifier.startswith(EMBEDDED) else ()}
    known = load_pair_file(text)
    models = known.verifier, known.drafter
    first, second = ({"revision": each.revision} if each.revision else {} for each in models)
    options = {"suites": known.suites, "apply_chat_template": known.chat_template}
    return (models[0].model, models[1].model), (first, second), options
