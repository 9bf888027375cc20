"""Where texts made in a half type leave those that the same verifier would have made in float32.

Knows a float32 verifier, prompts and finished greedy texts. Up to the place where the two texts part their contexts are
the same, so that one teacher-forced pass finds it: nothing is decoded in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fairspec_bench.engine.forced import Forced
from fairspec_bench.engine.model import Model
from fairspec_bench.records import Departure, Encoded, Trace
from fairspec_bench.score.reference import pair

WORKING_COPIES = 2
"""About how many float32 tensors of the logits' shape are alive at once."""

Left = tuple[int, float] | None
"""Output position of the first token that is not the verifier's own, from 1, and its gap in nats; `None` for none."""


def departures(
    verifier: Model,
    encoded: Sequence[Encoded],
    traces: Sequence[Trace],
    *,
    batch_size: int,
    shard: str,
    memory_bytes: int = 2**30,
) -> Iterator[Departure]:
    """Where each greedy text leaves the greedy text of `verifier`, in the prompts' order.

    Prompts of similar output length share a batch; logits are made in pieces such that the work on them stays within
    about `memory_bytes`, beside weights and caches. Raises `FairspecError` if traces and prompts do not match.
    """
    pairs = pair(encoded, traces)
    by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index][1].ids))
    found: dict[int, Left] = {}
    for first in range(0, len(pairs), batch_size):
        indices = by_length[first : first + batch_size]
        found |= zip(indices, _first_of(verifier, [pairs[index] for index in indices], memory_bytes), strict=True)
    for index, (prompt, trace) in enumerate(pairs):
        position, gap = found[index] or (None, None)
        yield Departure(key=prompt.key, prompt_sha=trace.prompt_sha, first=position, gap=gap, shard=shard)


def _first_of(verifier: Model, pairs: Sequence[tuple[Encoded, Trace]], memory_bytes: int) -> list[Left]:
    """The first departure of each text of a batch; texts are read no further than the last of them."""
    forced = Forced(verifier, [prompt.ids for prompt, _ in pairs], [trace.ids for _, trace in pairs])
    counts = torch.tensor([len(trace.ids) for _, trace in pairs], device=forced.text.device)
    piece = max(1, memory_bytes // (len(pairs) * verifier.vocab_size * 4 * WORKING_COPIES))
    left: list[Left] = [None] * len(pairs)
    for done, logits in _foreseen(forced, [prompt.ids[-1] for prompt, _ in pairs], piece):
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


def _foreseen(forced: Forced, last_ids: Sequence[int], piece: int) -> Iterator[tuple[int, Tensor]]:
    """Logits [B, T, V] that foresee the texts' tokens from `done` on, piece by piece, beside `done`.

    Those of the first token come after the prompt's last, which is read again: the prefill does not hand them out.
    """
    last = torch.tensor(last_ids, device=forced.text.device)[:, None]
    yield 0, forced.rows.read(last, forced.start - 1, view=forced.end, keep=1)
    length = forced.text.shape[1]
    for first in range(0, length - 1, piece):
        yield first + 1, forced.piece(first, min(first + piece, length - 1))


def _at(logits: Tensor, ids: Tensor, place: Tensor) -> Tensor:
    """The logit [B] of each row's id at its `place` [B, 1]: logits [B, T, V], ids [B, T]."""
    rows = torch.arange(len(ids), device=ids.device)
    where = place.squeeze(1)
    return logits[rows, where, ids[rows, where]].float()
