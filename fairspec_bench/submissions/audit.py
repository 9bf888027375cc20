"""A submission's drafter run again: are its lines its own, and does it do as well on new prompts?

The drafter's own answers are not audited.

A sample of every task is replayed on the track's references and compared with the claimed lines: true ones differ only
by rounding of other kernels. Then the verifier continues prompts that nobody has seen, and the drafter is replayed
there: acceptance falls if it memorised the references. Some of the raced prompts are raced again, on the machine's
like only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fairspec_bench.engine.batch import with_prefixes
from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.metrics.acceptance import chances
from fairspec_bench.metrics.audit import (
    SAMPLE,
    AuditLine,
    fall,
    generalises,
    reproduced,
    rule_in_words,
    times_reproduced,
)
from fairspec_bench.metrics.measure import rounded
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import RunConfig, revision_difference
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Reference, Replay, Timing
from fairspec_bench.schemas.prompts import Encoded, Prompt
from fairspec_bench.schemas.report import Estimate
from fairspec_bench.schemas.submission import Audit, AuditedRace, AuditedTask, PromptSums, Verified
from fairspec_bench.scoring.environment import describe
from fairspec_bench.scoring.prepare import RunContext
from fairspec_bench.scoring.race import race
from fairspec_bench.scoring.reference import continuations
from fairspec_bench.scoring.replay import replay
from fairspec_bench.scoring.run_folder import same_machine
from fairspec_bench.suites.fresh_prompts import can_be_fresh, fresh_items
from fairspec_bench.suites.tracks import Track, TrackReference, TrackSuite

FRESH, RACES = 10, 1
"""Prompts of each task, unless asked otherwise."""
RACE_ROUNDS = 3
SHARD = "audit"


def audit(
    track: Track,
    track_references: Mapping[str, TrackReference],
    verified: Verified,
    claimed: Mapping[str, Replay],
    prepared: RunContext,
    *,
    timed: Sequence[Timing] = (),
    sample: int = SAMPLE,
    fresh: int = FRESH,
    races: int = RACES,
    seed: int,
    auditor: str,
    date: str,
    private: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Run a submitted drafter again on `sample` prompts of each task of its track and on `fresh` prompts of each.

    `races` of the raced prompts of each task are raced again, in three rounds, where this is the machine's like.
    `claimed` are its replays by key, `timed` its timings, `prepared` its own run loaded anew. `seed` must be drawn
    after submission: what is sampled and what is fresh follow from it. `private` is a folder of questions for suites
    that are not built in; without one these have no fresh prompts. `fresh=0`: none. Raises `FairspecError` for another
    drafter or settings than were submitted, lines or private questions that are missing, or a prompt that does not fit.
    """
    if sample < 1 or fresh < 0 or races < 0:
        raise FairspecError(f"audit: sample={sample}, fresh={fresh}, races={races}: must be at least 1, 0 and 0.")
    drafter = _the_submitted(track, verified, prepared)
    keys = draw_sample(track_references, sample, seed)
    say(f"replaying {len(keys)} of the track's {len(track_references)} prompts")
    tasks = _audited(keys, track_references, claimed, prepared, drafter)
    suites = [suite for suite in track.suites if can_be_fresh(suite.name, private)] if fresh else []
    seen = [line for suite in suites for line in _fresh_lines(suite, prepared, drafter, fresh, seed, private, say)]
    raced = _raced(track_references, timed, verified, prepared, drafter, races, seed, say)
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
        races=raced,
        times=times_reproduced(raced),
    )


def _the_submitted(track: Track, verified: Verified, prepared: RunContext) -> Drafter:
    """The drafter that was loaded. Raises `FairspecError` unless pair and settings are those of the submission."""
    here, there = _what_decides(prepared.config), _what_decides(verified.report.config)
    here["track"], there["track"] = (
        (track.name, track.reference_sha256),
        (verified.entry.track, verified.reference_sha256),
    )
    for role in ("verifier", "drafter"):
        loaded, submitted = (getattr(config, role) for config in (prepared.config, verified.report.config))
        if differs := revision_difference(submitted and submitted.revision, loaded and loaded.revision):
            raise FairspecError(f"audit: {role}: {differs} here from the submission's. Load what was submitted.")
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
        "drafter kind": drafter and drafter.kind,
        "drafter parameters": drafter and drafter.parameters,
        "drafter options": drafter and drafter.options,
        **{name: getattr(config, name) for name in ("tokenizer_sha256", "chat_template", "sampling", "seed", "dtype")},
    }


