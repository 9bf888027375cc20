"""The engine on one GPU at the shapes of Qwen2.5-3B and 0.5B: `make bench-gpu`.

The same rows run on a CPU with few layers, so that only the graphs themselves and the figures need the device.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from pace import GAMMA, Pair, Row, in_turn, ratios, row, seconds, shaped_like_qwen
from pytest_benchmark.fixture import BenchmarkFixture

from fairspec_bench.models.model import Model

Take = Callable[[Row], None]
Make = Callable[[float], Pair]
CUDA = torch.cuda.is_available()
COPIED = 2**32


def beside_transformers(make: Make, rounds: int) -> list[Row]:
    pair = make(0.8)
    alone, both = pair.decoder(None), pair.decoder(pair.drafter)
    found = in_turn(
        {
            "ours": partial(seconds, lambda: pair.decode(both)),
            "assisted": partial(seconds, pair.assisted),
            "ours alone": partial(seconds, lambda: pair.decode(alone)),
            "generate": partial(seconds, pair.generate),
        },
        rounds,
    )
    return [
        row(f"speculative tok/s ÷ generate(assistant_model), {pair.name}", 5, ratios(found, "assisted", "ours")),
        row(f"autoregressive tok/s ÷ generate, {pair.name}", 5, ratios(found, "generate", "ours alone")),
    ]


def against_the_bandwidth(make: Make, rounds: int) -> list[Row]:
    """What decoding reads, weights once a token, over what the device copies; then blocks over their roofline.

    The roofline of a block: τ tokens in the time that the verifier's weights and γ times the drafter's take to be read.
    """
    pair = make(0.8)
    device = pair.verifier.device
    source = torch.empty(COPIED if CUDA else 2**24, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    decoders = {"plain": pair.decoder(None)}
    for acceptance in (0.6, 0.8):
        for gamma in (3, 5):
            made = make(acceptance)
            decoders[f"α = {acceptance}, γ = {gamma}"] = made.decoder(made.drafter, gamma)

    def spent(name: str) -> float:
        """Seconds of all blocks, prefills apart."""
        pair.decode(decoders[name])
        return decoders[name].spent_ns / 1e9

    found = in_turn(
        {"copy": lambda: seconds(lambda: target.copy_(source)), **{name: partial(spent, name) for name in decoders}},
        rounds,
    )
    speed = 2 * source.numel() / statistics.median(found["copy"])
    tokens = sum(len(text) - 1 for text in pair.texts.values())
    verifier, small = _bytes(pair.verifier) / speed, _bytes(pair.small) / speed
    rows = [
        row(
            f"autoregressive bandwidth ÷ copy bandwidth, {pair.name.partition(',')[0]}",
            0.7,
            [tokens * verifier / each for each in found["plain"]],
            detail=f"copy {speed / 1e12:.2f} TB/s",
        )
    ]
    for name, each in list(found.items())[2:]:
        acceptance, gamma = float(name.split()[2][:-1]), int(name.split()[-1])
        efficiency = sum(acceptance**power for power in range(gamma + 1))
        best = efficiency / (verifier + gamma * small)
        rows.append(row(f"speculative ÷ roofline, {name}", 0.6, [tokens / one / best for one in each]))
    return rows


def steps_against_the_whole(make: Make, rounds: int) -> list[Row]:
    """A block recorded step by step, so that each can be timed, over the block recorded as a whole."""
    pair = make(0.8)
    both = pair.decoder(pair.drafter)

    def spent(exact: bool) -> float:
        texts = pair.texts if pair.scripted else None
        return sum(row.decode_ns for row in both.decode(pair.requests, texts, exact_times=exact))

    found = in_turn({"steps": partial(spent, True), "whole": partial(spent, False)}, rounds)
    return [row("block in steps ÷ as a whole", 1.05, ratios(found, "steps", "whole"), at_most=True)]


def _bytes(model: Model) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.hf.parameters())


MEASURES: Sequence[Callable[[Make, int], list[Row]]] = (
    beside_transformers,
    against_the_bandwidth,
    steps_against_the_whole,
)


@pytest.mark.skipif(not CUDA, reason="needs a GPU")
@pytest.mark.parametrize("measure", MEASURES)
def test_on_a_gpu(measure: Callable[[Make, int], list[Row]], benchmark: BenchmarkFixture, take: Take) -> None:
    first = shaped_like_qwen(0.8, "graph", "cuda")

    def make(acceptance: float) -> Pair:
        return first if acceptance == 0.8 else replace(first, acceptance=acceptance)

    for each in benchmark.pedantic(lambda: measure(make, 9), rounds=1):
        benchmark.extra_info[each.what] = each.value
        take(each)


@pytest.mark.slow
@pytest.mark.parametrize("measure", MEASURES)
def test_the_same_rows_in_small(measure: Callable[[Make, int], list[Row]]) -> None:
    """Two layers and 512 ids on a CPU, blocks recorded by the rehearsal: every row comes out a positive number."""
    first = shaped_like_qwen(0.8, "graph", "cpu", layers=(2, 1), vocabulary=512, max_new_tokens=6)
    rows = measure(lambda acceptance: first if acceptance == 0.8 else replace(first, acceptance=acceptance), 1)
    assert rows
    assert all(each.value > 0 for each in rows)
    if measure is against_the_bandwidth:
        assert len(rows) == 5
    assert GAMMA == 4
