"""What backends promise beside the right tokens: buffers that serve again, recordings that repeat nothing of Python."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import pytest
import torch
from tiny_models import counted, family, generate, noised, prompts, requests, stock

from fairspec_bench.engine.backends import compiled
from fairspec_bench.engine.backends.base import BlockFn
from fairspec_bench.engine.backends.compiled import CompiledSteps, compiler_works
from fairspec_bench.engine.backends.cuda_graph import RecordedSteps, Recorder, Segment
from fairspec_bench.engine.backends.eager import EagerSteps
from fairspec_bench.engine.backends.registry import BACKENDS, step_runner
from fairspec_bench.engine.backends.rehearsal import Rehearsal
from fairspec_bench.engine.batch import Batch
from fairspec_bench.engine.clock import Clock
from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.drafters.lookup import LookupDrafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.speculative import Decoder, Request, decode
from fairspec_bench.models.model import Model, wrap
from fairspec_bench.schemas.backends import BACKENDS as KINDS
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import Backend, SamplingParams
from fairspec_bench.scoring import backend as chosen

SHORT, LONG = prompts(9, 3, 20), prompts(5, 60, 90, seed=5)


@cache
def verifier(backend: Backend) -> Model:
    return replace(wrap(family("llama"), "llama"), backend=backend)


@cache
def wanted(max_new_tokens: int) -> dict[str, tuple[tuple[int, ...], ...]]:
    hf = stock(verifier("eager"))
    return {
        "short": tuple(generate(hf, ids, max_new_tokens) for ids in SHORT),
        "long": tuple(generate(hf, x, max_new_tokens) for x in LONG),
    }


def drafter(kind: str) -> Drafter:
    model = verifier("eager")
    if kind == "ngram":
        return counted(model, list(zip(SHORT, wanted(12)["short"], strict=True)))
    return LookupDrafter() if kind == "lookup" else ModelDrafter(noised(model, 0.02), model)


def decoder(
    backend: Backend, kind: str = "model", batch_size: int = 3, sampling: SamplingParams | None = None
) -> Decoder:
    sampling = sampling or SamplingParams()
    return Decoder(verifier(backend), drafter(kind), sampling=sampling, gamma=3, batch_size=batch_size, seed=0)


def ids(decoder: Decoder, asked: list[list[int]], max_new_tokens: int = 12) -> tuple[tuple[int, ...], ...]:
    done = {row.key: row.ids for row in decoder.decode(requests(asked, max_new_tokens))}
    return tuple(done[f"p{i}"] for i in range(len(asked)))


# --------------------------------------------------------------------------- buffers


@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("kind", ["model", "ngram", "lookup"])
def test_a_decoder_serves_again(backend: Backend, kind: str) -> None:
    """Call after call: on the same buffers where they fit, after a call that was given up half-way, then on longer."""
    pair, want = decoder(backend, kind), wanted(12)
    assert ids(pair, SHORT) == want["short"]
    state = pair.state
    next(pair.decode(requests(SHORT, 12)))
    assert ids(pair, SHORT[::-1]) == want["short"][::-1]
    assert pair.state is state
    assert ids(pair, LONG) == want["long"]
    assert pair.state is not state or backend == "graph"
    assert ids(pair, SHORT[:2]) == want["short"][:2]


def test_buffers_without_reference_ids_do_not_serve_with_them() -> None:
    pair = decoder("eager")
    list(pair.decode(requests(SHORT, 12)))
    plain = pair.state
    text = {f"p{i}": row for i, row in enumerate(wanted(12)["short"])}
    done = list(pair.decode(requests(SHORT, 12), text))
    assert {row.key: row.ids for row in done} == text
    assert pair.state is not plain


# --------------------------------------------------------------------------- recordings


def test_a_recorded_block_is_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    record = Recorder.record
    monkeypatch.setattr(Recorder, "record", lambda self, body: made.append(self.clock.exact) or record(self, body))
    pair = decoder("graph", batch_size=2)
    for _ in range(2):
        ids(pair, SHORT)
        list(pair.decode(requests(SHORT, 12), exact_times=True))
    assert made == [False, True]


class _Graph:
    """A CUDA graph that is a rehearsal of one; unlike the device it does the work while it captures."""

    def capture_begin(self, pool: object) -> None:
        self.rehearsal = Rehearsal()
        self.rehearsal.begin()

    def capture_end(self) -> None:
        self.rehearsal.end()

    def replay(self) -> None:
        self.rehearsal.replay()


class _Stream:
    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


def _as_on_cuda(self: RecordedSteps, body: BlockFn, undo: Callable[[], object]) -> tuple[list[Segment], torch.Tensor]:
    """The recording for the device, on what stands in for it."""
    recorded = self._record_cuda(body, undo)
    undo()
    return recorded


@pytest.mark.parametrize("kind", ["model", "ngram"])
def test_the_recorder_for_the_device_down_to_the_capture(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-ups undone, a graph for a block or for each of its steps, replayed in their order."""
    cuda = {"CUDAGraph": _Graph, "Stream": _Stream, "current_stream": _Stream, "graph_pool_handle": object}
    for name, stand_in in {**cuda, "stream": nullcontext}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(RecordedSteps, "_rehearse", _as_on_cuda)
    pair = decoder("graph", kind, batch_size=1)
    assert ids(pair, SHORT) == wanted(12)["short"]
    for row in pair.decode(requests(SHORT, 12), exact_times=True):
        assert row.ids == wanted(12)["short"][int(row.key[1:])]
        assert (row.step_times.draft_next, row.step_times.verify) == (2 * len(row.blocks), len(row.blocks))


