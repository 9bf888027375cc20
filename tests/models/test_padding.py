"""One tokenizer, embeddings of two sizes: the rows that only one model has cost no exactness, whichever has them.

The rows beyond the smaller size are made loud on purpose, so that both models often prefer one of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from tiny_models import encode, family, generate, noised, prompts, requests, stock

from fairspec_bench.engine import teacher_forcing
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.sampling import log_probs
from fairspec_bench.engine.speculative import Decoded, decode
from fairspec_bench.metrics.acceptance import blocks_from_matches
from fairspec_bench.models.model import Model, wrap
from fairspec_bench.schemas.config import Backend, SamplingParams
from fairspec_bench.scoring.reference import make_references
from fairspec_bench.scoring.replay import replay

SMALL, LARGE, GAMMA, CAP = 64, 72, 3, 12
GREEDY = SamplingParams()
RULES = [SamplingParams(temperature=1.0), SamplingParams(temperature=0.8, top_k=20, top_p=0.8)]
SIDES = ["verifier", "drafter"]
"""Which of the two has the larger embedding."""
PROMPTS = prompts(12, 3, 20, vocab=SMALL)
LOUD = 1.1


def resized(model: Model, size: int, loud: float = LOUD) -> Model:
    """A copy with an embedding of another size; what is added is louder than the rest."""
    hf = copy.deepcopy(model.hf)
    old = model.vocab_size
    hf.resize_token_embeddings(size, mean_resizing=False)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in (hf.get_input_embeddings(), hf.get_output_embeddings()):
            weight = layer.weight
            spread = loud * weight[:old].std()
            weight[old:] = spread * torch.randn(weight[old:].shape, generator=generator)
    return wrap(hf, f"{model.name} of {size}", vocabulary="the same")


@cache
def pair(larger: str, backend: Backend = "eager") -> tuple[Model, ModelDrafter]:
    one = wrap(family("llama", vocab_size=SMALL), "one", vocabulary="the same")
    other = replace(noised(one, 0.05), vocabulary="the same")
    verifier = replace(resized(one, LARGE) if larger == "verifier" else one, backend=backend)
    return verifier, ModelDrafter(resized(other, LARGE) if larger == "drafter" else other, verifier)


@cache
def wanted(larger: str) -> tuple[tuple[int, ...], ...]:
    hf = stock(pair(larger)[0])
    return tuple(generate(hf, ids, CAP) for ids in PROMPTS)


def decoded(
    larger: str, sampling: SamplingParams = GREEDY, backend: Backend = "eager", batch: int = 5
) -> list[Decoded]:
    asked = requests(PROMPTS, CAP)
    done = decode(*pair(larger, backend), asked, sampling=sampling, gamma=GAMMA, batch_size=batch, seed=0)
    return sorted(done, key=lambda row: int(row.key[1:]))


@pytest.mark.parametrize("larger", SIDES)
def test_the_rows_that_one_model_lacks_matter_here(larger: str) -> None:
    """Else nothing below would be tested: the larger model's own likeliest id is often one that the other lacks."""
    verifier, drafter = pair(larger)
    model = verifier if larger == "verifier" else drafter.model
    with torch.no_grad():
        tops = torch.cat([model.hf(torch.tensor([ids])).logits[0].argmax(-1) for ids in PROMPTS])
    share = float((tops >= SMALL).float().mean())
    assert 0.05 < share < 0.6
    if larger == "verifier":
        assert sum(token >= SMALL for ids in wanted(larger) for token in ids[:-1]) > 5


@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("larger", SIDES)
def test_greedy_text_is_the_verifiers_own(larger: str, backend: Backend) -> None:
    for batch in (1, 5) if backend == "eager" else (5,):
        done = decoded(larger, backend=backend, batch=batch)
        assert [row.ids for row in done] == list(wanted(larger))
    blocks = [block for row in done for block in row.blocks]
    assert sum(block.accepted for block in blocks) > 0.4 * len(blocks)


@pytest.mark.parametrize("sampling", [RULES[0], pytest.param(RULES[1], marks=pytest.mark.slow)])
@pytest.mark.parametrize("larger", SIDES)
def test_a_sample_is_the_same_on_every_backend(larger: str, sampling: SamplingParams) -> None:
    alone = [(row.ids, row.blocks) for row in decoded(larger, sampling, batch=1)]
    for backend in ("eager", "graph"):
        assert [(row.ids, row.blocks) for row in decoded(larger, sampling, backend)] == alone
    if sampling.top_k:
        assert [(row.ids, row.blocks) for row in decoded(larger, sampling, "compile")] == alone


