"""Drafters fine-tuned, and test pairs trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fairspec_bench.api.names import slug
from fairspec_bench.api.options import cache_folder, check_model
from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.models.hub import EMBEDDED
from fairspec_bench.schemas.base import FairspecError, unknown
from fairspec_bench.schemas.options import (
    MitigateOptions,
    check_chat_template,
    check_values,
    model_spec,
    named,
    parameters,
    takes,
)

if TYPE_CHECKING:
    from fairspec_bench.mitigation.finetune import FineTuneProgress
    from fairspec_bench.mitigation.model_card import FineTuneResult

MITIGATE = parameters(MitigateOptions)
BUILT_IN_PROMPTS = ("embedded_math",)


@takes(*MITIGATE)
def mitigate(
    verifier: str,
    drafter: str,
    method: str = "s-cdf",
    out: str | Path | None = None,
    *,
    cache: Path | Literal["default"] | None = "default",
    on_progress: Callable[[FineTuneProgress], None] = lambda progress: None,
    **options: Any,
) -> FineTuned:
    """Fine-tune a drafter on the verifier's own output into the folder `out`; → where it is and the result.

    The same call resumes an interrupted one.

    Args:
        verifier: a folder, a Hub id or `embedded:verifier`.
        drafter: likewise; a model, or `layers:8`, the first 8 layers of the verifier.
        method: one of `list_methods`.
        out: the folder of the fine-tuned drafter, `drafters/DRAFTER-METHOD` by default.
        cache: the folder that keeps references for other runs, `None`: they are not kept.
        on_progress: called after every chunk of work.
        **options: docs/OPTIONS.md. The embedded verifier has default prompts; other models need `prompts`.

    Raises:
        FairspecError: for anything that the user can correct, in one line.
    """
    home = Path(out) if out is not None else None
    chosen = MitigateOptions(verifier, drafter, method, home, **named(MitigateOptions, options))
    check_mitigation(chosen)
    from fairspec_bench.mitigation import finetune
    from fairspec_bench.mitigation.trainer import make_recipe

    request = finetune.FineTuneOptions(
        verifier=model_spec(verifier, options=chosen.model_args),
        drafter=drafter_spec(drafter, options=chosen.drafter_args),
        method=method,
        prompts=chosen.prompts or BUILT_IN_PROMPTS,
        recipe=make_recipe(
            steps=chosen.steps,
            rate=chosen.lr or default_rate(verifier),
            per_task=chosen.per_task,
            seed=chosen.seed,
        ),
        languages=chosen.languages,
        limit=chosen.limit,
        max_new_tokens=chosen.max_new_tokens,
        batch_size=chosen.batch_size,
        dtype=chosen.dtype,
        device=chosen.device,
        lora_rank=chosen.lora,
        chat_template=chosen.chat_template,
        chat_template_args=chosen.chat_template_args,
    )
    folder = chosen.out or Path("drafters") / f"{slug(drafter)}-{method}"
    kept = cache_folder() if cache == "default" else cache
    result = finetune.finetune(request, folder, cache=kept, on_progress=on_progress)
    return FineTuned(folder, result)


def check_mitigation(options: MitigateOptions) -> None:
    """Refuse wrong values and models, and an unknown method, without loading any. Raises `FairspecError`."""
    from fairspec_bench.mitigation.methods import METHODS

    if options.method not in METHODS:
        raise unknown("method", options.method, METHODS)
    check_values(options)
    check_chat_template(options)
    check_model(options.verifier)
    drafter = drafter_spec(options.drafter, options=options.drafter_args)
    if drafter_kind(drafter.kind).needs_files:
        check_model(drafter.source)
    if not options.prompts and not options.verifier.startswith(EMBEDDED):
        raise FairspecError("no prompts to fine-tune on. Give --prompts NAME or a folder of <task>.txt.")


def default_rate(verifier: str) -> float:
    """The learning rate where none is given: the embedded pair is small."""
    return 2e-3 if verifier.startswith(EMBEDDED) else 2e-5


@dataclass(frozen=True)
class FineTuned:
    """The folder of a fine-tuned drafter, and the result."""

    folder: Path
    result: FineTuneResult


def list_methods() -> tuple[tuple[str, str, bool], ...]:
    """Every method of mitigation: its name, its title, and whether it needs each prompt's task when it is used."""
    from fairspec_bench.mitigation.methods import METHODS

    return tuple((name, method.title, method.task_aware) for name, method in METHODS.items())


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

    The drafter's shares of the languages fall as `rank ** -skew`. The same call resumes an interrupted one. Raises
    `FairspecError`.
    """
    from fairspec_bench.testbed.pair import TEXT_SCALES, train_on_text

    if scale not in TEXT_SCALES:
        raise unknown("scale", scale, TEXT_SCALES)
    return train_on_text(Path(text), Path(out), skew=skew, scale=scale, seed=seed, say=say)
