"""Acceptance: how many drafts the verifier keeps, from replays and from live blocks.

A block is γ drafts and one verifier call: `a` drafts are accepted and `a + 1` tokens emitted, fewer at the end of the
output. Contexts are output positions 2…N, so a prompt of N output tokens has N − 1 of them; position 1 comes from
prefill and is in no figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairspec_bench.metrics.bootstrap import Array
from fairspec_bench.metrics.drafting import off_gamma
from fairspec_bench.metrics.measure import Definition, Measure, column
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Answer, Block, Counters, Reference, Replay, Timing


def uncut(*totals: Array) -> Array:
    """1 + Σ_{i≤γ} Π_{j≤i} a_j with a_j = accepted_j / tested_j; totals are accepted_1…γ, then tested_1…γ.

    A position that no block reached adds 0; one that no block *could* reach because every output ends before it is
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


BY_POSITION = Definition(
    "acceptance_by_position",
    "Acceptance by position",
    "1",
    "Accepted ÷ tested drafts at position j of the block.",
    symbol="aⱼ",
    kind="ratio",
    better="higher",
    note="It rises with j because easy stretches survive, not because the drafter improves.",
)
JOINT = Definition(
    "acceptance_joint",
    "Joint acceptance by position",
    "1",
    "Chance that the draft at this position and all before it in the block are accepted.",
    symbol="Πⱼ aⱼ",
    kind="ratio",
    better="higher",
)

BY_OUTPUT = Definition(
    "acceptance_by_output",
    "Acceptance by output position",
    "1",
    "Mean chance of acceptance over the contexts at these positions of the output.",
    kind="ratio",
    better="higher",
    note="Later positions are of the longer answers only.",
)
LENGTHS = Definition(
    "accepted_lengths",
    "Accepted drafts in a block",
    "1",
    "Share of blocks that accept exactly j drafts.",
    kind="share",
    note="The last block of an answer counts what it accepts inside the text.",
)
OUTPUT_BINS = (2, 17, 65, 257, 1025)
"""First output position, from 1, of each bin of `acceptance_by_output`; the last has no end."""


