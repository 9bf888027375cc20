"""A request, and the batch on the device that the loop and a drafter share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from fairspec_bench.engine.finite import finite
from fairspec_bench.engine.rng import Purpose, keys
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.prompts import Encoded, StopCheck

DRAFTER, VERIFIER = 0, 1
"""Whose logits: the last axis of `Batch.peaks`."""
LEAST_SHARED = 32
"""From how many tokens on a prefix is worth a pass by itself."""


@dataclass(frozen=True)
class Request:
    """A prompt to continue by at most `max_new_tokens` tokens; `stream` is the number of its own random stream.

    A drafter may hold something of its own for each `group`, the prompt's task. The first `shared` ids are prefilled
    once for all prompts that begin with them.
    """

    key: str
    ids: tuple[int, ...]
    max_new_tokens: int
    stream: int
    stop: StopCheck | None = None
    group: str = ""
    shared: int = 0


def as_request(encoded: Encoded, stop: StopCheck | None = None, *, max_new_tokens: int | None = None) -> Request:
    """The request for an encoded prompt. Its random stream follows from the prompt's ids alone."""
    stream = int(encoded.sha[:15], 16)
    return Request(
        encoded.key,
        encoded.ids,
        encoded.max_new_tokens if max_new_tokens is None else max_new_tokens,
        stream,
        stop,
        encoded.group,
        encoded.shared,
    )


def with_prefixes(encoded: Iterable[Encoded]) -> list[Encoded]:
    """The same prompts, each with what all prompts of its group begin with as `shared`."""
    prompts = list(encoded)
    groups: dict[str, list[tuple[int, ...]]] = {}
    for prompt in prompts:
        groups.setdefault(prompt.group, []).append(prompt.ids)
    shared = {group: _shared(ids) for group, ids in groups.items()}
    return [prompt.model_copy(update={"shared": shared[prompt.group]}) for prompt in prompts]


