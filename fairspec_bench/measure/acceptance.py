"""How much of the drafter's work the verifier keeps, from replays and live blocks.

Knows the block structure of speculative decoding and the sums of each prompt; knows no clocks and no languages.

A block is γ drafts and one verifier call: `a` drafts accepted, `a + 1` tokens emitted, fewer where the text ends.
Contexts are output positions 2…N, so a prompt of N tokens has N − 1 of them; position 1 comes from prefill and is in
no figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairspec_bench.measure.bootstrap import Array
from fairspec_bench.measure.table import Measure, column
from fairspec_bench.records import Answer, Block, Replay, Timing, Trace


def uncut(*totals: Array) -> Array:
    """1 + Σ_{i≤γ} Π_{j≤i} a_j with a_j = accepted_j / tested_j; totals are accepted_1…γ, then tested_1…γ.

    A position that no block reached adds 0; one that no block *could* reach because every text ends before it is
    unknown, NaN.
    """
    gamma = len(totals) // 2
    reach = np.ones_like(totals[0])
    length = np.ones_like(totals[0])
    for accepted, tested in zip(totals[:gamma], totals[gamma:], strict=True):
        reached = np.real(tested) != 0
        share = np.where(reached, accepted / np.where(reached, tested, 1), np.nan)
        reach = np.where(np.real(reach) == 0, 0, reach * share)
        length = length + reach
    return length


def measures(gamma: int) -> tuple[Measure, ...]:
    """The measures of this room for blocks of γ drafts, by their METRICS names."""
    positions = range(1, gamma + 1)
    by_position = tuple(f"{sum_}_{j}" for sum_ in ("accepted", "tested") for j in positions)
    contexts = ("contexts",)
    return (
        Measure("acceptance", "1", "mean of alpha = Σ min(p, q) over contexts", ("alpha", *contexts), high=1),
        Measure(
            "acceptance_prompt_mean", "1", "mean over prompts of their mean alpha", ("alpha_mean", "prompts"), high=1
        ),
        Measure("overlap", "1", "alpha at temperature 1 on the full softmax", ("overlap", *contexts), high=1),
        Measure(
            "acceptance_expected",
            "1",
            "accepted / tested drafts, by the block recursion",
            ("accepted", "tested"),
            high=1,
        ),
        Measure(
            "acceptance_observed",
            "1",
            "accepted / tested drafts in live decoding: estimates alpha over tested contexts, not acceptance",
            ("live_accepted", "live_tested"),
            high=1,
        ),
        Measure("draft_utilisation", "1", "accepted / proposed drafts", ("accepted", "proposed"), high=1),
        Measure("blocks_expected", "1", "blocks per answer, by the block recursion", ("blocks", "prompts")),
        Measure("block_efficiency", "tokens", "tokens emitted / blocks, last block as cut", (*contexts, "blocks")),
        Measure(
            "block_efficiency_uncut",
            "tokens",
            "1 + Σ_i Π_{j≤i} a_j: free of the last block's cut; compare languages by this one",
            by_position,
            uncut,
            high=gamma + 1,
        ),
        Measure("misfit", "nats", "mean KL(p‖q) over contexts", ("kl", *contexts)),
        Measure("misfit_prompt_mean", "nats", "mean over prompts of their mean KL", ("kl_mean", "prompts")),
        Measure("misfit_ce", "nats", "mean cross-entropy of q under p over contexts", ("cross_entropy", *contexts)),
        Measure("misfit_sequence", "nats", "mean over prompts of their summed KL", ("kl", "prompts")),
        Measure("misfit_per_byte", "nats/byte", "summed KL / bytes of answer text", ("kl", "bytes")),
        Measure("verifier_entropy", "nats", "mean entropy of p: misfit_ce − misfit", ("verifier_entropy", *contexts)),
        Measure("tokens_per_answer", "tokens", "output tokens / answers", ("tokens", "prompts")),
        Measure("tokens_per_char", "tokens", "output tokens / characters of answer text", ("tokens", "chars")),
        Measure("verifier_calls_per_answer", "calls", "prefill and blocks / answers", ("calls", "prompts")),
    )


def position_measures(
    gamma: int, also: Sequence[int] = ()
) -> tuple[tuple[Measure, ...], tuple[Measure, ...], dict[int, Measure]]:
    """Acceptance by block position (given it was tested, and joint) and the block efficiency of every shown γ."""
    places = range(1, gamma + 1)
    given = tuple(
        Measure(f"acceptance_{j}", "1", f"accepted / tested at position {j}", (f"accepted_{j}", f"tested_{j}"), high=1)
        for j in places
    )
    joint = tuple(
        Measure(f"joint_{j}", "1", f"blocks that accept position {j} / blocks", (f"accepted_{j}", "blocks"), high=1)
        for j in places
    )
    swept = {
        each: Measure(
            f"block_efficiency@{each}", "tokens", f"tokens / blocks at γ = {each}", ("contexts", f"blocks@{each}")
        )
        for each in swept_gammas(gamma, also)
    }
    return given, joint, swept


def swept_gammas(gamma: int, also: Sequence[int] = ()) -> tuple[int, ...]:
    """Every γ that a report shows: 1 to 8, the run's own and those it sweeps `also`."""
    return tuple(sorted({*range(1, 9), gamma, *also}))