def test_only_what_the_device_does_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions moved on by Python instead of in place: right when run as it is, stuck when recorded."""

    def rebound(self: Batch, tokens: torch.Tensor, count: torch.Tensor) -> None:
        self.ids.scatter_(1, self.after(tokens.shape[1]), tokens)
        self.pos = self.pos + count * self.live

    want = wanted(12)["short"]
    row = Batch.row
    monkeypatch.setattr(Batch, "append", rebound)
    # A row's own batch must still move the real positions when a prompt ends.
    monkeypatch.setattr(Batch, "row", lambda self, index: _Writing(row(self, index), self, index))
    assert ids(decoder("eager"), SHORT) == want
    assert ids(decoder("graph"), SHORT) != want


class _Writing:
    """A row of a batch whose `append` writes into the batch itself."""

    def __init__(self, row: Batch, batch: Batch, index: int):
        self.row, self.batch, self.index = row, batch, index

    def __getattr__(self, name: str) -> object:
        return getattr(self.row, name)

    def append(self, tokens: torch.Tensor, count: torch.Tensor) -> None:
        self.row.ids.scatter_(1, self.row.after(tokens.shape[1]), tokens)
        self.batch.pos[self.index] += int(count)


@pytest.mark.parametrize(
    "impossible",
    [
        lambda x: x.sum().item(),
        lambda x: int(x[0]),
        lambda x: x.nonzero(),
        lambda x: x[x > 1],
        lambda x: x + torch.tensor([1.0]),
        lambda x: x.repeat_interleave(x.long()),
    ],
)
def test_what_no_device_can_record_is_refused(impossible: object) -> None:
    x = torch.arange(3.0)
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        Recorder(Clock(torch.device("cpu")), Rehearsal).record(lambda steps: impossible(x))
    x.nonzero()  # after which operations are recorded no longer


def test_a_rehearsal_works_on_the_memory_it_was_recorded_on() -> None:
    x, y = torch.arange(4.0), torch.zeros(4)

    def body(steps: EagerSteps) -> torch.Tensor:
        y[1:].add_(x[1:] * 2)
        return (y.view(2, 2).T + x[0]).flatten()

    steps = EagerSteps(Clock(torch.device("cpu")))
    segments, result = Recorder(steps.clock, Rehearsal).record(body)
    x += 1
    for segment in segments:
        segment.replay(steps)
    assert y.tolist() == [0, 2 + 4, 4 + 6, 6 + 8]
    assert result.tolist() == [1, 4 + 6 + 1, 2 + 4 + 1, 6 + 8 + 1]


@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("kind", ["model", "ngram", "lookup"])
def test_times_of_steps_add_up(backend: Backend, kind: str) -> None:
    """γ = 3: one first draft and two further ones for each verification, and what is left is the host's."""
    for row in decoder(backend, kind, batch_size=1).decode(requests(SHORT, 12), exact_times=True):
        p = row.step_times
        assert (p.draft_first, p.draft_next, p.verify) == (len(row.blocks), 2 * len(row.blocks), len(row.blocks))
        assert p.draft_first_ns + p.draft_next_ns + p.verify_ns + p.rest_ns == row.decode_ns


def test_a_whole_recording_tells_only_the_whole() -> None:
    for row in decoder("graph", batch_size=1).decode(requests(SHORT, 12)):
        assert (row.step_times.verify, row.step_times.rest_ns) == (0, row.decode_ns)


# --------------------------------------------------------------------------- compiled steps


