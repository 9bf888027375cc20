"""Replay against a slow float64 version, against memory bounds, and against live decoding block by block."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_models import VOCAB, counted, encode, family, noised, prompts, stock

from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.engine.drafters.lookup import LookupDrafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.oracle import OracleDrafter
from fairspec_bench.engine.speculative import as_request, decode
from fairspec_bench.metrics.acceptance import blocks_from_matches, expected_blocks
from fairspec_bench.models.model import Rows, wrap
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.lines import Reference, Replay
from fairspec_bench.scoring import replay as module
from fairspec_bench.scoring.reference import make_references
from fairspec_bench.scoring.replay import replay

VERIFIER = wrap(family("llama"), "verifier")
ENCODED = [
    prompt.model_copy(update={"group": ("s/even", "s/odd")[i % 2]})
    for i, prompt in enumerate(encode(prompts(24, 3, 20), max_new_tokens=24))
]
GREEDY, SAMPLED, NARROW = (
    SamplingParams(),
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=0.7, top_k=12, top_p=0.9),
)
DRAFTERS: dict[str, Drafter] = {
    "model": ModelDrafter(noised(VERIFIER, 0.05), VERIFIER),
    "cooled": ModelDrafter(noised(VERIFIER, 0.05), VERIFIER, temperature=0.6),
    "tempered": ModelDrafter(noised(VERIFIER, 0.05), VERIFIER, temperatures={"s/even": 1.7, "odd": 0.7}),
    "lookup": LookupDrafter(),
    "oracle": OracleDrafter(0.7, VERIFIER),
}


@cache
def references(sampling: SamplingParams) -> tuple[Reference, ...]:
    return tuple(make_references(VERIFIER, ENCODED, sampling=sampling, batch_size=12, seed=0, chunk="s"))


DRAFTERS["ngram"] = counted(
    VERIFIER,
    [(prompt.ids, reference.ids) for prompt, reference in zip(ENCODED[::2], references(SAMPLED)[::2], strict=True)],
)


def scored(name: str, sampling: SamplingParams, **changes: object) -> list[Replay]:
    options = {"sampling": sampling, "seed": 0, "batch_size": 6, "chunk": "s", **changes}
    return list(replay(VERIFIER, DRAFTERS[name], ENCODED, list(references(sampling)), **options))


# --------------------------------------------------------------------------- against a slow version


def slow_law(logits: np.ndarray, sampling: SamplingParams, temperature: float) -> np.ndarray:
    """One context's distribution in float64; greedy is all mass on the first maximum."""
    if sampling.greedy:
        return np.eye(len(logits))[int(np.argmax(logits))]
    scores = logits / temperature
    p = np.exp(scores - scores.max())
    if sampling.top_k:
        p[scores < np.sort(scores)[-sampling.top_k]] = 0
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    p[order[np.cumsum(p[order]) - p[order] >= sampling.top_p]] = 0
    return p / p.sum()


