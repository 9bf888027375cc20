"""−ln p of given texts against plain passes, however batched and cut, and what it comes to on the embedded pair."""

from __future__ import annotations

import pytest
import torch
from tiny_models import VOCAB, family, prompts, stock

from fairspec_bench.engine import teacher_forcing
from fairspec_bench.models.codec import Codec
from fairspec_bench.models.model import Model, load_model, wrap
from fairspec_bench.scoring import likelihood
from fairspec_bench.scoring.likelihood import target_nats
from fairspec_bench.suites.suite import load_suite

Pairs = list[tuple[list[int], list[int]]]


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def model(request: pytest.FixtureRequest) -> Model:
    return wrap(family(request.param), request.param)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Prompts and texts of every length, texts of a single token among them."""
    return list(zip(prompts(7, 2, 30), [[9], *prompts(5, 1, 40, seed=5), [8]], strict=True))


def slow(model: Model, prompt: list[int], text: list[int]) -> float:
    """One pass by Transformers' own attention, no cache, in float64 from the logits on."""
    with torch.no_grad():
        logits = stock(model)(input_ids=torch.tensor([[*prompt, *text]]), use_cache=False).logits[0].double()
    told = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return -float(told[range(len(text)), text].sum())


@pytest.mark.parametrize("batch_size", [1, 3, 7])
@pytest.mark.parametrize("contexts", [1, 5, 1000])
def test_every_batch_and_piece_is_the_plain_pass(model: Model, pairs: Pairs, batch_size: int, contexts: int) -> None:
    memory = contexts * batch_size * VOCAB * 4 * likelihood.WORKING_COPIES
    found = list(target_nats(model, pairs, batch_size=batch_size, memory_bytes=memory))
    assert found == pytest.approx([slow(model, *pair) for pair in pairs], rel=1e-4)


def test_logits_are_of_the_texts_alone_and_in_bounded_pieces(
    model: Model, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Size] = []
    real = teacher_forcing.TeacherForcing.piece

    def piece(self: teacher_forcing.TeacherForcing, first: int, last: int) -> torch.Tensor:
        logits = real(self, first, last)
        seen.append(logits.shape)
        return logits

    monkeypatch.setattr(teacher_forcing.TeacherForcing, "piece", piece)
    list(target_nats(model, pairs, batch_size=7, memory_bytes=4 * 7 * VOCAB * 4 * likelihood.WORKING_COPIES))
    assert {(shape[0], shape[2]) for shape in seen} == {(7, VOCAB)}
    assert max(shape[1] for shape in seen) == 4
    assert sum(shape[1] for shape in seen) == max(len(text) for _, text in pairs)


def test_forgetting_the_first_token_would_be_caught(
    model: Model, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(teacher_forcing.TeacherForcing):
        def __init__(
            self, model: Model, before: list[list[int]], texts: list[list[int]], keys: list[str], **options: int
        ) -> None:
            shifted = [[*a, b[0]] for a, b in zip(before, texts, strict=True)]
            super().__init__(model, shifted, [b[1:] for b in texts], keys, **options)

    monkeypatch.setattr(likelihood, "TeacherForcing", Late)
    pairs = [pair for pair in pairs if len(pair[1]) > 2]
    found = list(target_nats(model, pairs, batch_size=3))
    assert found != pytest.approx([slow(model, *pair) for pair in pairs], rel=1e-2)


def test_what_has_no_room_or_no_context_is_none(model: Model) -> None:
    pairs: Pairs = [([8, 9], [10]), ([8] * 100, [9] * 29), ([8], [9]), ([8, 9], []), ([8] * 100, [9] * 28)]
    found = list(target_nats(model, pairs, batch_size=2))
    assert [value is None for value in found] == [False, True, True, True, False]
    assert found[4] == pytest.approx(slow(model, *pairs[4]), rel=1e-4)


@pytest.fixture(scope="module")
def embedded() -> dict[str, Model]:
    return {name: load_model(f"embedded:{name}") for name in ("verifier", "drafter")}


def test_the_embedded_pair_knows_its_stories(embedded: dict[str, Model]) -> None:
    """Three prompts against plain passes; and the verifier, the larger model, finds them likelier."""
    codec = Codec("embedded:verifier")
    stories = load_suite("embedded_story", languages=["en", "ja", "te"], limit=1).prompts
    pairs = [(list(codec.encode(p).ids), list(codec.continuation(p, p.target or ""))) for p in stories]
    found = {}
    for name, model in embedded.items():
        found[name] = list(target_nats(model, pairs, batch_size=2))
        assert found[name] == pytest.approx([slow(model, *pair) for pair in pairs], rel=1e-4)
    for prompt, (before, after) in zip(stories, pairs, strict=True):
        assert codec.decode([*before, *after]) == f"{prompt.text}{prompt.target}"
    assert all(big < small for big, small in zip(found["verifier"], found["drafter"], strict=True))