def _machine(config: RunConfig) -> str:
    here = describe(config.device)
    return f"{here.processor}, {here.device} {here.device_name}, torch {here.packages.get('torch', 'unknown')}"


# --------------------------------------------------------------------------- the same prompts again


def draw_sample(keys: Iterable[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` prompts of each task, or all where it has no more, sorted; each task is drawn apart."""
    by_task: dict[str, list[str]] = {}
    for key in sorted(keys):
        by_task.setdefault(PromptKey(key).task, []).append(key)
    drawn = (
        key
        for task, mine in by_task.items()
        for key in random.Random(f"audit/{seed}/{task}").sample(mine, min(count, len(mine)))
    )
    return tuple(sorted(drawn))


def _audited(
    keys: Sequence[str],
    track_references: Mapping[str, TrackReference],
    claimed: Mapping[str, Replay],
    prepared: RunContext,
    drafter: Drafter,
) -> tuple[AuditedTask, ...]:
    """The drafter on the track's own texts of these prompts beside what was claimed of them; tasks without a context
    are left out."""
    references = {key: _reference(track_references[key]) for key in keys}
    for key, reference in references.items():
        line, asked = claimed.get(key), prepared.questions.encoded.get(key)
        if line is None or line.prompt_sha != reference.prompt_sha or line.contexts != len(reference.ids) - 1:
            raise FairspecError(f"audit: {key} has no claimed line on the track's text. Check the submission first.")
        if asked is None or asked.sha != reference.prompt_sha:
            raise FairspecError(f"audit: {key} is another prompt here. Prepare the track's suites on its data.")
    found = _replayed([prepared.questions.encoded[key] for key in keys], list(references.values()), prepared, drafter)
    tasks: dict[str, list[tuple[Reference, Replay, Replay]]] = {}
    for key, line in zip(keys, found, strict=True):
        tasks.setdefault(PromptKey(key).task, []).append((references[key], claimed[key], line))
    return tuple(_task(task, lines) for task, lines in tasks.items() if any(line.contexts for _, _, line in lines))


def _reference(track_reference: TrackReference) -> Reference:
    return Reference(
        key=track_reference.key,
        prompt_sha=track_reference.prompt_sha,
        ids=track_reference.ids,
        finish=track_reference.finish,
        chunk=SHARD,
    )


def _replayed(
    encoded: list[Encoded], references: list[Reference], prepared: RunContext, drafter: Drafter
) -> list[Replay]:
    config = prepared.config
    return list(
        replay(
            prepared.verifier,
            drafter,
            encoded,
            references,
            sampling=config.sampling,
            seed=config.seed,
            batch_size=config.batch_size,
            chunk=SHARD,
        )
    )


def _task(task: str, lines: Sequence[tuple[Reference, Replay, Replay]]) -> AuditedTask:
    """`lines` are (text, claimed, found)."""
    contexts = sum(found.contexts for _, _, found in lines)
    same = sum(a == b for _, here, there in lines for a, b in zip(here.draft_ids, there.draft_ids, strict=True))
    gains = [
        a - b
        for reference, here, there in lines
        for a, b in zip(chances(here, reference), chances(there, reference), strict=True)
    ]

    def mean(lines: Iterable[Replay], name: str) -> float | None:
        values = [getattr(line, name) for line in lines]
        return None if None in values else rounded(sum(values) / contexts)

    old, new = [here for _, here, _ in lines], [there for _, _, there in lines]
    return AuditedTask(
        task=task,
        prompts=len(lines),
        contexts=contexts,
        same_drafts=rounded(same / contexts),
        chance_difference=rounded(sum(map(abs, gains)) / contexts),
        chance_gain=rounded(sum(gains) / contexts),
        chance_squares=rounded(sum(gain * gain for gain in gains) / contexts),
        acceptance_claimed=mean(old, "alpha") or 0.0,
        acceptance_found=mean(new, "alpha") or 0.0,
        misfit_claimed=mean(old, "kl"),
        misfit_found=mean(new, "kl"),
        overlap_claimed=mean(old, "overlap"),
        overlap_found=mean(new, "overlap"),
    )


# --------------------------------------------------------------------------- the same races again


def _raced(
    track_references: Mapping[str, TrackReference],
    timed: Sequence[Timing],
    verified: Verified,
    prepared: RunContext,
    drafter: Drafter,
    count: int,
    seed: int,
    say: Callable[[str], None],
) -> tuple[AuditedRace, ...]:
    """The race of `count` raced prompts of each task, claimed and found; none on another kind of machine."""
    keys = draw_sample({timing.key for timing in timed}, count, seed) if count else ()
    if not keys:
        return ()
    here = describe(prepared.config.device)
    there = verified.report.environments
    unlike = [word for each in there if (word := same_machine(each, here, timed=True, versions=False))]
    if len(unlike) == len(there) or prepared.config.backend != verified.report.config.backend:
        say(f"not raced: this is another machine ({unlike[0] if unlike else prepared.config.backend})")
        return ()
    say(f"racing {len(keys)} of the raced prompts")
    timings: list[Timing] = []
    for key in keys:
        timings += race(
            prepared.verifier,
            drafter,
            [prepared.questions.encoded[key]],
            [_reference(track_references[key])],
            sampling=prepared.config.sampling,
            gamma=prepared.config.gamma,
            seed=seed,
            rounds=RACE_ROUNDS,
            chunk=SHARD,
        )
    claims = [timing for timing in timed if timing.key in keys]
    tasks = {
        PromptKey(key).task: [each for each in keys if PromptKey(each).task == PromptKey(key).task] for key in keys
    }
    return tuple(
        AuditedRace(task=task, prompts=len(mine), claimed=_speedup(claims, mine), found=_speedup(timings, mine))
        for task, mine in tasks.items()
    )


def _speedup(timings: Iterable[Timing], keys: Sequence[str]) -> float:
    spent = dict.fromkeys(("autoregressive", "speculative", "control"), 0)
    for timing in timings:
        spent[timing.mode] += timing.decode_ns if timing.key in keys else 0
    return rounded(spent["autoregressive"] / spent["speculative"])


# --------------------------------------------------------------------------- prompts that nobody has seen


def _public_lines(sums: PromptSums) -> list[AuditLine]:
    alpha, contexts = (sums.columns[name] for name in ("alpha", "contexts"))
    return [
        AuditLine(PromptKey(key).task, cluster, accepted or 0.0, count or 0.0)
        for key, cluster, accepted, count in zip(sums.keys, sums.clusters, alpha, contexts, strict=True)
    ]


def _fresh_lines(
    suite: TrackSuite,
    prepared: RunContext,
    drafter: Drafter,
    count: int,
    seed: int,
    private: Path | None,
    say: Callable[[str], None],
) -> list[AuditLine]:
    """The drafter on the verifier's texts of `count` fresh prompts of each language of a suite."""
    prompts = _posed(suite, prepared, count, seed, private)
    encoded = with_prefixes(prepared.codec.encode(prompt) for prompt in prompts)
    for model in filter(None, (prepared.verifier, drafter.model)):
        for prompt in encoded:
            if reason := model.refusal(len(prompt.ids), prompt.max_new_tokens):
                raise FairspecError(f"audit: {prompt.key}: {reason}. Give shorter questions.")
    say(f"{suite.name}: the verifier continues {len(prompts)} fresh prompts")
    config = prepared.config
    references = continuations(
        prepared.verifier,
        prepared.codec,
        prompts,
        encoded,
        sampling=config.sampling,
        batch_size=config.batch_size,
        seed=config.seed,
        chunk=SHARD,
        cache=None,
    )
    clusters = {prompt.key: prompt.cluster for prompt in prompts}
    found = _replayed(encoded, list(references), prepared, drafter)
    return [AuditLine(PromptKey(line.key).task, clusters[line.key], line.alpha, line.contexts) for line in found]


def _posed(suite: TrackSuite, prepared: RunContext, count: int, seed: int, private: Path | None) -> list[Prompt]:
    """Fresh questions rendered as those of the track, with its `max_new_tokens` and stops."""
    asking = prepared.questions.suites[suite.name]
    items = fresh_items(suite.name, suite.languages, count, seed, private)
    posed = [prompt for language in suite.languages for prompt in asking.pose(language, items[language])]
    return [
        prompt.model_copy(update={"max_new_tokens": suite.max_new_tokens, "stops": suite.stops}) for prompt in posed
    ]
