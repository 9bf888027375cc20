"""A prefix that prompts share is prefilled once, and nothing that is computed depends on it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_models import WINDOW, encode, family, generate, noised, prompts, stock

from fairspec_bench.engine.batch import LEAST_SHARED, Request, as_request, with_prefixes
from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.oracle import OracleDrafter
from fairspec_bench.engine.speculative import Decoder, decode
from fairspec_bench.metrics.acceptance import blocks_from_matches
from fairspec_bench.models import kv_cache
from fairspec_bench.models.codec import Codec
from fairspec_bench.models.kv_cache import RowCache
from fairspec_bench.models.model import Model, Rows, wrap
from fairspec_bench.schemas.config import Backend, SamplingParams
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.scoring.reference import make_references
from fairspec_bench.scoring.replay import replay
from fairspec_bench.suites.suite import load_suite

CAP = 10
GREEDY = SamplingParams()
FAMILIES = ("llama", "gemma3", "gpt2", "mistral", "gemma2")
"""Rotary and learned positions; windows in some layers and in all; eager attention."""
PREFIX = prompts(1, 40, 40, seed=8)[0]
ASKED = with_prefixes(encode([PREFIX + tail for tail in prompts(12, 1, 20, seed=9)], CAP))


@cache
def wanted(name: str) -> dict[str, tuple[int, ...]]:
    hf = stock(wrap(family(name), name))
    return {prompt.key: generate(hf, list(prompt.ids), CAP) for prompt in ASKED}


def outputs(model: Model, drafter: Drafter | None, asked: list[Request], batch: int) -> dict[str, tuple[int, ...]]:
    done = decode(model, drafter, asked, sampling=GREEDY, gamma=3, batch_size=batch, seed=0)
    return {each.key: each.ids for each in done}


def agrees(name: str, backend: Backend = "eager") -> bool:
    """Whether outputs with a prefix shared are those of `generate`, alone and drafted for, in batches of any size."""
    model = replace(wrap(family(name), name), backend=backend)
    drafter, asked = ModelDrafter(noised(model, 0.02), model), [as_request(prompt) for prompt in ASKED]
    return all(outputs(model, each, asked, batch) == wanted(name) for each in (None, drafter) for batch in (1, 5))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each pass of any model reads, rows together."""
    tokens, place = list[int](), RowCache.place
    monkeypatch.setattr(RowCache, "place", lambda *args: tokens.append(args[1].numel()) or place(*args))
    return tokens


# --------------------------------------------------------------------------- what is shared


def test_what_is_shared_is_what_all_prompts_of_a_group_begin_with() -> None:
    assert len(PREFIX) > LEAST_SHARED > WINDOW
    assert {prompt.shared for prompt in ASKED} == {len(PREFIX)}
    other = encode([PREFIX[:-8] + tail for tail in prompts(3, 4, 9, seed=10)], CAP)
    both = [*ASKED, *(prompt.model_copy(update={"group": "m"}) for prompt in other)]
    assert [prompt.shared for prompt in with_prefixes(both)] == [40] * 12 + [32] * 3
    assert {prompt.shared for prompt in with_prefixes([*ASKED, *other])} == {32}


@pytest.mark.parametrize(
    "ids",
    [[PREFIX], [[*PREFIX[:31], 8, 9], [*PREFIX[:31], 9, 9]], prompts(5, 40, 50), [PREFIX[:32], PREFIX]],
    ids=["one prompt", "too short", "nothing in common", "one more token is left to each"],
)
def test_nothing_is_shared(ids: list[list[int]]) -> None:
    assert {prompt.shared for prompt in with_prefixes(encode(ids, CAP))} == {0}


def test_a_prompt_that_is_the_prefix_keeps_its_last_token() -> None:
    asked = with_prefixes(encode([PREFIX, *[PREFIX + tail for tail in prompts(3, 1, 5)]], CAP))
    assert {prompt.shared for prompt in asked} == {len(PREFIX) - 1}
    model = wrap(family("llama"), "v")
    whole = [replace(as_request(prompt), shared=len(PREFIX)) for prompt in asked]
    hf = stock(model)
    for requests in (whole, [as_request(prompt) for prompt in asked]):
        got = outputs(model, None, requests, 2)
        assert got == {prompt.key: generate(hf, list(prompt.ids), CAP) for prompt in asked}


# --------------------------------------------------------------------------- nothing changes


