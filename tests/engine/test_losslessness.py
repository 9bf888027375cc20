"""Every row's greedy ids are the verifier's own batch-1 `generate` ids, whatever the drafter, batch or ending."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from tiny_models import WINDOW, counted, family, generate, noised, prompts, requests, stock

from fairspec_bench.engine import speculative
from fairspec_bench.engine.acceptance import AcceptResult
from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.drafters.lookup import LookupDrafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.oracle import OracleDrafter
from fairspec_bench.engine.ending import ending
from fairspec_bench.engine.speculative import Decoded, decode
from fairspec_bench.models.kv_cache import RowCache
from fairspec_bench.models.model import Model, Rows, wrap
from fairspec_bench.schemas.config import Backend, SamplingParams

CAP = 10
GREEDY = SamplingParams()
PROMPTS = prompts(64, 3, 2 * WINDOW + 6)
FAMILIES = ("llama", "qwen2", "gemma3", "gpt2")
KINDS = ("model", "lookup", "oracle", "ngram")
ALL, FEW = 64, 16
FULL = [("model", 1), ("model", 3), ("model", 8), ("lookup", 3), ("oracle", 8), ("ngram", 8)]
"""What every family runs on all prompts: the smallest runs that the whole of Llama's leave open."""


def verifier(name: str, backend: Backend = "eager") -> Model:
    return _verifier(name, backend)


@cache
def _verifier(name: str, backend: Backend) -> Model:
    model = wrap(family(name), name)
    return model if backend == "eager" else replace(model, backend=backend)


@cache
def wanted(name: str, count: int = 64) -> tuple[tuple[int, ...], ...]:
    hf = stock(verifier(name))
    return tuple(generate(hf, ids, CAP) for ids in PROMPTS[:count])


@cache
def drafter(kind: str, name: str) -> Drafter | None:
    if kind == "model":
        return ModelDrafter(noised(verifier(name), 0.02), verifier(name))
    if kind == "lookup":
        return LookupDrafter()
    if kind == "ngram":
        return counted(verifier(name), list(zip(PROMPTS[::2], wanted(name)[::2], strict=True)))
    if kind == "oracle":
        reference = {f"p{i}": ids for i, ids in enumerate(wanted(name))}
        return OracleDrafter(0.8, verifier(name), reference=reference)
    return None


def run(
    name: str, kind: str, batch: int, count: int = 64, backend: Backend = "eager", **changes: object
) -> list[Decoded]:
    options = {"sampling": GREEDY, "gamma": 3, "batch_size": batch, "seed": 0, **changes}
    asked = options.pop("requests", None) or requests(PROMPTS[:count], CAP)
    decoded = {done.key: done for done in decode(verifier(name, backend), drafter(kind, name), asked, **options)}
    return [decoded[f"p{i}"] for i in range(count)]


