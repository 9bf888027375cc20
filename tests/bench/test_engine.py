"""The engine beside Transformers, itself at other settings, and what its formula says: `make bench`.

Each row compares two things in turn in one process and reports a ratio with an interval; an aim missed is reported,
never hidden, and fails nothing: `docs/results/engine.md` says by how much.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from pace import (
    GAMMA,
    GREEDY,
    ROUNDS,
    Pair,
    Row,
    embedded,
    few_layers,
    in_turn,
    met,
    middling,
    ratios,
    real,
    row,
    seconds,
)
from pytest_benchmark.fixture import BenchmarkFixture

from fairspec_bench.engine.backends.compiled import CompiledSteps
from fairspec_bench.engine.backends.registry import step_runner
from fairspec_bench.engine.batch import Batch
from fairspec_bench.engine.clock import Clock
from fairspec_bench.engine.speculative import Decoded, Decoder, Request, as_request
from fairspec_bench.metrics.speed import race_sentence
from fairspec_bench.models.codec import Codec
from fairspec_bench.models.model import Rows
from fairspec_bench.schemas.config import Backend
from fairspec_bench.schemas.lines import Reference
from fairspec_bench.schemas.options import ModelSpec, RunOptions
from fairspec_bench.scoring import stages
from fairspec_bench.scoring.prepare import prepare
from fairspec_bench.scoring.replay import replay
from fairspec_bench.scoring.run import run
from fairspec_bench.suites.suite import load_suite

Take = Callable[[Row], None]
BACKEND: Backend = "compile"
REAL = "FAIRSPEC_BENCH_PAIR"
PAIRS = {"embedded": embedded, "12 × 512": middling}


def once(benchmark: BenchmarkFixture, measure: Callable[[], Sequence[Row]], take: Take) -> None:
    """Rounds lie within a measurement, which takes its two sides in turn."""
    rows = benchmark.pedantic(measure, rounds=1)
    for each in rows:
        benchmark.extra_info[each.what] = each.value
        take(each)
    assert all(each.low <= each.value <= each.high for each in rows)


# --------------------------------------------------------------------------- beside Transformers


@pytest.mark.parametrize("name", PAIRS)
def test_beside_transformers(name: str, benchmark: BenchmarkFixture, take: Take) -> None:
    pair = PAIRS[name](BACKEND)
    alone, both = pair.decoder(None), pair.decoder(pair.drafter)

    def measure() -> list[Row]:
        found = in_turn(
            {
                "ours": partial(seconds, lambda: pair.decode(both)),
                "assisted": partial(seconds, pair.assisted),
                "ours alone": partial(seconds, lambda: pair.decode(alone)),
                "generate": partial(seconds, pair.generate),
            }
        )
        speed = {way: sum(map(len, pair.texts.values())) / statistics.median(each) for way, each in found.items()}
        return [
            row(
                f"speculative tok/s ÷ generate(assistant_model), {pair.name}",
                1.4,
                ratios(found, "assisted", "ours"),
                detail=f"{speed['ours']:.0f} against {speed['assisted']:.0f} tok/s",
            ),
            row(
                f"autoregressive tok/s ÷ generate, {pair.name}",
                1.2,
                ratios(found, "generate", "ours alone"),
                detail=f"{speed['ours alone']:.0f} against {speed['generate']:.0f} tok/s",
            ),
        ]

    once(benchmark, measure, take)


# --------------------------------------------------------------------------- packed weights


def test_packed_weights(benchmark: BenchmarkFixture, take: Take) -> None:
    """Passes over few tokens of layers as wide as those of a 1.5B, packed and plain in turn."""
    models = {"packed": few_layers(True), "plain": few_layers(False)}
    shapes = ((1, 1), (1, 5), (8, 1), (8, 5))
    tokens = {shape: torch.full(shape, 9) for shape in shapes}
    rows = {(how, batch): model.rows(batch, 64) for how, model in models.items() for batch in (1, 8)}

    def work(how: str, shape: tuple[int, int]) -> Callable[[], float]:
        start = torch.full(shape[:1], 32)
        return partial(
            seconds, lambda: [rows[how, shape[0]].read(tokens[shape], start, 32 + shape[1], shape[1]) for _ in range(3)]
        )

    def measure() -> list[Row]:
        found = in_turn({f"{how} {shape}": work(how, shape) for how in models for shape in shapes})
        verify = {how: ratios(found, f"{how} (1, 5)", f"{how} (1, 1)") for how in models}
        return [
            row(
                "verification of 5 tokens ÷ of 1, packed weights",
                1.8,
                verify["packed"],
                at_most=True,
                detail=f"plain: {statistics.median(verify['plain']):.2f}",
            ),
            *(
                row(
                    f"plain ÷ packed weights, a pass of {batch} × {length}",
                    1.0,
                    ratios(found, f"plain {(batch, length)}", f"packed {(batch, length)}"),
                )
                for batch, length in shapes
            ),
        ]

    once(benchmark, measure, take)


@pytest.mark.skipif(not os.environ.get(REAL), reason=f"{REAL}=VERIFIER,DRAFTER names two models")
def test_a_real_pair_beside_transformers(benchmark: BenchmarkFixture, take: Take) -> None:
    pair = real(*os.environ[REAL].split(","))
    alone, both = pair.decoder(None), pair.decoder(pair.drafter)

    def measure() -> list[Row]:
        found = in_turn(
            {
                "ours": partial(seconds, lambda: pair.decode(both)),
                "assisted": partial(seconds, pair.assisted),
                "ours alone": partial(seconds, lambda: pair.decode(alone)),
                "generate": partial(seconds, pair.generate),
            },
            rounds=5,
        )
        return [
            row("speculative tok/s ÷ generate(assistant_model), real pair", 3, ratios(found, "assisted", "ours")),
            row("autoregressive tok/s ÷ generate, real pair", 1.3, ratios(found, "generate", "ours alone")),
        ]

    once(benchmark, measure, take)


# --------------------------------------------------------------------------- within a block


def forward(batch: Batch, rows: Rows, slot: torch.Tensor, tokens: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """A model's pass and nothing else."""
    return rows.forward(tokens, start, slot, keep=tokens.shape[1])


