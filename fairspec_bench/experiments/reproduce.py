"""The paper's claims on one pair: scored, fine-tuned by s-CDF with several seeds, scored again, judged.

Every run is a run folder and every fine-tuned drafter a folder, so that all figures can be looked up and a reproduction
can be resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.engine.speculative import as_request, decode
from fairspec_bench.experiments.claims import ClaimInputs, Claims, judge
from fairspec_bench.metrics.comparison import Comparison
from fairspec_bench.mitigation import finetune
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Reference
from fairspec_bench.schemas.options import RunOptions
from fairspec_bench.schemas.report import Report
from fairspec_bench.scoring import prepare
from fairspec_bench.scoring.prepare import RunContext
from fairspec_bench.scoring.report import compare
from fairspec_bench.scoring.run import ProgressCallback, run
from fairspec_bench.scoring.run_folder import RunFolder

LIVE_PROMPTS = 3


@dataclass(frozen=True)
class Reproduced:
    """The claims and the run folders they rest on: `before`, and one after fine-tuning for each seed."""

    claims: Claims
    before: Path
    after: tuple[Path, ...]
    changes: tuple[Comparison, ...]


def run_reproduce(
    options: RunOptions,
    fine_tuning: finetune.FineTuneOptions | None,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    others: Sequence[Report] = (),
    cache: Path | None = None,
    watch: ProgressCallback = lambda seen: None,
    on_fine_tuning: finetune.FineTuneCallback = lambda progress: None,
    say: Callable[[str], None] = lambda line: None,
) -> Reproduced:
    """Judge the claims for a pair.

    Args:
        options: of the run before; the runs after differ in their drafter, and are not raced.
        fine_tuning: how the drafter is fine-tuned with each seed; `None`: it is not.
        out: holds all runs and drafters. The same call resumes.
        seeds: of the fine-tunings.
        others: reports of further pairs, for the order of languages.
        cache: of the verifier's continuations.
        watch: called with the progress of a run.
        on_fine_tuning: called with the progress of a fine-tuning.
        say: called with a line at each stage.

    Raises:
        FairspecError: in one line.
    """
    say("score the pair")
    before = out / "before"
    reports = [run(prepare.prepare(options), before, cache=cache, watch=watch)]
    after: list[Path] = []
    hashes: set[str] = set()
    equal: bool | None = None
    for seed in seeds if fine_tuning else ():
        assert fine_tuning is not None
        say(f"fine-tune the drafter, seed {seed}")
        seeded = replace(fine_tuning, recipe=fine_tuning.recipe.model_copy(update={"seed": seed}))
        folder = out / f"fine-tuned-seed{seed}"
        result = finetune.finetune(seeded, folder, cache=cache, on_progress=on_fine_tuning)
        hashes |= {result.plan.verifier_sha256, result.verifier_sha256_after}
        say(f"score it again, seed {seed}")
        again = prepare.prepare(replace(options, drafter=drafter_spec(str(folder)), race_rounds=0))
        after.append(out / f"after-seed{seed}")
        reports.append(run(again, after[-1], cache=cache, watch=watch))
        if equal is not False:
            equal = live_outputs_equal(again, RunFolder(after[-1]).lines("reference", Reference))
    changes = tuple(compare(before, folder) for folder in after)
    claims = judge(
        ClaimInputs(
            before=(reports[0],),
            after=tuple(reports[1:]) or None,
            changes=changes or None,
            others=tuple(others),
            trained_on=_kinds(fine_tuning, options),
            verifier_sha=(min(hashes), max(hashes)) if hashes else None,
            outputs_equal=equal,
        )
    )
    return Reproduced(claims, before, tuple(after), changes)


def _kinds(fine_tuning: finetune.FineTuneOptions | None, options: RunOptions) -> tuple[str, ...] | None:
    """The suites whose own training prompts were used; `None` where the prompts are a user's."""
    used = set(fine_tuning.prompts) if fine_tuning else set()
    return tuple(sorted(used)) if used & set(options.suites) else None


def live_outputs_equal(prepared: RunContext, references: Sequence[Reference], each: int = LIVE_PROMPTS) -> bool:
    """Whether live speculative decoding gives the verifier's own ids on the first `each` prompts of every task."""
    drafter: Drafter | None = prepared.drafter
    config, taken = prepared.config, dict.fromkeys((PromptKey(reference.key).task for reference in references), 0)
    requests = []
    for reference in references:
        task = PromptKey(reference.key).task
        if taken[task] < each:
            taken[task] += 1
            stop = prepared.codec.stop_check(prepared.questions.prompts[reference.key])
            requests.append(as_request(prepared.questions.encoded[reference.key], stop))
    wanted = {reference.key: reference.ids for reference in references}
    done = decode(
        prepared.verifier,
        drafter,
        requests,
        sampling=config.sampling,
        gamma=config.gamma,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    return all(one.ids == wanted[one.key] for one in done)
