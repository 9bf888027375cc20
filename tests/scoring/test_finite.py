"""Teacher-forced passes over models whose logits are not finite: replay, likelihoods, divergences, a whole run."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny_models import encode, family, prompts

from fairspec_bench.engine import finite as guard
from fairspec_bench.engine.drafters.base import DraftOutput
from fairspec_bench.engine.drafters.lookup import LookupDrafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.models.model import Model, wrap
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.lines import Reference
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.scoring.dtype_divergence import divergences
from fairspec_bench.scoring.likelihood import target_nats
from fairspec_bench.scoring.reference import make_references
from fairspec_bench.scoring.replay import replay, score_contexts

GREEDY, SAMPLED = SamplingParams(), SamplingParams(temperature=0.8, top_p=0.9)
SAMPLINGS = pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
BATCHES = pytest.mark.parametrize("batch_size", [1, 3])
PIECES = pytest.mark.parametrize("memory_bytes", [1, 2**30], ids=["pieces", "whole"])
SOUND = wrap(family("llama"), "sound")
KEY, PLACE = "s/l/2", 4
"""The text with a token of its own, at this output position."""
PROMPTS = encode(prompts(5, 3, 12, seed=2, vocab=50), max_new_tokens=12)
OWN = 55


def references() -> list[Reference]:
    made = make_references(SOUND, PROMPTS, sampling=SAMPLED, batch_size=5, seed=0, chunk="s")
    clean = [line.model_copy(update={"ids": tuple(8 + token % 40 for token in line.ids)}) for line in made]
    ids = [9] * 12
    ids[PLACE - 1] = OWN
    return [line if line.key != KEY else line.model_copy(update={"ids": tuple(ids)}) for line in clean]


def spoiled(value: float = torch.nan) -> Model:
    hf = copy.deepcopy(SOUND.hf)
    with torch.no_grad():
        hf.get_input_embeddings().weight[OWN] = value
    return replace(SOUND, hf=hf, name="spoiled")


def says(position: int) -> str:
    return f"^{KEY}, output position {position}: the logits of spoiled are not finite"


@SAMPLINGS
@BATCHES
@PIECES
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_replay_refuses_either_model(
    sampling: SamplingParams, batch_size: int, memory_bytes: int, value: float
) -> None:
    """Case C1: where q is NaN every term of the KL was dropped, and 0 is a perfect fit."""
    bad = spoiled(value)
    options = {"sampling": sampling, "seed": 0, "batch_size": batch_size, "chunk": "s", "memory_bytes": memory_bytes}
    # In one piece with the token, attention weighs what comes after a position by 0, and 0 × NaN is NaN.
    wanted = says(PLACE + 1) if memory_bytes == 1 else says(2)
    for verifier, drafter in (
        (SOUND, ModelDrafter(bad, SOUND)),
        (bad, ModelDrafter(SOUND, bad)),
        (bad, LookupDrafter()),
    ):
        with pytest.raises(FairspecError, match=wanted):
            list(replay(verifier, drafter, PROMPTS, references(), **options))


def test_without_the_guard_replay_finds_a_perfect_fit() -> None:
    logits, scores = torch.randn(4, 9), torch.full((4, 9), torch.nan)
    scored = score_contexts(logits, DraftOutput(torch.zeros(4, dtype=torch.long), scores), torch.arange(4), SAMPLED)
    assert scored.kl.tolist() == [0.0] * 4


@BATCHES
@PIECES
def test_likelihoods_are_of_finite_logits(batch_size: int, memory_bytes: int) -> None:
    pairs = [(prompt.ids, line.ids) for prompt, line in zip(PROMPTS, references(), strict=True)]
    options = {"batch_size": batch_size, "memory_bytes": memory_bytes, "keys": [prompt.key for prompt in PROMPTS]}
    with pytest.raises(FairspecError, match=says(PLACE + 1 if memory_bytes == 1 else 1)):
        list(target_nats(spoiled(), pairs, **options))
    with pytest.raises(FairspecError, match=r"^text 3, output position \d: the logits of spoiled"):
        list(target_nats(spoiled(), pairs, batch_size=batch_size))


@BATCHES
@PIECES
def test_divergences_are_of_finite_logits(batch_size: int, memory_bytes: int) -> None:
    """The argmax of NaN would diverge at once with a gap of NaN: in the text, and after the prompt."""
    options = {"batch_size": batch_size, "memory_bytes": memory_bytes, "chunk": "s"}
    own = [line.model_copy(update={"ids": (*line.ids[:3], OWN)}) for line in make_own(PROMPTS)]
    list(divergences(spoiled(), PROMPTS, own, **options))  # the last token is not read
    asked = encode([[*prompt.ids[:-1], OWN] if prompt.key == KEY else list(prompt.ids) for prompt in PROMPTS], 12)
    with pytest.raises(FairspecError, match=says(1)):
        list(divergences(spoiled(), asked, make_own(asked), **options))
    within = [line.model_copy(update={"ids": (OWN, *line.ids[1:])}) if line.key == KEY else line for line in own]
    if batch_size > 1:  # alone, the text is not read beyond the token: that one diverges already
        with pytest.raises(FairspecError, match=says(2)):
            list(divergences(spoiled(), PROMPTS, within, **options))


def make_own(asked: list[Encoded]) -> list[Reference]:
    made = make_references(SOUND, asked, sampling=GREEDY, batch_size=5, seed=0, chunk="s")
    return [line.model_copy(update={"ids": tuple(token if token != OWN else 9 for token in line.ids)}) for line in made]


@PIECES
def test_the_last_token_of_a_text_is_never_read(memory_bytes: int) -> None:
    """What comes after a text, and what fills up a batch, decides nothing; nor does id 0."""
    lines = [line.model_copy(update={"ids": line.ids[:PLACE]}) if line.key == KEY else line for line in references()]
    options = {"sampling": GREEDY, "seed": 0, "batch_size": 3, "chunk": "s"}
    wanted = list(replay(SOUND, ModelDrafter(SOUND, SOUND), PROMPTS, lines, **options))
    bad = spoiled()
    with torch.no_grad():
        bad.hf.get_input_embeddings().weight[0] = torch.nan
    assert not any(0 in line.ids for line in lines)
    found = list(replay(SOUND, ModelDrafter(bad, SOUND), PROMPTS, lines, **options, memory_bytes=memory_bytes))
    assert [line.draft_ids for line in found] == [line.draft_ids for line in wanted]


def test_the_guard_is_what_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "finite", lambda peak: torch.ones_like(peak, dtype=torch.bool))
    pairs = [(prompt.ids, line.ids) for prompt, line in zip(PROMPTS, references(), strict=True)]
    assert sum(value != value for value in target_nats(spoiled(), pairs, batch_size=3)) == 1