def test_time_outside_the_forwards(benchmark: BenchmarkFixture, take: Take, note: Callable[[str], None]) -> None:
    pair = embedded(BACKEND)
    decoder = pair.decoder(pair.drafter)
    decoder.reserve(pair.requests)
    state = decoder.state
    assert state is not None
    steps = CompiledSteps(Clock(torch.device("cpu"), exact=False))
    small = state.drafter.rows  # type: ignore[attr-defined]
    one, two, more = (torch.full((1, n), 9) for n in (1, 2, GAMMA + 1))

    def passes(request: Request, blocks: int) -> float:
        """Nanoseconds of the same passes and nothing else: 2 tokens, γ − 1 times 1, then γ + 1 of the verifier."""
        tokens = len(pair.texts[request.key])
        places = [torch.tensor([len(request.ids) + block * tokens // blocks]) for block in range(blocks)]

        def run() -> None:
            for at in places:
                state.batch.view = min(state.slots, step_runner(BACKEND).slots(int(at) + GAMMA + 1))
                steps.run(forward, state.batch, small, two, at - 1)
                for number in range(GAMMA - 1):
                    steps.run(forward, state.batch, small, one, at + number)
                steps.run(forward, state.batch, state.verifier, more, at)

        return seconds(run) * 1e9

    def once_through() -> tuple[list[Decoded], float]:
        """Every prompt decoded, its passes alone beside it, one after the other, so that both see the same machine."""
        made, alone = [], 0.0
        for request in pair.requests:
            (done,) = decoder.decode([request])
            made.append(done)
            alone += passes(request, len(done.blocks))
        return made, alone

    def measure() -> list[Row]:
        with torch.no_grad():
            once_through()
            rounds = [once_through() for _ in range(ROUNDS)]
        spent = [sum(row.decode_ns for row in made) for made, _ in rounds]
        outside = [1 - alone / whole for (_, alone), whole in zip(rounds, spent, strict=True)]
        done = [row for made, _ in rounds for row in made]
        blocks, whole = sum(len(row.blocks) for row in done), sum(spent)
        shares = {name: sum(getattr(row.step_times, f"{name}_ns") for row in done) for name in PIECES}
        note("| piece | ms per block | share |\n|---|---|---|")
        for name, share in shares.items():
            note(f"| {PIECES[name]} | {share / blocks / 1e6:.3f} | {share / whole:.1%} |")
        note(f"| of these, the models' passes run alone | | {1 - statistics.median(outside):.1%} |")
        host = [
            sum(row.step_times.rest_ns for row in made) / each for (made, _), each in zip(rounds, spent, strict=True)
        ]
        return [
            row(
                "time outside the model forwards per block, embedded pair",
                0.03,
                outside,
                at_most=True,
                detail="against the same passes run alone beside it",
            ),
            row(
                "the host's share of a block, embedded pair", 0.03, host, at_most=True, detail="by the loop's own clock"
            ),
        ]

    once(benchmark, measure, take)


PIECES = {
    "draft_first": "first draft (2 tokens), its choice included",
    "draft_next": "γ − 1 further drafts, likewise",
    "verify": "verification (γ + 1 tokens), acceptance and commit included",
    "rest": "the host: tokens to Python, stop conditions, bookkeeping",
}


# --------------------------------------------------------------------------- whole runs


def asked(languages: tuple[str, ...], limit: int, **more: object) -> RunOptions:
    return RunOptions(
        ModelSpec("verifier", "embedded:verifier"),
        ModelSpec("drafter", "embedded:drafter"),
        ("embedded_math",),
        languages=languages,
        limit=limit,
        **more,
    )


def test_measured_over_predicted(benchmark: BenchmarkFixture, take: Take) -> None:
    """Per language, in a race of seven rounds."""
    prepared = prepare(asked(("en", "te", "th"), 8, backend=BACKEND, race_rounds=7, race_prompts=8, race_width=0.0))

    def measure() -> list[Row]:
        with tempfile.TemporaryDirectory() as folder:
            report = run(prepared, Path(folder) / "run")
        rows = []
        for task in report.suites[0].tasks:
            found, predicted = task.measures["speedup"], task.measures["speedup_predicted"]
            assert found.value
            assert predicted.value
            value = found.value / predicted.value
            low, high = ((edge or found.value) / predicted.value for edge in (found.low, found.high))
            detail = (
                f"{found.value:.2f} measured, {predicted.value:.2f} predicted; {race_sentence(report.race_verdict)}"
            )
            what = f"measured ÷ predicted speed-up, embedded pair, {task.language}"
            rows.append(Row(what, "0.9 to 1.1", value, low, high, met(low, high, 0.9, 1.1), detail))
        return rows

    once(benchmark, measure, take)


def test_batch_of_eight(benchmark: BenchmarkFixture, take: Take) -> None:
    """Speculative throughput of 32 prompts, eight at a time over one at a time."""
    pair = embedded(BACKEND, ("en", "ja", "te", "th"), 8)
    decoders = {size: pair.decoder(pair.drafter, batch_size=size) for size in (1, 8)}

    def decode(size: int) -> list[Decoded]:
        return list(decoders[size].decode(pair.requests))

    def measure() -> list[Row]:
        found = in_turn({str(size): partial(seconds, partial(decode, size)) for size in decoders})
        tokens = sum(map(len, pair.texts.values()))
        speed = {size: tokens / statistics.median(each) for size, each in found.items()}
        detail = (
            f"{speed['8']:.0f} against {speed['1']:.0f} tok/s; no realignment copies (tests/models/test_kv_cache.py)"
        )
        return [
            row("speculative throughput, batch 8 ÷ batch 1, embedded pair", 3, ratios(found, "1", "8"), detail=detail)
        ]

    once(benchmark, measure, take)


def test_one_more_drafter(benchmark: BenchmarkFixture, take: Take) -> None:
    """On stored references of 11 languages × 20 prompts × 96 tokens, against decoding with it, prompt by prompt."""
    suite = load_suite("embedded_math", limit=20, max_new_tokens=96)
    codec = Codec("embedded:verifier")
    encoded = [codec.encode(prompt) for prompt in suite.prompts]
    pair = Pair("embedded", embedded(BACKEND).verifier, embedded(BACKEND).small, tuple(map(as_request, encoded)))
    made = pair.decoder(None, batch_size=20).decode(pair.requests)
    done = {row.key: row for row in made}
    references = [
        Reference(key=e.key, prompt_sha=e.sha, ids=done[e.key].ids, finish=done[e.key].finish, chunk="s")
        for e in encoded
    ]
    live = pair.decoder(pair.drafter)

    def stored() -> None:
        given = {"sampling": GREEDY, "seed": 0, "batch_size": 20, "chunk": "s"}
        assert len(list(replay(pair.verifier, pair.drafter, encoded, references, **given))) == len(encoded)

    def measure() -> list[Row]:
        # Both are of the same 220 prompts; a live pass takes minutes: it is timed on a twentieth, another each time.
        parts = iter([pair.requests[first::20] for first in range(20)] * 2)
        found = in_turn(
            {
                "live": lambda: 20 * seconds(lambda: list(live.decode(next(parts)))),
                "stored": partial(seconds, stored),
            },
            rounds=7,
        )
        detail = f"{statistics.median(found['stored']):.1f} s against {statistics.median(found['live']):.0f} s"
        return [
            row(
                "one more drafter: decoding live ÷ on stored references",
                50,
                ratios(found, "live", "stored"),
                detail=detail,
            )
        ]

    once(benchmark, measure, take)


def test_harness_overhead(benchmark: BenchmarkFixture, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run does beside decoding and passes over texts with their scores, over those: files, grades, report."""
    inside = [0.0]
    prepared = prepare(asked(("en", "te", "th"), 16, backend=BACKEND, race_rounds=2, race_prompts=4))

    def timed(work: Callable[..., Iterable[object]]) -> Callable[..., Iterator[object]]:
        def called(*args: object, **options: object) -> Iterator[object]:
            made, nothing = iter(work(*args, **options)), object()
            while True:
                started = time.perf_counter()
                each = next(made, nothing)
                inside[0] += time.perf_counter() - started
                if each is nothing:
                    return
                yield each

        return called

    for owner, name in ((Decoder, "decode"), (stages, "replay"), (stages, "target_nats")):
        monkeypatch.setattr(owner, name, timed(getattr(owner, name)))

    def whole() -> float:
        inside[0] = 0.0
        with tempfile.TemporaryDirectory() as folder:
            return seconds(lambda: run(prepared, Path(folder) / "run"))

    def measure() -> list[Row]:
        whole()
        overheads = [whole() / inside[0] - 1 for _ in range(7)]
        return [row("harness overhead of a run over its model time", 0.05, overheads, at_most=True)]

    once(benchmark, measure, take)


MEMORY = """
import re, sys, torch
from pathlib import Path
sys.path.insert(0, {folder!r})
torch.set_num_threads(1)
import pace

def resident(which):
    return 1024 * int(re.search(which + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def numbers(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)

pair = pace.middling("eager", max_new_tokens=8)
both = pair.decoder(pair.drafter, batch_size=8)
list(pair.decoder(pair.drafter).decode(pair.requests, pair.texts))  # what libraries keep for themselves is there
weights = numbers([*pair.verifier.hf.parameters(), *pair.small.hf.parameters()])
requests = pace._random_requests(8, 1900, 100, 4096)
texts = {{request.key: (1,) * request.max_new_tokens for request in requests}}
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
list(both.decode(requests, texts))
added = resident("VmHWM") - before
rows = (both.state.verifier, both.state.drafter.payer.rows)
print(weights, numbers([t for r in rows for layer in r.cache.layers for t in (layer.keys, layer.values)]), added)
"""


def test_peak_memory(benchmark: BenchmarkFixture, take: Take) -> None:
    """A process of its own: what 8 × 2,000 tokens add to its peak, with the weights, over weights + caches."""

    def measure() -> list[Row]:
        script = MEMORY.format(folder=str(Path(__file__).parent))
        shares = []
        for _ in range(3):
            made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
            weights, caches, added = map(int, made.split()[-3:])
            shares.append((weights + added) / (weights + caches))
        detail = f"{weights / 2**20:.0f} MiB weights, {caches / 2**20:.0f} MiB caches, batch 8; 3 processes"
        return [row("peak memory ÷ (weights + caches), 12 × 512", 1.25, shares, at_most=True, detail=detail)]

    once(benchmark, measure, take)


def test_rounds_are_enough() -> None:
    """The second smallest and second largest of nine hold the median with more than 95 %."""
    assert 1 - 2 * (1 + ROUNDS) / 2**ROUNDS > 0.95
