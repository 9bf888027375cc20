"""A submission's drafter run again: are its lines its own, and does it know more than the track's texts by heart?

Knows a checked submission, the track's texts, a loaded pair, and where fresh prompts come from. Knows no files of the
submission and nothing of boards. Times and the drafter's own answers are not audited.

A sample of every task is replayed on the track's own texts and compared with the claimed lines: honest ones differ by
what another kernel rounds. Then the verifier continues prompts that nobody has seen, and the drafter is replayed there:
a table of the public texts falls where a drafter does not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fairspec_bench.engine.drafting import Drafter
from fairspec_bench.entries import Audit, AuditedTask, PromptSums, Verified
from fairspec_bench.measure.acceptance import chances
from fairspec_bench.measure.audited import Line, fall, generalises, reproduced, rule_in_words
from fairspec_bench.measure.lines import task_of
from fairspec_bench.measure.table import rounded
from fairspec_bench.records import Encoded, Estimate, FairspecError, Prompt, Replay, RunConfig, Trace
from fairspec_bench.score.environment import describe
from fairspec_bench.score.prepare import Prepared
from fairspec_bench.score.reference import continuations
from fairspec_bench.score.replay import replay
from fairspec_bench.suite.fresh import can_be_fresh, fresh_items
from fairspec_bench.suite.tracks import Reference, Track, TrackSuite

SAMPLE, FRESH = 5, 10
"""Prompts of each task, unless asked otherwise."""
SHARD = "audit"


def audit(
    track: Track,
    references: Mapping[str, Reference],
    verified: Verified,
    claimed: Mapping[str, Replay],
    prepared: Prepared,
    *,
    sample: int = SAMPLE,
    fresh: int = FRESH,
    seed: int,
    auditor: str,
    date: str,
    private: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Run a submitted drafter again on `sample` prompts of each task of its track and on `fresh` prompts of each.

    `claimed` are its replays by key, `prepared` its own run loaded anew. `seed` must be drawn after submission: what is
    sampled and what is fresh follow from it. `private` is a folder of questions for suites that are not built in;
    without one these have no fresh prompts. `fresh=0`: none. Raises `FairspecError` for another drafter or settings
    than were submitted, lines or private questions that are missing, or a prompt that does not fit.
    """
    if sample < 1 or fresh < 0:
        raise FairspecError(f"audit: sample={sample}, fresh={fresh}: must be at least 1 and 0.")
    drafter = _the_submitted(track, verified, prepared)
    keys = draw_sample(references, sample, seed)
    say(f"replaying {len(keys)} of the track's {len(references)} prompts")
    tasks = _audited(keys, references, claimed, prepared, drafter)
    suites = [suite for suite in track.suites if can_be_fresh(suite.name, private)] if fresh else []
    seen = [line for suite in suites for line in _fresh_lines(suite, prepared, drafter, fresh, seed, private, say)]
    fresh_tasks, over_all = fall(_public_lines(verified.sums), seen) if seen else ((), Estimate())
    return Audit(
        manifest_sha256=verified.manifest_sha256,
        auditor=auditor,
        date=date,
        seed=seed,
        rule=rule_in_words(track.dtype),
        machine=_machine(prepared.config),
        sample=tasks,
        reproduced=reproduced(tasks, track.dtype),
        fresh=fresh_tasks,
        fresh_over_all=over_all,
        generalises=generalises(fresh_tasks, over_all),
    )


def _the_submitted(track: Track, verified: Verified, prepared: Prepared) -> Drafter:
    """The drafter that was loaded. Raises `FairspecError` unless pair and settings are those of the submission."""
    here, there = _what_decides(prepared.config), _what_decides(verified.report.config)
    here["track"], there["track"] = (
        (track.name, track.reference_sha256),
        (verified.entry.track, verified.reference_sha256),
    )
    for what, value in here.items():
        if value != there[what]:
            raise FairspecError(
                f"audit: {what} here is {value}, the submission's is {there[what]}. Load what was submitted."
            )
    if prepared.drafter is None:
        raise FairspecError("audit: the run was prepared without a drafter. Give the submitted one.")
    return prepared.drafter


def _what_decides(config: RunConfig) -> dict[str, object]:
    drafter = config.drafter
    return {
        "verifier": config.verifier.revision,
        "drafter": drafter and drafter.revision,
        "drafter kind": drafter and drafter.kind,
        "drafter options": drafter and drafter.options,
        **{name: getattr(config, name) for name in ("tokenizer_sha256", "chat_template", "rule", "seed", "dtype")},
    }


def _machine(config: RunConfig) -> str:
    here = describe(config.device)
    return f"{here.processor}, {here.device} {here.device_name}, torch {here.packages.get('torch', 'unknown')}"


# --------------------------------------------------------------------------- the same prompts again