@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_are_the_verifiers_own(name: str, backend: Backend) -> None:
    assert len(set(wanted(name).values())) > 8
    assert agrees(name, backend)


@pytest.mark.slow
def test_outputs_of_compiled_steps() -> None:
    assert agrees("gemma3", "compile")


def one_slot_too_few(self: RowCache, row: int, source: RowCache) -> None:
    for mine, given in zip(self.layers, source.layers, strict=True):
        mine.keys[row, : source.max_len - 1] = given.keys[0, :-1]
        mine.values[row, : source.max_len - 1] = given.values[0, :-1]


def values_forgotten(self: RowCache, row: int, source: RowCache) -> None:
    for mine, given in zip(self.layers, source.layers, strict=True):
        mine.keys[row, : source.max_len] = given.keys[0]


def only_the_window(self: RowCache, row: int, source: RowCache) -> None:
    for mine, given in zip(self.layers, source.layers, strict=True):
        mine.keys[row, source.max_len - WINDOW : source.max_len] = given.keys[0, -WINDOW:]
        mine.values[row, source.max_len - WINDOW : source.max_len] = given.values[0, -WINDOW:]


@pytest.mark.parametrize("fault", [one_slot_too_few, values_forgotten, only_the_window])
def test_a_wrong_copy_would_show(fault: object, monkeypatch: pytest.MonkeyPatch) -> None:
    right = RowCache.copy

    def wrong(self: RowCache, row: int, source: RowCache) -> None:
        right(self, row, source)  # which makes the buffers
        self.clear(row)
        fault(self, row, source)

    monkeypatch.setattr(RowCache, "copy", wrong)
    assert not agrees("gemma3")


@pytest.mark.parametrize("off", [-len(PREFIX), 1])
def test_wrong_positions_would_show(off: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the prompt's rest as if nothing stood before it, or one further."""
    right = Rows.forward

    def moved(
        self: Rows, tokens: torch.Tensor, start: torch.Tensor, slot: torch.Tensor, keep: int, row: int | None = None
    ) -> torch.Tensor:
        rest = row is not None and int(start) == len(PREFIX)
        return right(self, tokens, start + off if rest else start, slot, keep, row)

    monkeypatch.setattr(Rows, "forward", moved)
    assert not agrees("llama")


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_prefill_has_the_same_bits_whoever_came_first(name: str) -> None:
    """In any row of any cache, with the prefix kept, made anew, or made for another prompt."""
    model = wrap(family(name), name)

    def logits(prompt: Encoded, rows: Rows, row: int) -> torch.Tensor:
        return rows.prefill(row, prompt.ids, prompt.shared)

    first = {prompt.key: logits(prompt, model.rows(1, 64), 0) for prompt in ASKED}
    model.prefixes.kept.clear()
    rows = model.rows(4, 90)
    for number, prompt in enumerate(reversed(ASKED)):
        assert torch.equal(logits(prompt, rows, number % 4), first[prompt.key])
    assert len(model.prefixes.kept) == 1


@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(temperature=1.0)])
def test_replay_sees_what_live_decoding_saw(sampling: SamplingParams) -> None:
    """The same figures as without a shared prefix; greedy, also the live blocks."""
    model = wrap(family("gemma3"), "v")
    drafter = ModelDrafter(noised(model, 0.05), model)
    options = {"sampling": sampling, "batch_size": 5, "seed": 0, "chunk": "c"}
    references = list(make_references(model, ASKED, **options))
    lines = list(replay(model, drafter, ASKED, references, **options))
    assert len(model.prefixes.kept) == len(drafter.model.prefixes.kept) == 1
    for line, apart in zip(lines, replay(model, drafter, encode_apart(), references, **options), strict=True):
        assert line.draft_ids == apart.draft_ids
        for name in ("alpha", "overlap", "kl", "verifier_entropy"):
            assert getattr(line, name) == pytest.approx(getattr(apart, name), abs=1e-3)
    if sampling.greedy:
        text = {reference.key: reference.ids for reference in references}
        hits = {line.key: [d == y for d, y in zip(line.draft_ids, text[line.key][1:], strict=True)] for line in lines}
        asked = [as_request(prompt) for prompt in ASKED]
        for done in decode(model, drafter, asked, sampling=sampling, gamma=4, batch_size=3, seed=0):
            live = [(block.accepted, block.emitted) for block in done.blocks]
            assert live == [(each.accepted, each.emitted) for each in blocks_from_matches(hits[done.key], 4)]


