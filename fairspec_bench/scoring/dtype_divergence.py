"""Where greedy outputs in a half type diverge from those of the same verifier in float32.

Up to the place where the two outputs differ their contexts are the same, so that one teacher-forced pass finds it:
nothing is decoded in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fairspec_bench.engine.teacher_forcing import TeacherForcing
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.lines import DtypeDivergence, Reference
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.scoring.reference import pair

WORKING_COPIES = 2
"""About how many float32 tensors of the logits' shape are alive at once."""

Left = tuple[int, float] | None
"""Output position of the first token that is not the verifier's own, from 1, and its gap in nats; `None` for none."""


def divergences(
    verifier: Model,
    encoded: Sequence[Encoded],
    references: Sequence[Reference],
    *,
    batch_size: int,
    chunk: str,
    memory_bytes: int = 2**30,
) -> Iterator[DtypeDivergence]:
    """Where each greedy text leaves the greedy text of `verifier`, in the prompts' order.

    Prompts of similar output length share a batch; logits are made in pieces such that the work on them stays within
    about `memory_bytes`, beside weights and caches. Raises `FairspecError` if references and prompts do not match.
    """
    pairs = pair(encoded, references)
    by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index][1].ids))
    found: dict[int, Left] = {}
    for first in range(0, len(pairs), batch_size):
        indices = by_length[first : first + batch_size]
        found |= zip(indices, _first_of(verifier, [pairs[index] for index in indices], memory_bytes), strict=True)
    for index, (prompt, reference) in enumerate(pairs):
        position, gap = found[index] or (None, None)
        yield DtypeDivergence(key=prompt.key, prompt_sha=reference.prompt_sha, first=position, gap=gap, chunk=chunk)


def _first_of(verifier: Model, pairs: Sequence[tuple[Encoded, Reference]], memory_bytes: int) -> list[Left]:
    """The first divergence of each output of a batch; they are read no further than the last of them."""
    prompts, texts = [prompt.ids for prompt, _ in pairs], [reference.ids for _, reference in pairs]
    shared, keys = [prompt.shared for prompt, _ in pairs], [prompt.key for prompt, _ in pairs]
    forced = TeacherForcing(verifier, prompts, texts, keys, shared=shared)
    counts = torch.tensor([len(reference.ids) for _, reference in pairs], device=forced.text.device)
    piece = max(1, memory_bytes // (len(pairs) * verifier.vocab_size * 4 * WORKING_COPIES))
    left: list[Left] = [None] * len(pairs)
    for done, logits in _foreseen(forced, piece):
        text = forced.text[:, done : done + logits.shape[1]]
        likeliest = logits.argmax(-1)
        inside = done + torch.arange(text.shape[1], device=text.device) < counts[:, None]
        off = (likeliest != text) & inside
        place = off.int().argmax(1, keepdim=True)
        gaps = _at(logits, likeliest, place) - _at(logits, text, place)
        for row in off.any(1).nonzero().flatten().tolist():
            left[row] = left[row] or (done + int(place[row]) + 1, float(gaps[row]))
        if all(left):
            break
    return left


def _foreseen(forced: TeacherForcing, piece: int) -> Iterator[tuple[int, Tensor]]:
    """Logits [B, T, V] that predict the texts' tokens from `done` on, piece by piece, beside `done`."""
    yield 0, forced.before()
    length = forced.text.shape[1]
    for first in range(0, length - 1, piece):
        yield first + 1, forced.piece(first, min(first + piece, length - 1))


def _at(logits: Tensor, ids: Tensor, place: Tensor) -> Tensor:
    """The logit [B] of each row's id at its `place` [B, 1]: logits [B, T, V], ids [B, T]."""
    rows = torch.arange(len(ids), device=ids.device)
    where = place.squeeze(1)
    return logits[rows, where, ids[rows, where]].float()