def draw_sample(keys: Iterable[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` prompts of each task, or all where it has no more, sorted; each task is drawn apart."""
    by_task: dict[str, list[str]] = {}
    for key in sorted(keys):
        by_task.setdefault(task_of(key), []).append(key)
    drawn = (
        key
        for task, mine in by_task.items()
        for key in random.Random(f"audit/{seed}/{task}").sample(mine, min(count, len(mine)))
    )
    return tuple(sorted(drawn))


def _audited(
    keys: Sequence[str],
    references: Mapping[str, Reference],
    claimed: Mapping[str, Replay],
    prepared: Prepared,
    drafter: Drafter,
) -> tuple[AuditedTask, ...]:
    """The drafter on the track's own texts of these prompts beside what was claimed of them; tasks without a context
    are left out."""
    traces = {key: _trace(references[key]) for key in keys}
    for key, trace in traces.items():
        line, asked = claimed.get(key), prepared.questions.encoded.get(key)
        if line is None or line.prompt_sha != trace.prompt_sha or line.contexts != len(trace.ids) - 1:
            raise FairspecError(f"audit: {key} has no claimed line on the track's text. Check the submission first.")
        if asked is None or asked.sha != trace.prompt_sha:
            raise FairspecError(f"audit: {key} is another prompt here. Prepare the track's suites on its data.")
    found = _replayed([prepared.questions.encoded[key] for key in keys], list(traces.values()), prepared, drafter)
    tasks: dict[str, list[tuple[Trace, Replay, Replay]]] = {}
    for key, line in zip(keys, found, strict=True):
        tasks.setdefault(task_of(key), []).append((traces[key], claimed[key], line))
    return tuple(_task(task, lines) for task, lines in tasks.items() if any(line.contexts for _, _, line in lines))


def _trace(reference: Reference) -> Trace:
    return Trace(
        key=reference.key,
        prompt_sha=reference.prompt_sha,
        ids=reference.ids,
        finish=reference.finish,
        shard=SHARD,
    )


def _replayed(encoded: list[Encoded], traces: list[Trace], prepared: Prepared, drafter: Drafter) -> list[Replay]:
    config = prepared.config
    return list(
        replay(
            prepared.verifier,
            drafter,
            encoded,
            traces,
            rule=config.rule,
            seed=config.seed,
            batch_size=config.batch_size,
            shard=SHARD,
        )
    )


def _task(task: str, lines: Sequence[tuple[Trace, Replay, Replay]]) -> AuditedTask:
    """`lines` are (text, claimed, found)."""
    contexts = sum(found.contexts for _, _, found in lines)
    same = sum(a == b for _, here, there in lines for a, b in zip(here.draft_ids, there.draft_ids, strict=True))
    apart = sum(
        abs(a - b)
        for trace, here, there in lines
        for a, b in zip(chances(here, trace), chances(there, trace), strict=True)
    )

    def mean(lines: Iterable[Replay], name: str) -> float | None:
        values = [getattr(line, name) for line in lines]
        return None if None in values else rounded(sum(values) / contexts)

    old, new = [here for _, here, _ in lines], [there for _, _, there in lines]
    return AuditedTask(
        task=task,
        prompts=len(lines),
        contexts=contexts,
        same_drafts=rounded(same / contexts),
        chance_difference=rounded(apart / contexts),
        acceptance_claimed=mean(old, "alpha") or 0.0,
        acceptance_found=mean(new, "alpha") or 0.0,
        misfit_claimed=mean(old, "kl"),
        misfit_found=mean(new, "kl"),
        overlap_claimed=mean(old, "overlap"),
        overlap_found=mean(new, "overlap"),
    )


# --------------------------------------------------------------------------- prompts that nobody has seen


def _public_lines(sums: PromptSums) -> list[Line]:
    alpha, contexts = (sums.columns[name] for name in ("alpha", "contexts"))
    return [
        Line(task_of(key), cluster, accepted or 0.0, count or 0.0)
        for key, cluster, accepted, count in zip(sums.keys, sums.clusters, alpha, contexts, strict=True)
    ]


def _fresh_lines(
    suite: TrackSuite,
    prepared: Prepared,
    drafter: Drafter,
    count: int,
    seed: int,
    private: Path | None,
    say: Callable[[str], None],
) -> list[Line]:
    """The drafter on the verifier's texts of `count` fresh prompts of each language of a suite."""
    prompts = _posed(suite, prepared, count, seed, private)
    encoded = [prepared.codec.encode(prompt) for prompt in prompts]
    for model in filter(None, (prepared.verifier, drafter.model)):
        for prompt in encoded:
            if reason := model.refusal(len(prompt.ids), prompt.cap):
                raise FairspecError(f"audit: {prompt.key}: {reason}. Give shorter questions.")
    say(f"{suite.name}: the verifier continues {len(prompts)} fresh prompts")
    config = prepared.config
    traces = continuations(
        prepared.verifier,
        prepared.codec,
        prompts,
        encoded,
        rule=config.rule,
        batch_size=config.batch_size,
        seed=config.seed,
        shard=SHARD,
        cache=None,
    )
    clusters = {prompt.key: prompt.cluster for prompt in prompts}
    found = _replayed(encoded, list(traces), prepared, drafter)
    return [Line(task_of(line.key), clusters[line.key], line.alpha, line.contexts) for line in found]


def _posed(suite: TrackSuite, prepared: Prepared, count: int, seed: int, private: Path | None) -> list[Prompt]:
    """Fresh questions as the track asks its own, with its cap and stops."""
    asking = prepared.questions.suites[suite.name]
    items = fresh_items(suite.name, suite.languages, count, seed, private)
    posed = [prompt for language in suite.languages for prompt in asking.pose(language, items[language])]
    return [prompt.model_copy(update={"cap": suite.cap, "stops": suite.stops}) for prompt in posed]
