"""Prompt lookup: the drafts are copied from where the text said the same before (no model)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fairspec_bench.engine.backends.base import StepRunner
from fairspec_bench.engine.batch import Batch, Request
from fairspec_bench.engine.drafters.base import DeterministicReplay, Draft, DrafterRequest, deterministic_replay
from fairspec_bench.engine.drafters.kinds import check_option
from fairspec_bench.models.model import Model


@dataclass(frozen=True)
class LookupDrafter:
    """Proposes what followed the latest earlier occurrence of the longest suffix of at most `max_ngram` tokens.

    Looked up again for every draft, the drafts before it included; with no match the last token is repeated.
    """

    max_ngram: int = 3
    kind: str = field(default="lookup", init=False)
    name: str = field(default="lookup", init=False)
    identity: None = field(default=None, init=False)
    model: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_option(self.kind, self.max_ngram)

    def begin(self, batch: int, max_len: int) -> _LookupSession:
        return _LookupSession(self.max_ngram)

    def read(self, requests: Sequence[Request], texts: Sequence[Sequence[int]], seed: int) -> DeterministicReplay:
        drafts = [self.proposals(request, ids) for request, ids in zip(requests, texts, strict=True)]
        return deterministic_replay(drafts)

    def proposals(self, request: Request, ids: Sequence[int]) -> list[int]:
        """Its draft for each output position 2…N of the text `ids`, given the text before it."""
        tokens = torch.tensor([[*request.ids, *ids]])
        last = range(len(request.ids), tokens.shape[1] - 1)
        return [int(lookup(tokens[:, : pos + 1], torch.tensor([pos]), self.max_ngram)) for pos in last]


@dataclass
class _LookupSession:
    max_ngram: int

    def prefill(self, row: int, request: Request, seed: int, reference: Sequence[int] | None) -> None:
        pass

    def propose(self, batch: Batch, gamma: int, steps: StepRunner) -> Draft:
        tokens = batch.ids[:, : batch.view].clone()
        for i in range(gamma):
            token = lookup(tokens, batch.pos + i, self.max_ngram)
            tokens.scatter_(1, batch.pos[:, None] + i + 1, token[:, None])
            steps.lap("draft_next" if i else "draft_first")
        return Draft(tokens.gather(1, batch.after(gamma)), None)


def lookup(ids: Tensor, pos: Tensor, max_ngram: int) -> Tensor:
    """The token after the latest, longest earlier match of the suffix that ends at `pos` [B] in `ids` [B, S]; → [B]."""
    slot = torch.arange(ids.shape[1], device=ids.device)
    run = slot < pos[:, None]
    length = torch.zeros_like(ids)
    for back in range(max_ngram):
        wanted = ids.gather(1, (pos[:, None] - back).clamp_min(0))
        run = run & (ids.roll(back, dims=1) == wanted) & (slot >= back)
        length += run
    best = (length * ids.shape[1] + slot).masked_fill(length == 0, -1).max(dim=1)
    source = torch.where(best.values >= 0, best.indices + 1, pos)
    return ids.gather(1, source[:, None]).squeeze(1)


def load(request: DrafterRequest, verifier: Model) -> LookupDrafter:
    """Option: `max_ngram` (3)."""
    return LookupDrafter(**request.parsed(request.options, max_ngram=int))
