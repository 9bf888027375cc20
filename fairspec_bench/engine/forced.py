"""A model run over finished texts: the logits at every context, a piece of each text at a time.

Knows a model, prompts and texts as ids. Knows no drafter and no rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fairspec_bench.engine.batch import padded
from fairspec_bench.engine.model import Model


class Forced:
    """A teacher-forced pass over the texts that followed some prompts, both lists of B lists of ids."""

    def __init__(self, model: Model, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]):
        longest = max(map(len, texts))
        self.text = padded(texts, longest, model.device)
        self.start = torch.tensor([len(ids) for ids in prompts], device=model.device)
        self.end = max(map(len, prompts))
        self.rows = model.rows(len(texts), self.end + longest)
        for row, ids in enumerate(prompts):
            self.rows.prefill(row, ids)

    def piece(self, first: int, last: int) -> Tensor:
        """Logits [B, last − first, V] after tokens `first`…`last − 1` of every text; pieces in order, without gaps."""
        tokens = self.text[:, first:last]
        return self.rows.read(tokens, self.start + first, view=self.end + last, keep=last - first)