@pytest.mark.parametrize("backend", ["eager", pytest.param("graph", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_row_is_the_verifiers_own(name: str, backend: Backend) -> None:
    want = wanted(name)
    assert any(len(ids) > WINDOW for ids in PROMPTS)
    assert len(set(want)) > 55
    runs = [(kind, batch) for kind in KINDS for batch in (1, 3, 8)] + [("none", 8)]
    for kind, batch in runs:
        count = ALL if name == "llama" or (kind, batch) in FULL else FEW
        done = run(name, kind, batch, count, backend)
        assert [row.ids for row in done] == list(want[:count]), (kind, batch)
        assert all(sum(block.emitted for block in row.blocks) == len(row.ids) - 1 for row in done)
        blocks = [block for row in done for block in row.blocks]
        if kind in ("model", "oracle") and count == ALL:
            assert sum(block.accepted for block in blocks) > 1.5 * len(blocks)
            assert any(row.finish == "eos" and row.blocks[-1].raw_accepted >= row.blocks[-1].emitted for row in done)


@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("name", ["gemma2", "mistral", "qwen3", "phi3"])
def test_further_families(name: str, backend: Backend) -> None:
    """Among them soft-capped scores, which only eager attention knows, and windows in every layer."""
    for batch in (1, 5):
        assert [row.ids for row in run(name, "model", batch, 16, backend)] == list(wanted(name, 16))
    assert (verifier(name).hf.config._attn_implementation == "eager") is (name == "gemma2")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("llama", "model"), ("gemma3", "model")])
def test_compiled_steps(name: str, kind: str) -> None:
    """Kinds of layers, drafted by a model and not; rows that come and go; other lengths than were compiled for."""
    assert [row.ids for row in run(name, kind, 3, backend="compile")] == list(wanted(name))
    assert [row.ids for row in run(name, kind, 3, 8, "compile")] == list(wanted(name, 8))


@pytest.mark.parametrize("backend", ["eager", "graph"])
def test_from_one_token_to_the_last_position_and_any_gamma(backend: Backend) -> None:
    """Prompts of 1…126 of 128 positions, outputs of 1…127 tokens side by side, γ larger than what is left of most."""
    model = wrap(family("llama", eos_token_id=None), "endless")
    model = model if backend == "eager" else replace(model, backend=backend)
    lengths = (1, 2, 40, 90, 120, 126, 3, 1)
    asked = [
        speculative.Request(f"p{i}", tuple(prompts(1, length, length, seed=i)[0]), 128 - length if i < 6 else 1 + i, i)
        for i, length in enumerate(lengths)
    ]
    hf = stock(model)
    want = {request.key: generate(hf, list(request.ids), request.max_new_tokens) for request in asked}
    assert {len(ids) for ids in want.values()} >= {127, 126, 88, 38, 8, 2}
    shaky = ModelDrafter(noised(model, 0.02), model)
    for kind, gamma, batch in [(shaky, 1, 8), (shaky, 16, 3), (LookupDrafter(), 64, 8), (None, 0, 8)]:
        done = decode(model, kind, asked, sampling=GREEDY, gamma=gamma, batch_size=batch, seed=0)
        assert {row.key: row.ids for row in done} == want, (gamma, batch)


def test_stop_inside_an_accepted_block() -> None:
    def stop(ids: Sequence[int]) -> int | None:
        ends = [i + 1 for i in range(1, len(ids)) if (ids[i - 1] + ids[i]) % 9 == 0]
        return ends[0] if ends else None

    def kept(ids: tuple[int, ...]) -> tuple[int, ...]:
        return ids[: stop(ids) or len(ids)]

    want = [kept(ids) for ids in wanted("llama")]
    for batch in (1, 8):
        done = run("llama", "model", batch, requests=requests(PROMPTS, CAP, stop))
        assert [row.ids for row in done] == want
        stopped = [row for row in done if row.finish == "stop"]
        assert len(stopped) > 20
        assert sum(row.blocks[-1].raw_accepted >= row.blocks[-1].emitted for row in stopped if row.blocks) > 10
        for row in done:
            assert sum(block.emitted for block in row.blocks) == len(row.ids) - 1


def test_finish_names_what_came_first() -> None:
    endings = {
        (5, 3, None): (3, "length"),
        (2, 3, None): (2, None),
        (5, 9, 2): (2, "stop"),
        (5, 9, 5): (4, "eos"),
        (5, 4, 5): (4, "eos"),
        (5, 3, 3): (3, "stop"),
    }
    for (count, most, keep), want in endings.items():
        ids = [1, 1, 1, 9, 9][:count]
        stop = None if keep is None else (lambda seen, keep=keep: keep if keep <= len(seen) else None)
        assert ending(ids, 0, most, stop, frozenset({9})) == want


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=1.0),
        pytest.param(SamplingParams(temperature=0.7, top_k=20, top_p=0.9), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", ["model", "lookup", "ngram"])
def test_neither_batch_nor_order_nor_backend_changes_a_result(sampling: SamplingParams, kind: str) -> None:
    asked = requests(PROMPTS[:16], CAP)
    shuffled = random.Random(0).sample(asked, len(asked))
    alone = run("gpt2", kind, 1, 16, sampling=sampling, requests=asked)
    compiled = [("compile", 8, asked)] if (kind, sampling.top_k) == ("model", 20) else []
    for backend, batch, order in [
        ("eager", 3, asked),
        ("eager", 8, shuffled),
        ("graph", 3, asked),
        ("graph", 16, asked[::-1]),
        *compiled,
    ]:
        other = run("gpt2", kind, batch, 16, backend, sampling=sampling, requests=order)
        assert [(row.ids, row.finish, row.blocks) for row in other] == [
            (row.ids, row.finish, row.blocks) for row in alone
        ]


def test_seed_and_stream_change_a_sample() -> None:
    sampling = SamplingParams(temperature=1.0)
    one, other = (run("gpt2", "none", 8, 8, sampling=sampling, seed=seed) for seed in (0, 1))
    assert all(a.ids != b.ids for a, b in zip(one, other, strict=True))
    same = [speculative.Request(f"p{i}", tuple(PROMPTS[0]), CAP, stream) for i, stream in enumerate((5, 5, 6))]
    a, b, c = run("gpt2", "none", 3, 3, sampling=sampling, requests=same)
    assert a.ids == b.ids != c.ids


def _window_ignored(monkeypatch: pytest.MonkeyPatch) -> str:
    init = RowCache.__init__

    def planted(self: RowCache, *args: object) -> None:
        init(self, *args)
        self.window = self.max_len

    monkeypatch.setattr(RowCache, "__init__", planted)
    return "gemma3"


def _rows_share_a_position(monkeypatch: pytest.MonkeyPatch) -> str:
    forward = Rows.forward
    monkeypatch.setattr(
        Rows,
        "forward",
        lambda self, tokens, start, *rest, **more: forward(self, tokens, start[:1].expand_as(start), *rest, **more),
    )
    return "llama"


def _future_visible(monkeypatch: pytest.MonkeyPatch) -> str:
    place = RowCache.place
    monkeypatch.setattr(RowCache, "place", lambda *args: place(*args) | (args[2] <= args[1][:, None, :, None] + 1))
    return "llama"


def _one_more_accepted(monkeypatch: pytest.MonkeyPatch) -> str:
    accept = speculative.accept_greedy

    def planted(draft: torch.Tensor, target: torch.Tensor) -> AcceptResult:
        accepted, token = accept(draft, target)
        return AcceptResult((accepted + 1).clamp_max(draft.shape[1]), token)

    monkeypatch.setattr(speculative, "accept_greedy", planted)
    return "llama"


@pytest.mark.parametrize("plant", [_window_ignored, _rows_share_a_position, _future_visible, _one_more_accepted])
def test_a_planted_bug_fails(plant: object, monkeypatch: pytest.MonkeyPatch) -> None:
    drafter("model", "llama"), drafter("model", "gemma3")
    name = plant(monkeypatch)
    done = run(name, "model", 4, 12)
    assert sum(row.ids != want for row, want in zip(done, wanted(name), strict=False)) >= 3