# --------------------------------------------------------------------------- blocks


def blocks_from_matches(matches: Sequence[bool], gamma: int) -> tuple[Block, ...]:
    """The blocks of greedy decoding, last one included: `matches[i]` tells if the draft for output position i + 2 hits.

    Verdicts past the end of the text are unknown to a replay, so `raw_accepted` equals `accepted`.
    """
    blocks: list[Block] = []
    start = 0
    while start < len(matches):
        drafts = matches[start : start + gamma]
        accepted = next((place for place, hit in enumerate(drafts) if not hit), len(drafts))
        emitted = min(accepted + 1, len(matches) - start)
        blocks.append(Block(accepted=accepted, emitted=emitted, raw_accepted=accepted))
        start += emitted
    return tuple(blocks)


@dataclass(frozen=True)
class ExpectedBlocks:
    """Per prompt, the expected number of blocks `[P]` and of tested and accepted drafts by block position `[P, γ]`."""

    blocks: Array
    tested: Array
    accepted: Array


def expected_blocks(betas: Sequence[Sequence[float]], gamma: int) -> ExpectedBlocks:
    """Blocks expected given the text: accepts are independent Bernoulli(β) with β = min(1, q(y)/p(y)) at each context.

    State j < γ: the context is tested at block position j; state γ: it is the verifier's bonus token. An accept moves
    j → j + 1, a rejection or a bonus starts a block. With β in {0, 1} (greedy) the counts are exact, not expectations.
    """
    lengths = np.array([len(beta) for beta in betas], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths.max(initial=0))
    padded = np.zeros((len(betas), longest))
    for row, prompt in enumerate(order):
        padded[row, : lengths[prompt]] = betas[prompt]
    active = np.searchsorted(-lengths[order], -np.arange(longest), side="left")
    state = np.zeros((len(betas), gamma + 1))
    state[:, 0] = 1.0
    blocks, tested, accepted = np.zeros(len(betas)), np.zeros((len(betas), gamma)), np.zeros((len(betas), gamma))
    for place, rows in enumerate(active):
        here = state[:rows]
        accept = here[:, :gamma] * padded[:rows, place, None]
        blocks[:rows] += here[:, 0]
        tested[:rows] += here[:, :gamma]
        accepted[:rows] += accept
        restart = (here[:, :gamma] - accept).sum(axis=1) + here[:, gamma]
        state[:rows] = np.concatenate([restart[:, None], accept], axis=1)
    back = np.argsort(order)
    return ExpectedBlocks(blocks[back], tested[back], accepted[back])