def measures(gamma: int) -> tuple[Measure, ...]:
    """The measures of acceptance, misfit and length for blocks of γ drafts, by name."""
    positions = range(1, gamma + 1)
    by_position = tuple(f"{sum_}_{j}" for sum_ in ("accepted", "tested") for j in positions)
    return (
        Measure(
            "acceptance",
            "Acceptance",
            "1",
            "Mean over contexts of Σₓ min(p(x), q(x)) under the sampling parameters: the chance that the verifier "
            "accepts the drafter's next token.",
            ("alpha", "contexts"),
            symbol="α",
            kind="ratio",
            better="higher",
            note="Greedy: the share of contexts where both argmaxes agree. The headline figure.",
            high=1,
        ),
        Measure(
            "acceptance_prompt_mean",
            "Acceptance, mean of prompts",
            "1",
            "Mean over prompts of each prompt's own mean, so that a long answer weighs no more than a short one.",
            ("alpha_mean", "prompts"),
            kind="ratio",
            better="higher",
            high=1,
        ),
        Measure(
            "overlap",
            "Overlap",
            "1",
            "Mean over contexts of Σₓ min(p(x), q(x)) at temperature 1 on the full softmax, whatever the "
            "sampling parameters.",
            ("overlap", "contexts"),
            symbol="1 − TV",
            kind="ratio",
            better="higher",
            high=1,
        ),
        Measure(
            "acceptance_expected",
            "Expected acceptance",
            "1",
            "Accepted ÷ tested drafts of live decoding, computed from one replay by the block recursion; exact "
            "under greedy decoding.",
            ("accepted", "tested"),
            kind="ratio",
            better="higher",
            high=1,
        ),
        Measure(
            "acceptance_observed",
            "Observed acceptance",
            "1",
            "Accepted drafts ÷ drafts tested in live decoding.",
            ("live_accepted", "live_tested"),
            kind="ratio",
            better="higher",
            note="A mean over tested contexts only: do not compare it with acceptance.",
            high=1,
        ),
        Measure(
            "draft_utilisation",
            "Draft utilisation",
            "1",
            "Accepted drafts ÷ drafts proposed (other tools call this the acceptance rate).",
            ("accepted", "proposed"),
            kind="ratio",
            better="higher",
            high=1,
        ),
        Measure(
            "blocks_expected",
            "Expected blocks",
            "blocks",
            "Verifier calls per answer after prefill, computed from one replay by the block recursion.",
            ("blocks", "prompts"),
            better="lower",
        ),
        Measure(
            "block_efficiency",
            "Block efficiency",
            "tokens per verifier call",
            "Tokens emitted ÷ verifier calls, as it happened; decode time follows this one.",
            ("contexts", "blocks"),
            symbol="τ",
            better="higher",
        ),
        Measure(
            "block_efficiency_prompt_mean",
            "Block efficiency, mean of prompts",
            "tokens per verifier call",
            "Mean over prompts of each prompt's own tokens ÷ verifier calls, so that a long answer weighs no more than "
            "a short one.",
            ("efficiency_mean", "prompts"),
            better="higher",
            note="Tools that average their requests show this one; it may rank drafters otherwise.",
            high=gamma + 1,
        ),
        Measure(
            "block_efficiency_uncut",
            "Block efficiency, uncut",
            "tokens per verifier call",
            "Tokens emitted ÷ verifier calls without the cut of each answer's last block, which lowers short "
            "answers more.",
            by_position,
            uncut,
            symbol="1 + Σᵢ Πⱼ aⱼ",
            better="higher",
            note="Compare languages by this one.",
            high=gamma + 1,
        ),
        Measure(
            "misfit",
            "Misfit",
            "nats",
            "Mean KL divergence Σ p ln(p/q) of the drafter from the verifier, temperature 1, full softmax.",
            ("kl", "contexts"),
            symbol="D",
            better="lower",
            note="Not defined for a drafter that gives no probabilities.",
        ),
        Measure(
            "misfit_prompt_mean",
            "Misfit, mean of prompts",
            "nats",
            "Mean over prompts of each prompt's own mean KL divergence.",
            ("kl_mean", "prompts"),
            better="lower",
        ),
        Measure(
            "misfit_ce",
            "Misfit, cross-entropy",
            "nats",
            "Mean cross-entropy −Σ p ln q of the drafter under the verifier, temperature 1, full softmax.",
            ("cross_entropy", "contexts"),
            symbol="D(CE)",
            better="lower",
            note="It contains the verifier's own entropy, which differs between languages.",
        ),
        Measure(
            "misfit_sequence",
            "Misfit per answer",
            "nats",
            "Mean over prompts of the KL divergence summed along the answer.",
            ("kl", "prompts"),
            better="lower",
        ),
        Measure(
            "misfit_per_byte",
            "Misfit per byte",
            "nats per byte",
            "KL divergence ÷ bytes of the answer, so that it does not depend on how finely the tokenizer splits"
            " a language.",
            ("kl", "bytes"),
            better="lower",
        ),
        Measure(
            "verifier_entropy",
            "Verifier entropy",
            "nats",
            "Mean entropy of the verifier: misfit by cross-entropy less misfit.",
            ("verifier_entropy", "contexts"),
            symbol="H(p)",
        ),
        Measure(
            "tokens_per_answer",
            "Tokens per answer",
            "tokens",
            "Mean length of the verifier's answer.",
            ("tokens", "prompts"),
        ),
        Measure(
            "tokens_per_char",
            "Tokens per character",
            "tokens",
            "Output tokens ÷ characters of the answer: how finely the tokenizer splits this language.",
            ("tokens", "chars"),
            note="Acceptance per token is not comparable between languages that differ here.",
        ),
        Measure(
            "verifier_calls_per_answer",
            "Verifier calls per answer",
            "calls",
            "Verifier calls for one answer with speculation, prefill included: the waiting time without the hardware.",
            ("calls", "prompts"),
            better="lower",
        ),
        Measure(
            "verifier_calls_per_token",
            "Verifier calls per token",
            "calls",
            "Verifier calls with speculation, prefill included, ÷ output tokens: what is left to the drafter.",
            ("calls", "tokens"),
            better="lower",
            note="Times tokens per character it is verifier calls per character.",
        ),
        Measure(
            "verifier_calls_per_char",
            "Verifier calls per character",
            "calls",
            "Verifier calls with speculation, prefill included, ÷ characters of the answer: tokenizer and drafter "
            "together.",
            ("calls", "chars"),
            better="lower",
            note="A character says more in some scripts than in others: compare answers to the same problem instead.",
        ),
        Measure(
            "outside_draft_vocabulary",
            "Outside the draft vocabulary",
            "1",
            "Share of the verifier's tokens after the first that a drafter of a smaller vocabulary cannot propose.",
            ("outside", "draftable"),
            kind="share",
            better="lower",
            note="Acceptance is at most 1 − this; only of drafters with such a vocabulary.",
            high=1,
        ),
    )


