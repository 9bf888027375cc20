"""The paper's claims on one pair: scored, mended by s-CDF with several seeds, scored again, judged.

Knows the order of things and what lies on disk: every run is a run folder of its own, every mended drafter a folder, so
that all figures can be looked up and a stopped reproduction goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairspec_bench.engine.drafting import Drafter
from fairspec_bench.engine.loop import as_request, decode
from fairspec_bench.measure.compare import Comparison, compare_runs
from fairspec_bench.records import Report, Trace
from fairspec_bench.score import prepare
from fairspec_bench.score.folder import RunFolder
from fairspec_bench.score.prepare import Prepared, drafter_ask
from fairspec_bench.score.run import Watch, lines_of, run
from fairspec_bench.studies import mend
from fairspec_bench.studies.claims import Claims, Evidence, judge

LIVE_PROMPTS = 3


@dataclass(frozen=True)
class Reproduced:
    """The claims and the run folders they rest on: `before`, and one after mending for each seed."""

    claims: Claims
    before: Path
    after: tuple[Path, ...]
    changes: tuple[Comparison, ...]


def run_reproduce(
    ask: prepare.Ask,
    mending: mend.Ask | None,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    others: Sequence[Report] = (),
    cache: Path | None = None,
    watch: Watch = lambda seen: None,
    watch_mending: mend.Watch = lambda seen: None,
    say: Callable[[str], None] = lambda line: None,
) -> Reproduced:
    """Judge the claims for the pair of `ask`, mended as `mending` says (`None`: not at all) with each seed.

    Only the run before is raced. Raises `FairspecError`; the same call goes on where it was stopped.
    """
    say("score the pair")
    before = out / "before"
    reports = [run(prepare.prepare(ask), before, cache=cache, watch=watch)]
    after: list[Path] = []
    hashes: set[str] = set()
    equal: bool | None = None
    for seed in seeds if mending else ():
        assert mending is not None
        say(f"mend the drafter, seed {seed}")
        seeded = replace(mending, recipe=mending.recipe.model_copy(update={"seed": seed}))
        folder = out / f"mended-seed{seed}"
        result = mend.mend(seeded, folder, cache=cache, watch=watch_mending)
        hashes |= {result.asked.verifier_sha256, result.verifier_sha256_after}
        say(f"score it again, seed {seed}")
        again = prepare.prepare(replace(ask, drafter=drafter_ask(str(folder)), race_rounds=0))
        after.append(out / f"after-seed{seed}")
        reports.append(run(again, after[-1], cache=cache, watch=watch))
        if equal is not False:
            equal = live_outputs_equal(again, RunFolder(after[-1]).lines("trace", Trace))
    changes = tuple(compare(before, folder) for folder in after)
    claims = judge(
        Evidence(
            before=(reports[0],),
            after=tuple(reports[1:]) or None,
            changes=changes or None,
            others=tuple(others),
            verifier_sha=(min(hashes), max(hashes)) if hashes else None,
            outputs_equal=equal,
        )
    )
    return Reproduced(claims, before, tuple(after), changes)


def compare(first: Path, second: Path) -> Comparison:
    """The paired difference of two run folders, second − first. Raises `FairspecError`."""
    folders = [RunFolder(path) for path in (first, second)]
    before, after = ((folder.config, lines_of(folder)) for folder in folders)
    return compare_runs(before, after)


def live_outputs_equal(prepared: Prepared, traces: Sequence[Trace], each: int = LIVE_PROMPTS) -> bool:
    """Whether live speculative decoding gives the verifier's own ids on the first `each` prompts of every task."""
    drafter: Drafter | None = prepared.drafter
    config, taken = prepared.config, dict.fromkeys((trace.key.rpartition("/")[0] for trace in traces), 0)
    requests = []
    for trace in traces:
        task = trace.key.rpartition("/")[0]
        if taken[task] < each:
            taken[task] += 1
            stop = prepared.codec.stop_check(prepared.questions.prompts[trace.key])
            requests.append(as_request(prepared.questions.encoded[trace.key], stop))
    wanted = {trace.key: trace.ids for trace in traces}
    done = decode(
        prepared.verifier,
        drafter,
        requests,
        rule=config.rule,
        gamma=config.gamma,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    return all(one.ids == wanted[one.key] for one in done)