def _shared(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many ids all of several prompts begin with, so that each has one more at least; 0 for too few."""
    first, last = min(prompts), max(prompts)  # what lies between them in order begins as both do
    equal = sum(1 for _ in takewhile(lambda ids: ids[0] == ids[1], zip(first, last, strict=False)))
    length = min(equal, min(map(len, prompts)) - 1)
    return length if len(prompts) > 1 and length >= LEAST_SHARED else 0


def padded(lists: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Lists of at most `width` ids as int64 [B, width], zeros after the end of each."""
    rows = [list(ids) + [0] * (width - len(ids)) for ids in lists]
    return torch.tensor(rows, dtype=torch.long, device=device).reshape(len(rows), width)


@dataclass
class Batch:
    """The rows being decoded, on the device; slot = logical position.

    The tensors are changed in place only: a recorded block goes on using their memory.

    Attributes:
        ids: int64 [B, S], the tokens so far.
        pos: int64 [B], slot of each row's last committed token.
        start: int64 [B], slot of its first output token.
        stream: int64 [B], number of its random stream.
        live: int64 [B], 1, or 0 for a row without a request.
        peaks: float32 [B, S, 2], the greatest logit of those that a slot's token was chosen by, of drafter and
            verifier; NaN or infinite where logits were not finite.
        reference: int64 [B, S], the id to commit at a slot (−1: the verifier's own); `None` without reference ids.
        view: how many slots the next block looks at (on the host).
        sampling, seed, vocab_size: the same for all rows.
    """

    ids: Tensor
    pos: Tensor
    start: Tensor
    stream: Tensor
    live: Tensor
    peaks: Tensor
    reference: Tensor | None
    view: int
    sampling: SamplingParams
    seed: int
    vocab_size: int

    @classmethod
    def empty(
        cls,
        size: int,
        slots: int,
        device: torch.device,
        *,
        sampling: SamplingParams,
        seed: int,
        vocab_size: int,
        forced: bool,
    ) -> Batch:
        """`size` rows without a request, of `slots` slots each; `forced`: reference ids will be committed."""
        ids = torch.zeros(size, slots, dtype=torch.long, device=device)
        pos, start, stream = (torch.ones(size, dtype=torch.long, device=device) for _ in range(3))
        reference = torch.full_like(ids, -1) if forced else None
        peaks = torch.zeros(size, slots, 2, device=device)
        return cls(ids, pos, start, stream, torch.zeros_like(pos), peaks, reference, slots, sampling, seed, vocab_size)

    def place(self, row: int, request: Request, reference: Sequence[int] | None) -> None:
        """Give a row to a request, up to its prompt's last token; `reference` are the ids to commit."""
        length = len(request.ids)
        self.ids[row, :length] = torch.tensor(request.ids)
        self.pos[row], self.start[row], self.stream[row], self.live[row] = length - 1, length, request.stream, 1
        self.peaks[row] = 0
        if self.reference is not None and reference is not None:
            self.reference[row] = -1
            self.reference[row, length : length + len(reference)] = torch.tensor(reference)

    def clear(self) -> None:
        """Free all rows."""
        self.pos.fill_(1)
        self.live.zero_()

    def free(self, row: int) -> None:
        """Take a row from its request; its passes go on at a slot that nothing reads."""
        self.pos[row], self.live[row] = 1, 0

    def last(self) -> Tensor:
        """The last committed token of every row: [B, 1]."""
        return self.ids.gather(1, self.pos[:, None])

    def after(self, count: int) -> Tensor:
        """The next `count` slots of every row: [B, count]."""
        return self.pos[:, None] + torch.arange(1, count + 1, device=self.pos.device)

    def keys(self, slots: Tensor, purpose: Purpose) -> Tensor:
        """Random bits for slots [B, n], by output position (the first output token is position 1)."""
        position = slots - self.start[:, None] + 1
        return keys(self.seed, self.stream[:, None].expand_as(position), position, purpose)

    def forced(self, slots: Tensor, tokens: Tensor) -> Tensor:
        """`tokens` [B, n] for slots [B, n], replaced by the reference ids where there are any."""
        if self.reference is None:
            return tokens
        reference = self.reference.gather(1, slots)
        return torch.where(reference >= 0, reference, tokens)

    def choose(self, whose: int, slots: Tensor, scores: Tensor) -> Tensor:
        """The likeliest ids [B, n] for slots [B, n] by scores [B, n, V]: the first maximum, noted in `peaks`."""
        peak, ids = scores.max(-1)
        self.note(whose, slots, peak)
        return ids

    def note(self, whose: int, slots: Tensor, peak: Tensor) -> None:
        """Keep the greatest score [B, n] of slots [B, n]; `whose` is `DRAFTER` or `VERIFIER`."""
        self.peaks.select(2, whose).scatter_(1, slots, peak.float())

    def finite(self, count: int) -> Tensor:
        """How far the scores of the next `count` slots are finite: int64 [B, 1].

        They are counted slot by slot, in each the drafter's and then the verifier's, up to the first that is not.
        """
        slots = self.after(count)[:, :, None].expand(-1, -1, 2)
        return finite(self.peaks.gather(1, slots)).flatten(1).long().cumprod(1).sum(1, keepdim=True)

    def append(self, tokens: Tensor, count: Tensor) -> None:
        """Write tokens [B, n] after `pos`, and move on by the `count` [B] of them that are committed."""
        self.ids.scatter_(1, self.after(tokens.shape[1]), tokens)
        self.pos += count * self.live

    def row(self, row: int) -> Batch:
        """This batch narrowed to one row; its tensors are views."""
        one = slice(row, row + 1)
        reference = None if self.reference is None else self.reference[one]
        return Batch(
            self.ids[one], self.pos[one], self.start[one], self.stream[one], self.live[one], self.peaks[one],
            reference, self.view, self.sampling, self.seed, self.vocab_size,
        )  # fmt: skip
