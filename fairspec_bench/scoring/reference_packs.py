"""Reference packs: a finished run's references as a track keeps them, and a track's as a run takes them."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import tomli_w
from scipy import stats

from fairspec_bench.metrics.measure import rounded
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import RunConfig, SuiteConfig, revision_difference
from fairspec_bench.schemas.io import lines_text, write_atomic
from fairspec_bench.schemas.keys import PromptKey, Task
from fairspec_bench.schemas.lines import Answer, Reference, Replay, StepTimes, Timing
from fairspec_bench.scoring.prepare import RunContext
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.suites.tracks import Divergence, Hardware, Track, TrackRace, TrackReference, TrackSuite, pieces_text


def references_of(run: Path) -> tuple[TrackReference, ...]:
    """The texts that a finished run was made on, by key. Raises `FairspecError` for a run that is not whole."""
    folder = RunFolder(run)
    if not folder.whole:
        raise FairspecError(f"{run}: {folder.progress}. Finish the run before it becomes a reference.")
    answers = {answer.key: answer for answer in folder.lines("answer", Answer)}
    replays = {replay.key: replay for replay in folder.lines("replay", Replay)}
    return tuple(
        TrackReference(
            key=reference.key,
            cluster=folder.config.clusters[reference.key],
            prompt_sha=reference.prompt_sha,
            ids=reference.ids,
            finish=reference.finish,
            verifier_entropy=replays[reference.key].verifier_entropy if reference.key in replays else None,
            answer=answers[reference.key],
        )
        for reference in sorted(folder.lines("reference", Reference), key=lambda reference: reference.key)
    )


def texts_for(
    track: Track, track_references: Mapping[str, TrackReference], prepared: RunContext
) -> Mapping[str, TrackReference]:
    """The track's texts for a run that is prepared by its settings, so that none is made anew.

    Raises `FairspecError` where the run would not be the track's: another verifier, tokenizer, data or prompts.
    """
    config = prepared.config
    if differs := revision_difference(track.verifier_revision, config.verifier.revision):
        raise FairspecError(
            f"track {track.name}: verifier: {differs} here ({config.verifier.revision}) from the track's "
            f"({track.verifier_revision}). Give the track's verifier."
        )
    found = {
        "tokenizer": config.tokenizer_sha256,
        **_asked(config.suites),
    }
    wanted = {
        "tokenizer": track.tokenizer_sha256,
        **_asked(track.suites),
    }
    for what in {**wanted, **found}:
        if found.get(what) != wanted.get(what):
            raise FairspecError(
                f"track {track.name}: {what} here is {found.get(what)}, the track's is {wanted.get(what)}. "
                "Give the track's verifier and data."
            )
    if prepared.dropped:
        raise FairspecError(f"track {track.name}: {prepared.dropped[0].key}: {prepared.dropped[0].reason}.")
    return track_references


def _asked(suites: Sequence[SuiteConfig | TrackSuite]) -> dict[str, object]:
    prompts = {f"{suite.name}/{name}": sha for suite in suites for name, sha in (suite.prompts_sha256 or {}).items()}
    return prompts | {f"{suite.name} max_new_tokens": suite.max_new_tokens for suite in suites}


# --------------------------------------------------------------------------- a track made of a run

LEAST_GAP = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.04}
"""Nats by which two honest runs may differ in any case: twice the step of a logit of 16 to 32 in that type; in float32,
where the step is 2e-6, what sums of a few thousand terms in another order may come to."""
GAP_MARGIN = 4


def divergences(replays: Iterable[Replay], dtype: str) -> dict[str, dict[str, Divergence]]:
    """Suite → language → how far the verifier diverges from its own references: decoded token by token, now
    scored in one pass.

    The gap is `GAP_MARGIN` times the largest seen, at least `LEAST_GAP`; the share the upper end of the exact 95 %
    interval (Clopper and Pearson) of the prompts that had one. Replays without these figures are left out.
    """
    by_task: dict[Task, list[Replay]] = {}
    for replay in (each for each in replays if each.divergences is not None):
        by_task.setdefault(PromptKey(replay.key).task, []).append(replay)
    found: dict[str, dict[str, Divergence]] = {}
    for task, mine in sorted(by_task.items()):
        gap = GAP_MARGIN * max(replay.largest_gap or 0.0 for replay in mine)
        diverged = sum(bool(replay.divergences) for replay in mine)
        share = float(stats.binomtest(diverged, len(mine)).proportion_ci(method="exact").high)
        allowed = Divergence(gap=rounded(max(gap, LEAST_GAP[dtype])), share=rounded(share))
        found.setdefault(task.suite, {})[task.language] = allowed
    return found


def _track_race(config: RunConfig, timings: Sequence[Timing]) -> TrackRace | None:
    """What the track's own race was; `None` where it had none that could be held against others."""
    raced, steps = Counter[str](), dict[tuple[str, bool], list[StepTimes]]()
    for key in {timing.key for timing in timings}:
        raced[PromptKey(key).task] += 1
    for timing in timings:
        steps.setdefault((PromptKey(timing.key).task, timing.mode == "speculative"), []).append(timing.step_times)
    mean = {
        each: sum(step.verify_ns for step in mine) / sum(step.verify for step in mine)
        for each, mine in steps.items()
        if any(step.verify for step in mine)
    }
    tasks = [task for task in raced if (task, True) in mean and (task, False) in mean]
    if not tasks or config.race_rounds < 2:
        return None
    return TrackRace(
        prompts=config.race_prompts or max(raced.values()),
        rounds=config.race_rounds,
        width=config.race_width,
        budget=config.race_budget,
        verify_ratio=rounded(min(mean[task, True] / mean[task, False] for task in tasks)),
        step_ns=rounded(min(mean[task, False] for task in tasks)),
    )