def test_compiled_steps_outlive_the_wrapper_but_not_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled once for a model in memory, however often it is wrapped; another model, or a copy, has its own."""
    made = []
    monkeypatch.setattr(compiled, "_compile", lambda step: made.append(step.__name__) or step)
    model = wrap(family("llama"), "one", backend="compile")

    def ids(verifier: Model) -> None:
        decoder = Decoder(verifier, None, sampling=SamplingParams(), gamma=0, batch_size=3, seed=0)
        list(decoder.decode(requests(SHORT, 12)))

    ids(model)
    first = list(made)
    assert first == ["verifier_step"]
    ids(replace(model, name="again"))
    ids(wrap(model.hf, "wrapped again", backend="compile"))
    assert made == first
    ids(replace(noised(model, 0.1), backend="compile"))
    assert made == [*first, *first]
    weights = weakref.ref(model.hf)
    kept = len(compiled._COMPILED)
    del model
    gc.collect()
    assert weights() is None
    assert len(compiled._COMPILED) < kept


def test_weights_that_were_compiled_for_are_let_go() -> None:
    model = wrap(family("llama"), "one", backend="compile")
    weights = weakref.ref(model.hf)
    list(Decoder(model, None, sampling=SamplingParams(), gamma=0, batch_size=3, seed=0).decode(requests(SHORT[:3], 3)))
    del model
    gc.collect()
    assert weights() is None


@pytest.mark.parametrize("rounded", [CompiledSteps.slots, RecordedSteps.slots])
def test_slots_are_rounded_up_to_few(rounded: object) -> None:
    found = [rounded(slots) for slots in range(1, 20_000)]
    assert all(
        slots <= made <= max(256, slots * 5 / 4 + 1) or made <= slots + 255 for slots, made in enumerate(found, 1)
    )
    assert found == sorted(found)
    assert [rounded(made) for made in found] == found
    assert len(set(map(RecordedSteps.slots, range(1, 33_000)))) < 40


def test_every_backend_is_named_once() -> None:
    assert set(BACKENDS) == {name for name, kind in KINDS.items() if kind.steps}
    for name in BACKENDS:
        assert KINDS[name].records is issubclass(step_runner(name), RecordedSteps)


# --------------------------------------------------------------------------- the one that pays


def choice(asked: Backend | None, steps: int, model: Model | None = None) -> tuple[Backend, str | None]:
    model = model or verifier("eager")
    ready, note = chosen.choose(asked, model, drafter("model"), SamplingParams(), 3, steps)
    return ready.backend, note


def test_compiling_is_chosen_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = []
    monkeypatch.setattr(
        chosen, "_compiled", lambda model, *rest: (trials.append(rest), (replace(model, backend="compile"), None))[1]
    )
    few = chosen.COMPILE_PAYS_FROM // 2 - 1
    assert choice(None, few) == ("eager", None)
    assert not trials
    assert choice(None, few + 1) == ("compile", None)
    assert choice("compile", 1) == ("compile", None)
    assert choice("eager", 10**9) == ("eager", None)
    assert choice("graph", 1) == ("graph", None)


def test_where_nothing_can_be_compiled_a_word_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "compiler_works", lambda: "no C++ compiler found")
    backend, word = choice(None, 10**9)
    assert (backend, "no C++ compiler found" in str(word)) == ("eager", True)
    with pytest.raises(FairspecError, match=r"no C.. compiler found.*--backend eager"):
        choice("compile", 1)


@pytest.mark.slow
def test_a_model_that_cannot_be_compiled_is_found_out_before_the_run() -> None:
    hf = family("llama")
    layer = hf.model.layers[0]
    forward = layer.forward

    def asks_the_host(hidden: torch.Tensor, **kwargs: object) -> torch.Tensor:
        return forward(hidden + 1 if hidden.sum() > 1e9 else hidden, **kwargs)

    layer.forward = asks_the_host
    backend, word = choice(None, 10**9, wrap(hf, "odd"))
    assert (backend, "not compiled" in str(word)) == ("eager", True)


def test_what_a_trial_compiled_is_used_by_the_run() -> None:
    """The race of the chosen verifier compiles no step of the baseline or the drafter again."""
    model, pair_ = verifier("eager"), drafter("model")
    ready, _ = chosen.choose("compile", model, pair_, SamplingParams(), 3, 1)
    steps = dict(compiled._COMPILED[ready.hf])
    assert steps
    asked, text = [Request("one", (5, 6, 7), 4, 0)], {"one": (5, 6, 7, 8)}
    for one in (None, pair_):
        list(decode(ready, one, asked, sampling=SamplingParams(), gamma=3, batch_size=1, seed=0, reference=text))
    assert compiled._COMPILED[ready.hf] == steps


def test_the_compiler_is_tried_for_real() -> None:
    assert compiler_works() is None


def test_steps_at_most() -> None:
    assert chosen.most_steps([10, 10, 20], 4, [10, 20], 5) == 10 + 3 * 5 * 30


def test_a_spread_verifier_is_not_recorded() -> None:
    hf = family("llama")
    hf.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1}
    spread = wrap(hf, "spread")
    backend, word = choice(None, 10**9, spread)
    assert (backend, "no rank" in str(word)) == ("eager", True)
    with pytest.raises(FairspecError, match="several devices"):
        choice("graph", 1, spread)


def test_a_clock_without_exactness_never_waits_for_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    clock = Clock(torch.device("cuda"), exact=False)
    waits.clear()
    with clock.block():
        clock.lap("verify")
    assert not waits
    assert clock.totals["verify"] == 0
    assert clock.totals["rest_ns"] == clock.totals["decode_ns"] > 0