def slow_replay(name: str, sampling: SamplingParams, index: int) -> dict[str, object]:
    """A plain double-precision pass of stock attention over one text, then METRICS by the letter."""
    drafter, prompt, reference = DRAFTERS[name], ENCODED[index], references(sampling)[index]
    own = {"cooled": 0.6, "tempered": (1.7, 0.7)[index % 2]}.get(name, 1.0)
    tokens = torch.tensor([[*prompt.ids, *reference.ids]])

    def logits(model: object) -> np.ndarray:
        with torch.no_grad():
            return stock(model).double()(tokens).logits[0, len(prompt.ids) : -1].numpy()

    p_logits = logits(VERIFIER)
    count = len(reference.ids) - 1
    drafts = drafter.read([as_request(prompt)], [reference.ids], 0).piece(0, count).of(0, count)
    if drafter.model is not None:
        q_logits = logits(drafter.model)
    else:
        q_logits = np.eye(VOCAB)[drafts.ids] if drafts.scores is None else drafts.scores.double().numpy()
    plain = SamplingParams(temperature=1.0)
    sums: dict[str, object] = dict.fromkeys(("alpha", "overlap", "kl", "cross_entropy", "verifier_entropy"), 0.0)
    draft_ids, beta = [], []
    for p_row, q_row, y in zip(p_logits, q_logits, reference.ids[1:], strict=True):
        p = slow_law(p_row, sampling, sampling.temperature)
        q = slow_law(q_row / own, sampling, sampling.temperature) if drafter_kind(drafter.kind).proper else q_row
        p1 = slow_law(p_row, plain, 1.0)
        q1 = slow_law(q_row / own, plain, 1.0)
        sums["alpha"] += np.minimum(p, q).sum()
        sums["overlap"] += np.minimum(p1, q1).sum()
        sums["kl"] += (p1 * np.log(p1 / q1)).sum()
        sums["cross_entropy"] -= (p1 * np.log(q1)).sum()
        sums["verifier_entropy"] -= (p1 * np.log(p1)).sum()
        draft_ids.append(int(np.argmax(q_row)))
        beta.append(min(1.0, q[y] / p[y]))
    if not drafter_kind(drafter.kind).proper:
        sums |= dict.fromkeys(("overlap", "kl", "cross_entropy"))
    return {**sums, "draft_ids": tuple(draft_ids), "beta": None if sampling.greedy else beta}


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, NARROW])
@pytest.mark.parametrize("name", DRAFTERS)
def test_against_the_slow_version(name: str, sampling: SamplingParams) -> None:
    lines = scored(name, sampling)
    assert [line.key for line in lines] == [prompt.key for prompt in ENCODED]
    for index in range(0, 24, 4):
        line, want = lines[index], slow_replay(name, sampling, index)
        assert line.contexts == len(references(sampling)[index].ids) - 1
        assert line.draft_ids == want["draft_ids"]
        for field in ("alpha", "overlap", "kl", "cross_entropy", "verifier_entropy", "beta"):
            if want[field] is None:
                assert getattr(line, field) is None, field
            else:
                np.testing.assert_allclose(getattr(line, field), want[field], rtol=2e-4, atol=2e-5, err_msg=field)


def test_memory_and_batch_change_nothing_but_the_size_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    read = Rows.read

    def spy(self: Rows, tokens: torch.Tensor, start: torch.Tensor, view: int, keep: int) -> torch.Tensor:
        kept.append(keep * module.position_bytes(tokens.shape[0], VOCAB))
        return read(self, tokens, start, view, keep)

    whole = scored("model", SAMPLED)
    monkeypatch.setattr(Rows, "read", spy)
    for memory, batch in [(2**30, 24), (5 * module.position_bytes(6, VOCAB), 6), (1, 1)]:
        kept.clear()
        lines = scored("model", SAMPLED, memory_bytes=memory, batch_size=batch)
        assert max(kept) <= memory or memory == 1
        for line, want in zip(lines, whole, strict=True):
            assert line.draft_ids == want.draft_ids
            np.testing.assert_allclose(line.beta, want.beta, rtol=1e-4)
            np.testing.assert_allclose((line.alpha, line.kl), (want.alpha, want.kl), rtol=1e-5)


def test_a_text_of_one_token_has_no_contexts() -> None:
    encoded = encode([[9, 10, 11]], max_new_tokens=1)
    text = list(make_references(VERIFIER, encoded, sampling=GREEDY, batch_size=1, seed=0, chunk="s"))
    for drafter in DRAFTERS.values():
        options = {"sampling": GREEDY, "seed": 0, "batch_size": 1, "chunk": "s"}
        (line,) = replay(VERIFIER, drafter, encoded, text, **options)
        assert (line.contexts, line.alpha, line.draft_ids) == (0, 0.0, ())


def test_a_padded_vocabulary_still_has_a_finite_misfit() -> None:
    small = wrap(family("llama", 1, vocab_size=VOCAB - 2), "small", vocabulary="same")
    verifier = wrap(VERIFIER.hf, "verifier", vocabulary="same")
    drafter = ModelDrafter(small, verifier)
    texts = [t.model_copy(update={"ids": tuple(min(i, VOCAB - 3) for i in t.ids)}) for t in references(SAMPLED)]
    lines = list(replay(verifier, drafter, ENCODED, texts, sampling=SAMPLED, seed=0, batch_size=6, chunk="s"))
    assert all(line.kl is not None and np.isfinite(line.kl) for line in lines)
    assert all(draft < VOCAB - 2 for line in lines for draft in line.draft_ids)