def output_measures() -> dict[str, Measure]:
    """Acceptance by output position, by the positions of the bin: `2-16` … `1025-`."""
    ends = [f"{start - 1}" for start in OUTPUT_BINS[1:]] + [""]
    return {
        f"{start}-{end}": Measure(
            f"acceptance_output_{start}", "", "1", BY_OUTPUT.definition, (f"hits_{start}", f"contexts_{start}"), high=1
        )
        for start, end in zip(OUTPUT_BINS, ends, strict=True)
    }


def length_measures(gamma: int) -> tuple[Measure, ...]:
    """The share of blocks that accept exactly 0, 1, … γ drafts."""

    def exactly(at_least: Array, more: Array, blocks: Array) -> Array:
        return (at_least - more) / blocks

    names = ["blocks", *(f"accepted_{j}" for j in range(1, gamma + 1)), "none"]
    return tuple(
        Measure(
            f"accepted_{j}_exactly", "", "1", LENGTHS.definition, (names[j], names[j + 1], "blocks"), exactly, high=1
        )
        for j in range(gamma + 1)
    )


def position_measures(
    gamma: int, also: Sequence[int] = ()
) -> tuple[tuple[Measure, ...], tuple[Measure, ...], dict[int, Measure]]:
    """Acceptance by block position (given it was tested, and joint) and the block efficiency of every shown γ."""
    places = range(1, gamma + 1)
    given = tuple(
        Measure(f"acceptance_{j}", "", "1", BY_POSITION.definition, (f"accepted_{j}", f"tested_{j}"), high=1)
        for j in places
    )
    joint = tuple(Measure(f"joint_{j}", "", "1", JOINT.definition, (f"accepted_{j}", "blocks"), high=1) for j in places)
    swept = {
        each: Measure(
            f"block_efficiency@{each}",
            "",
            "tokens per verifier call",
            "Tokens emitted ÷ verifier calls at this γ.",
            ("contexts", f"blocks@{each}"),
        )
        for each in swept_gammas(gamma, also)
    }
    return given, joint, swept


def swept_gammas(gamma: int, also: Sequence[int] = ()) -> tuple[int, ...]:
    """Every γ that a report shows: 1 to 8, the run's own and those it sweeps `also`."""
    return tuple(sorted({*range(1, 9), gamma, *also}))


# --------------------------------------------------------------------------- blocks


def blocks_from_matches(matches: Sequence[bool], gamma: int) -> tuple[Block, ...]:
    """The blocks of greedy decoding, last one included; `matches[i]`: whether the draft for output position i + 2 hits.

    Verdicts past the end of the output are unknown in a replay, so `raw_accepted` equals `accepted`.
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
    """Blocks expected given the reference: acceptances are independent Bernoulli(β), β = min(1, q(y)/p(y)).

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


def chances(replay: Replay, reference: Reference) -> tuple[float, ...]:
    """Each context's chance of acceptance: β, or in greedy decoding whether the draft is the reference's token."""
    if replay.beta is not None:
        return replay.beta
    return tuple(float(draft == token) for draft, token in zip(replay.draft_ids, reference.ids[1:], strict=True))


# --------------------------------------------------------------------------- sums of each prompt


