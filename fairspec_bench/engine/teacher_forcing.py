"""A model over finished texts: the logits at every context, a piece of each text at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fairspec_bench.engine.batch import padded
from fairspec_bench.engine.finite import check_finite
from fairspec_bench.engine.sampling import fit_vocabulary
from fairspec_bench.models.model import Model


class TeacherForcing:
    """A teacher-forced pass over the texts that followed some prompts, both lists of B lists of ids.

    `keys` are the prompts' names in errors, `shared` how many ids each shares with others (`Request`). The token after
    a text's first is output position `position`. Logits are on the model's own vocabulary, or on one of `vocab_size`.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        texts: Sequence[Sequence[int]],
        keys: Sequence[str],
        *,
        shared: Sequence[int] | None = None,
        position: int = 2,
        vocab_size: int | None = None,
    ):
        longest = max(map(len, texts))
        self.text = padded(texts, longest, model.device)
        # Read in the place of what predicts nothing: a token that is read anyway, since a NaN would spoil its row.
        self.tokens = padded(
            [[*ids[:-1], *[ids[0]] * (longest - len(ids) + 1)] for ids in texts], longest, model.device
        )
        self.start = torch.tensor([len(ids) for ids in prompts], device=model.device)
        self.end = max(map(len, prompts))
        self.last_ids = torch.tensor([[ids[-1]] for ids in prompts], device=model.device)
        self.contexts = [len(ids) - 1 for ids in texts]
        self.keys, self.position, self.vocab_size = keys, position, vocab_size
        self.rows = model.rows(len(texts), self.end + longest)
        for row, ids in enumerate(prompts):
            self.rows.prefill(row, ids, shared[row] if shared else 0)

    def before(self) -> Tensor:
        """Logits [B, 1, V] that predict the texts' first tokens; before any piece. Raises as `piece` does.

        The prompts' last tokens are read again: the prefill does not hand them out.
        """
        logits = self.rows.read(self.last_ids, self.start - 1, view=self.end, keep=1)
        return self._checked(logits, -1)

    def piece(self, first: int, last: int) -> Tensor:
        """Logits [B, last − first, V] after tokens `first`…`last − 1` of every text; pieces in order, without gaps.

        Raises `FairspecError` where those that predict a text's token are not finite; past its end they may be.
        """
        tokens = self.tokens[:, first:last]
        return self._checked(self.rows.read(tokens, self.start + first, view=self.end + last, keep=last - first), first)

    def _checked(self, logits: Tensor, first: int) -> Tensor:
        if self.vocab_size is not None:
            logits = fit_vocabulary(logits, self.vocab_size)
        counts = [count - first for count in self.contexts]
        check_finite(logits, counts, self.keys, self.position + first, self.rows.model.name)
        return logits