def write_track(
    run: Path,
    folder: Path,
    name: str,
    *,
    title: str,
    about: str,
    vocabulary: int,
    eos_ids: Iterable[int],
    stops: Mapping[str, tuple[str, ...]],
    replicates: int = 10_000,
    baseline: str | None = None,
    pieces: Callable[[Iterable[int]], Mapping[int, bytes]] | None = None,
) -> Path:
    """Fix a track by a finished run: `<name>.toml` and its reference pack in `folder`; → the former.

    `stops` are each suite's stop strings, `pieces` gives the bytes of tokens, kept of those written and drafted. Raises
    `FairspecError` for a track that is there or a run that is not whole.
    """
    path, pack = folder / f"{name}.toml", folder / f"{name}.reference.jsonl.gz"
    if path.exists():
        raise FairspecError(f"{path}: is there already. A changed track is a new track: give it another name.")
    source = RunFolder(run)
    track_references = references_of(run)
    config, raced = source.config, source.environments[-1]
    allowed = divergences(source.lines("replay", Replay), config.dtype) if config.sampling.greedy else {}
    text = lines_text(track_references).encode()
    track = Track(
        schema_version=2,
        name=name,
        title=title,
        about=about,
        verifier=config.verifier.name,
        verifier_revision=config.verifier.revision,
        tokenizer_sha256=config.tokenizer_sha256,
        vocabulary=vocabulary,
        eos_ids=tuple(sorted(eos_ids)),
        chat_template=config.chat_template,
        chat_template_args=config.chat_template_args,
        sampling=config.sampling,
        gamma=config.gamma,
        seed=config.seed,
        dtype=config.dtype,
        verifier_parameters=config.verifier.parameters,
        hardware=Hardware(
            device=raced.device,
            device_name=raced.device_name,
            backend=config.backend,
            processor=raced.processor,
            threads=raced.threads,
        ),
        race=_track_race(config, source.lines("race", Timing)),
        replicates=replicates,
        reference_sha256=hashlib.sha256(text).hexdigest(),
        baseline=baseline,
        suites=tuple(
            TrackSuite(
                **suite.model_dump(exclude={"languages"}),
                stops=stops[suite.name],
                divergence=allowed.get(suite.name, {}),
            )
            for suite in config.suites
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    pack.write_bytes(gzip.compress(text, 9, mtime=0))
    if pieces is not None:
        drafted = (each for replay in source.lines("replay", Replay) for each in replay.draft_ids)
        used = sorted({*drafted, *(each for reference in track_references for each in reference.ids)})
        kept = gzip.compress(pieces_text(pieces(used)).encode(), 9, mtime=0)
        (folder / f"{name}.pieces.json.gz").write_bytes(kept)
    write_atomic(path, tomli_w.dumps(track.model_dump(mode="json", exclude_none=True)))
    return path