def columns(
    keys: Sequence[str],
    references: Mapping[str, Reference],
    replays: Mapping[str, Replay],
    answers: Mapping[str, Answer],
    timings: Iterable[Timing],
    gamma: int,
    also: Sequence[int] = (),
) -> dict[str, Array]:
    """The sums of each prompt that acceptance rests on, float64 `[prompts]`; NaN for a prompt without them."""
    found = [replays.get(key) for key in keys]
    texts = [answers.get(key) for key in keys]
    traced = [references.get(key) for key in keys]
    table = {
        name: column(None if replay is None else getattr(replay, name) for replay in found)
        for name in ("contexts", "alpha", "overlap", "kl", "cross_entropy", "verifier_entropy")
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        table["alpha_mean"] = table["alpha"] / table["contexts"]
        table["kl_mean"] = table["kl"] / table["contexts"]
    table["prompts"] = np.ones(len(keys))
    table["tokens"] = column(None if reference is None else len(reference.ids) for reference in traced)
    table["chars"] = column(None if text is None else text.chars for text in texts)
    table["bytes"] = column(None if text is None else text.bytes for text in texts)
    table |= _block_columns(found, references, gamma, also)
    with np.errstate(divide="ignore", invalid="ignore"):
        table["efficiency_mean"] = table["contexts"] / table["blocks"]
    return table | _live_columns(keys, timings, gamma)


def _block_columns(
    found: Sequence[Replay | None], references: Mapping[str, Reference], gamma: int, also: Sequence[int]
) -> dict[str, Array]:
    rows = [place for place, replay in enumerate(found) if replay is not None]
    betas = [chances(replay, references[replay.key]) for replay in found if replay is not None]
    table: dict[str, Array] = {}

    def put(name: str, values: Array) -> None:
        table[name] = np.full(len(found), np.nan)
        table[name][rows] = values

    for start, following in zip(OUTPUT_BINS, (*OUTPUT_BINS[1:], None), strict=True):
        # The first chance is that of output position 2.
        inside = [beta[start - 2 : following and following - 2] for beta in betas]
        put(f"hits_{start}", np.array([sum(beta) for beta in inside], dtype=np.float64))
        # An answer that ends before has no data there, and is no cluster that agrees with the others.
        put(f"contexts_{start}", np.array([len(beta) or np.nan for beta in inside], dtype=np.float64))
    for swept in swept_gammas(gamma, also):
        expected = expected_blocks(betas, swept)
        put(f"blocks@{swept}", expected.blocks)
        if swept == gamma:
            put("blocks", expected.blocks)
            put("calls", expected.blocks + 1)
            put("proposed", gamma * expected.blocks)
            put("none", np.zeros(len(rows)))
            put("tested", expected.tested.sum(axis=1))
            put("accepted", expected.accepted.sum(axis=1))
            for j in range(gamma):
                put(f"tested_{j + 1}", expected.tested[:, j])
                put(f"accepted_{j + 1}", expected.accepted[:, j])
    return table


def _live_columns(keys: Sequence[str], timings: Iterable[Timing], gamma: int) -> dict[str, Array]:
    tested, accepted = dict.fromkeys(keys, 0), dict.fromkeys(keys, 0)
    outside: dict[str, tuple[int, int]] = {}
    seen = set()
    unknown = set()
    for timing in timings:
        if timing.mode == "speculative" and timing.key in tested:
            seen.add(timing.key)
            if timing.outside_vocabulary is not None:
                outside[timing.key] = timing.outside_vocabulary, timing.tokens - 1
            if off_gamma(timing.counters, gamma):
                unknown.add(PromptKey(timing.key).task)
            found = live_drafts(timing, gamma)
            tested[timing.key] += found[0]
            accepted[timing.key] += found[1]
    # Of a whole task: the prompts that were left would not be a fair sample of it.
    seen = {key for key in seen if PromptKey(key).task not in unknown}
    return {
        "live_tested": column(tested[key] if key in seen else None for key in keys),
        "live_accepted": column(accepted[key] if key in seen else None for key in keys),
        "outside": column(outside[key][0] if key in outside else None for key in keys),
        "draftable": column(outside[key][1] if key in outside else None for key in keys),
    }


def live_drafts(timing: Timing, gamma: int) -> tuple[int, int]:
    """Drafts tested and accepted in one live decode: by its blocks, those inside the output.

    An engine's own counters serve where the blocks are unknown, or some of them had no drafts.
    """
    counted = timing.counters
    if counted is not None and counted.rounds != len(timing.blocks):
        return counted_drafts(counted, gamma)
    return sum(min(block.emitted, gamma) for block in timing.blocks), sum(block.accepted for block in timing.blocks)


def counted_drafts(counted: Counters, gamma: int) -> tuple[int, int]:
    """Drafts tested and accepted by an engine's own counters: one is tested after each that is accepted before it."""
    tested = counted.rounds + sum(counted.accepted_by_position[: gamma - 1])
    return min(tested, counted.drafts), counted.accepted