def encode_apart() -> list[Encoded]:
    return [prompt.model_copy(update={"shared": 0}) for prompt in ASKED]


def test_with_longrope_nothing_is_shared() -> None:
    """There the keys of a prefix depend on how long the whole prompt is."""
    model = replace(wrap(family("llama"), "v"), rope_switch=50)
    assert model.prefix(ASKED[0].ids, len(PREFIX)) is None
    assert replace(model, rope_switch=None).prefix(ASKED[0].ids, len(PREFIX)).ids == tuple(PREFIX)


# --------------------------------------------------------------------------- work, time, memory


@pytest.mark.parametrize("language", ["en", "te"])
def test_fifty_problems_of_eight_shots_cost_an_eighth(language: str, read: list[int], data_dir: Path) -> None:
    """Tokens prefilled for the references of 50 MGSM problems with one token each, by both models."""
    codec, suite = Codec("embedded:verifier"), load_suite("mgsm", languages=[language], limit=50, num_fewshot=8)
    asked = with_prefixes(codec.encode(prompt).model_copy(update={"max_new_tokens": 1}) for prompt in suite.prompts)
    tiny = {"vocab_size": 2048, "num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8}
    model = wrap(family("llama", **tiny, max_position_embeddings=8192, eos_token_id=None), "v")
    drafter = ModelDrafter(noised(model, 0.05), model)
    read.clear()
    options = {"sampling": GREEDY, "batch_size": 8, "seed": 0, "gamma": 1}
    assert len(list(decode(model, drafter, map(as_request, asked), **options))) == 50
    whole = 2 * sum(len(prompt.ids) for prompt in asked)
    assert sum(read) == whole - 2 * 49 * asked[0].shared
    assert sum(read) <= whole / 8


@pytest.mark.parametrize("kind", ["model", "oracle"])
def test_the_time_of_a_prefix_counts_for_every_prompt(kind: str) -> None:
    """So that a race times what a user waits for; decode times have none of it."""
    model = wrap(family("llama"), "v")
    small = ModelDrafter(noised(model, 0.02), model)
    drafter = small if kind == "model" else OracleDrafter(0.8, model, payer=small, reference=wanted("llama"))
    for each, ns in ((model, 10**15), (small.model, 10**16)):
        made = each.prefix([*PREFIX, 8], len(PREFIX))
        each.prefixes.add(replace(made, ns=ns))
    racer = Decoder(model, drafter, sampling=GREEDY, gamma=3, batch_size=1, seed=0)
    for done in racer.decode([as_request(prompt) for prompt in ASKED], wanted("llama")):
        assert 10**15 < done.prefill_ns < 1.1e15
        assert 10**16 < done.drafter_prefill_ns < 1.1e16
        assert done.decode_ns < 10**12
    for done in racer.decode([as_request(prompt) for prompt in encode_apart()], wanted("llama")):
        assert max(done.prefill_ns, done.drafter_prefill_ns) < 10**12


def test_a_prefix_is_timed_as_it_is_made_and_not_as_part_of_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrap(family("llama"), "v")
    now, passes = 0, Rows.forward

    def slow(self: Rows, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        nonlocal now
        now += 1000 * tokens.shape[1]
        return passes(self, tokens, *rest)

    monkeypatch.setattr(Rows, "forward", slow)
    monkeypatch.setattr("time.perf_counter_ns", lambda: now)
    asked = [as_request(prompt, max_new_tokens=1) for prompt in ASKED]
    for done in decode(model, None, asked, sampling=GREEDY, gamma=0, batch_size=3, seed=0):
        (prompt,) = [prompt for prompt in ASKED if prompt.key == done.key]
        assert done.prefill_ns == 1000 * len(prompt.ids)


def test_prefixes_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrap(family("llama"), "v")
    heads = [[*ids, 8] for ids in prompts(4, 40, 40, seed=11)]
    first = model.prefix(heads[0], 40)
    assert first.cache.nbytes == 2 * 2 * 40 * 2 * 8 * 4
    monkeypatch.setattr(kv_cache, "PREFIX_BYTES", 2 * first.cache.nbytes)
    for head in heads[1:3]:
        assert model.prefix(heads[0], 40) is first
        model.prefix(head, 40)
    assert [[*list(each), 8] for each in model.prefixes.kept] == [heads[0], heads[2]]
    monkeypatch.setattr(kv_cache, "PREFIX_BYTES", 1)
    last = model.prefix(heads[3], 40)
    assert list(model.prefixes.kept.values()) == [last]