# --------------------------------------------------------------------------- replay


@pytest.mark.parametrize("larger", SIDES)
def test_greedy_replay_gives_the_live_blocks(larger: str) -> None:
    verifier, drafter = pair(larger)
    encoded = encode(PROMPTS, CAP)
    references = list(make_references(verifier, encoded, sampling=GREEDY, batch_size=8, seed=0, chunk="s"))
    assert [reference.ids for reference in references] == list(wanted(larger))
    lines = list(replay(verifier, drafter, encoded, references, sampling=GREEDY, seed=0, batch_size=5, chunk="s"))
    for line, reference, row in zip(lines, references, decoded(larger), strict=True):
        matches = [draft == token for draft, token in zip(line.draft_ids, reference.ids[1:], strict=True)]
        live = [(block.accepted, block.emitted) for block in row.blocks]
        assert [(block.accepted, block.emitted) for block in blocks_from_matches(matches, GAMMA)] == live
        assert max(line.draft_ids, default=0) < min(SMALL, LARGE)


@torch.no_grad()
def slow_laws(
    larger: str, tokens: torch.Tensor, first: int, sampling: SamplingParams
) -> tuple[torch.Tensor, torch.Tensor]:
    """p and q [N, V] at the contexts of a text: ids that the verifier lacks are masked before anything else."""
    verifier, drafter = pair(larger)
    laws = []
    for model in (verifier, drafter.model):
        hf, seen = stock(model), tokens.clamp(max=model.vocab_size - 1)
        logits = hf(seen).logits[0, first:-1]
        wide = torch.full((len(logits), verifier.vocab_size), float("-inf"))
        kept = min(model.vocab_size, verifier.vocab_size)
        wide[:, :kept] = logits[:, :kept]
        laws.append(log_probs(wide, sampling).exp().double())
    return laws[0], laws[1]


@pytest.mark.parametrize("sampling", RULES)
@pytest.mark.parametrize("larger", SIDES)
def test_replay_of_a_sample_is_the_overlap_on_the_verifiers_ids(larger: str, sampling: SamplingParams) -> None:
    verifier, drafter = pair(larger)
    encoded = encode(PROMPTS[:8], CAP)
    references = list(make_references(verifier, encoded, sampling=sampling, batch_size=8, seed=0, chunk="s"))
    lines = list(replay(verifier, drafter, encoded, references, sampling=sampling, seed=0, batch_size=8, chunk="s"))
    for line, prompt, reference in zip(lines, encoded, references, strict=True):
        p, q = slow_laws(larger, torch.tensor([[*prompt.ids, *reference.ids]]), len(prompt.ids), sampling)
        np.testing.assert_allclose(line.alpha, torch.minimum(p, q).sum(), rtol=1e-3, atol=1e-4)


# --------------------------------------------------------------------------- bugs that these tests see


def _surplus_not_cut(monkeypatch: pytest.MonkeyPatch) -> str:
    """The drafter proposes an id that the verifier lacks, as the id nearest to it."""
    fit = teacher_forcing.fit_vocabulary

    def planted(logits: torch.Tensor, size: int) -> torch.Tensor:
        kept = fit(logits, size).clone()
        surplus = logits[..., size:].amax(-1) if logits.shape[-1] > size else kept[..., -1]
        kept[..., -1] = torch.maximum(kept[..., -1], surplus)
        return kept

    monkeypatch.setattr(teacher_forcing, "fit_vocabulary", planted)
    return "drafter"


def _missing_are_likely(monkeypatch: pytest.MonkeyPatch) -> str:
    """Ids that the drafter lacks are proposed as if their logits were large."""
    monkeypatch.setattr(
        teacher_forcing,
        "fit_vocabulary",
        lambda logits, size: torch.nn.functional.pad(logits, (0, size - logits.shape[-1]), value=50.0),
    )
    return "verifier"


@pytest.mark.parametrize("plant", [_surplus_not_cut, _missing_are_likely])
def test_a_planted_bug_is_seen(plant: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    larger = plant(monkeypatch)
    with pytest.raises(AssertionError):
        test_replay_of_a_sample_is_the_overlap_on_the_verifiers_ids(larger, RULES[0])