def test_foreign_traces_are_refused() -> None:
    texts = [reference.model_copy(update={"prompt_sha": "0" * 64}) for reference in references(GREEDY)]
    with pytest.raises(FairspecError, match="another prompt"):
        list(replay(VERIFIER, LookupDrafter(), ENCODED, texts, sampling=GREEDY, seed=0, batch_size=6, chunk="s"))


# --------------------------------------------------------------------------- against live decoding


@pytest.mark.parametrize("name", DRAFTERS)
def test_greedy_blocks_are_the_live_ones(name: str) -> None:
    lines = scored(name, GREEDY)
    text = {reference.key: reference.ids for reference in references(GREEDY)}
    matches = {line.key: [d == y for d, y in zip(line.draft_ids, text[line.key][1:], strict=True)] for line in lines}
    assert [line.alpha for line in lines] == [sum(hits) for hits in matches.values()]
    drafter = OracleDrafter(0.7, VERIFIER, reference=text) if name == "oracle" else DRAFTERS[name]
    for gamma in (1, 2, 4, 7):
        asked = [as_request(prompt) for prompt in ENCODED]
        for done in decode(VERIFIER, drafter, asked, sampling=GREEDY, gamma=gamma, batch_size=6, seed=0):
            live = [(block.accepted, block.emitted) for block in done.blocks]
            assert done.ids == text[done.key]
            blocks = blocks_from_matches(matches[done.key], gamma)
            assert live == [(block.accepted, block.emitted) for block in blocks], (done.key, gamma)


def live_blocks(
    name: str, sampling: SamplingParams, gamma: int, seed: int, text: dict[str, tuple[int, ...]] | None
) -> list:
    asked = [as_request(prompt) for prompt in ENCODED]
    options = {"sampling": sampling, "gamma": gamma, "batch_size": 24, "seed": seed, "reference": text}
    return list(decode(VERIFIER, DRAFTERS[name], asked, **options))


@pytest.mark.parametrize(
    ("name", "sampling"), [("model", SAMPLED), ("model", NARROW), ("tempered", NARROW), ("ngram", SAMPLED)]
)
def test_expected_blocks_match_live_ones(name: str, sampling: SamplingParams) -> None:
    """Given the text, blocks follow from beta: over seeds, live counts scatter about the expectation and not more."""
    gamma, seeds = 4, 16
    expectation = expected_blocks([line.beta for line in scored(name, sampling)], gamma)
    text = {reference.key: reference.ids for reference in references(sampling)}
    runs = [live_blocks(name, sampling, gamma, seed, text) for seed in range(seeds)]
    for live, want in [
        ([sum(len(row.blocks) for row in run) for run in runs], expectation.blocks.sum()),
        ([sum(b.accepted for row in run for b in row.blocks) for run in runs], expectation.accepted.sum()),
    ]:
        assert stats.ttest_1samp(live, want).pvalue > 0.001
        assert np.std(live) < 0.1 * want


@pytest.mark.parametrize("name", ["model", "tempered", "ngram"])
def test_expected_blocks_match_live_sampling(name: str) -> None:
    """The same without committing: each live text replayed, blocks counted against its own expectation."""
    differences = []
    for seed in range(8):
        done = sorted(live_blocks(name, SAMPLED, 3, seed, None), key=lambda row: int(row.key.split("/")[2]))
        texts = [
            Reference(key=row.key, prompt_sha=prompt.sha, ids=row.ids, finish=row.finish, chunk="s")
            for row, prompt in zip(done, ENCODED, strict=True)
        ]
        options = {"sampling": SAMPLED, "seed": seed, "batch_size": 24, "chunk": "s"}
        lines = list(replay(VERIFIER, DRAFTERS[name], ENCODED, texts, **options))
        want = expected_blocks([line.beta for line in lines], 3).blocks
        differences += [len(row.blocks) - blocks for row, blocks in zip(done, want, strict=True)]
    assert len(differences) == 8 * 24
    assert stats.ttest_1samp(differences, 0).pvalue > 0.001