def chances(replay: Replay, trace: Trace) -> tuple[float, ...]:
    """Each context's chance of acceptance: β, or under the greedy rule whether the draft is the text's token."""
    if replay.beta is not None:
        return replay.beta
    return tuple(float(draft == token) for draft, token in zip(replay.draft_ids, trace.ids[1:], strict=True))


# --------------------------------------------------------------------------- sums of each prompt


def columns(
    keys: Sequence[str],
    traces: Mapping[str, Trace],
    replays: Mapping[str, Replay],
    answers: Mapping[str, Answer],
    timings: Iterable[Timing],
    gamma: int,
    also: Sequence[int] = (),
) -> dict[str, Array]:
    """The sums of each prompt that acceptance rests on, float64 `[prompts]`; NaN for a prompt without them."""
    found = [replays.get(key) for key in keys]
    texts = [answers.get(key) for key in keys]
    traced = [traces.get(key) for key in keys]
    table = {
        name: column(None if replay is None else getattr(replay, name) for replay in found)
        for name in ("contexts", "alpha", "overlap", "kl", "cross_entropy", "verifier_entropy")
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        table["alpha_mean"] = table["alpha"] / table["contexts"]
        table["kl_mean"] = table["kl"] / table["contexts"]
    table["prompts"] = np.ones(len(keys))
    table["tokens"] = column(None if trace is None else len(trace.ids) for trace in traced)
    table["chars"] = column(None if text is None else text.chars for text in texts)
    table["bytes"] = column(None if text is None else text.bytes for text in texts)
    return table | _block_columns(found, traces, gamma, also) | _live_columns(keys, timings, gamma)


def _block_columns(
    found: Sequence[Replay | None], traces: Mapping[str, Trace], gamma: int, also: Sequence[int]
) -> dict[str, Array]:
    rows = [place for place, replay in enumerate(found) if replay is not None]
    betas = [chances(replay, traces[replay.key]) for replay in found if replay is not None]
    table = {}

    def put(name: str, values: Array) -> None:
        table[name] = np.full(len(found), np.nan)
        table[name][rows] = values

    for swept in swept_gammas(gamma, also):
        expected = expected_blocks(betas, swept)
        put(f"blocks@{swept}", expected.blocks)
        if swept == gamma:
            put("blocks", expected.blocks)
            put("calls", expected.blocks + 1)
            put("proposed", gamma * expected.blocks)
            put("tested", expected.tested.sum(axis=1))
            put("accepted", expected.accepted.sum(axis=1))
            for j in range(gamma):
                put(f"tested_{j + 1}", expected.tested[:, j])
                put(f"accepted_{j + 1}", expected.accepted[:, j])
    return table


def _live_columns(keys: Sequence[str], timings: Iterable[Timing], gamma: int) -> dict[str, Array]:
    tested, accepted = dict.fromkeys(keys, 0), dict.fromkeys(keys, 0)
    seen = set()
    for timing in timings:
        if timing.mode == "speculative" and timing.key in tested:
            seen.add(timing.key)
            found = live_drafts(timing, gamma)
            tested[timing.key] += found[0]
            accepted[timing.key] += found[1]
    return {
        "live_tested": column(tested[key] if key in seen else None for key in keys),
        "live_accepted": column(accepted[key] if key in seen else None for key in keys),
    }


def live_drafts(timing: Timing, gamma: int) -> tuple[int, int]:
    """Drafts tested and accepted in one live decode: by its blocks, those inside the text.

    An engine's own counters serve where the blocks are unknown, or some of them had no drafts.
    """
    counted = timing.counters
    if counted is not None and counted.rounds != len(timing.blocks):
        tested = counted.rounds + sum(counted.accepted_by_position[: gamma - 1])
        return min(tested, counted.drafts), counted.accepted
    return sum(min(block.emitted, gamma) for block in timing.blocks), sum(block.accepted for block in timing.blocks)
