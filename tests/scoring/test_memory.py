"""Scoring finished texts takes bounded memory, whatever the number of prompts, the vocabulary or the texts' length."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from tiny_models import encode, family, noised, prompts
from torch.utils._python_dispatch import TorchDispatchMode

from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.models.model import Model, wrap
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.lines import Reference
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.scoring.dtype_divergence import divergences
from fairspec_bench.scoring.likelihood import target_nats
from fairspec_bench.scoring.reference import make_references
from fairspec_bench.scoring.replay import replay

LARGE, LENGTH, MEMORY = 20_000, 100, 2**24
SMALL = 2_000
GREEDY, SAMPLED = SamplingParams(), SamplingParams(temperature=0.8, top_k=50, top_p=0.9)


class Allocated(TorchDispatchMode):
    """The bytes of all tensors that operations made and that are alive, weights apart: now, and at most."""

    def __init__(self, *models: Model) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = {weight.untyped_storage()._cdata for model in models for weight in model.hf.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self.known:
            return
        self.known.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size


def peak(work: Callable[[], Iterable[object]], *models: Model) -> int:
    """The most bytes of tensors alive at once, weights of `models` apart, while `work` is gone through."""
    with Allocated(*models) as allocated:
        for _ in work():
            pass
    return allocated.peak


def job(
    vocabulary: int, count: int, length: int = LENGTH
) -> tuple[Model, ModelDrafter, list[Encoded], list[Reference]]:
    """A pair, and texts of random ids: what they say makes no difference to memory."""
    verifier = wrap(family("llama", vocab_size=vocabulary), "verifier")
    encoded = encode(prompts(count, 5, 10, vocab=vocabulary), max_new_tokens=length)
    texts = prompts(count, length, length, seed=9, vocab=vocabulary)
    references = [
        Reference(key=prompt.key, prompt_sha=prompt.sha, ids=tuple(ids), finish="length", chunk="s")
        for prompt, ids in zip(encoded, texts, strict=True)
    ]
    return verifier, ModelDrafter(noised(verifier, 0.1), verifier), encoded, references


def replay_peak(
    sampling: SamplingParams,
    vocabulary: int,
    count: int,
    memory: int = MEMORY,
    length: int = LENGTH,
    batch_size: int = 4,
) -> int:
    verifier, drafter, encoded, references = job(vocabulary, count, length)
    options: dict[str, Any] = {
        "sampling": sampling,
        "seed": 0,
        "batch_size": batch_size,
        "chunk": "s",
        "memory_bytes": memory,
    }
    return peak(lambda: replay(verifier, drafter, encoded, references, **options), verifier, drafter.model)


@pytest.mark.parametrize("batch_size", [1, 4, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_replay_stays_within_its_memory(sampling: SamplingParams, batch_size: int) -> None:
    """Whole, the logits of one text and model alone are 8 MB, and some thirteen copies of them are alive at once."""
    found = replay_peak(sampling, LARGE, batch_size, batch_size=batch_size)
    assert MEMORY / 4 < found < MEMORY
    assert replay_peak(sampling, LARGE, batch_size, 2**40, batch_size=batch_size) > 3 * MEMORY


def test_it_does_not_grow_with_the_number_of_prompts() -> None:
    assert replay_peak(GREEDY, SMALL, 32) < 1.2 * replay_peak(GREEDY, SMALL, 4)


def test_departures_and_reference_texts_stay_within_theirs() -> None:
    verifier, _, encoded, references = job(LARGE, 8)
    asked: dict[str, Any] = {"sampling": GREEDY, "batch_size": 8, "seed": 0, "chunk": "s"}
    own = list(make_references(verifier, encoded, **asked))  # texts that depart nowhere are read to their ends
    pairs = [(prompt.ids, reference.ids) for prompt, reference in zip(encoded, references, strict=True)]
    for work in (
        lambda: divergences(verifier, encoded, own, batch_size=4, chunk="s", memory_bytes=MEMORY),
        lambda: target_nats(verifier, pairs, batch_size=4, memory_bytes=MEMORY),
    ):
        assert MEMORY / 8 < peak(work, verifier) < 1.2 * MEMORY
