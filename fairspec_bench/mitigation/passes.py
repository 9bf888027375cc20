"""Teacher-forced passes over texts: final hidden states at every context, and logits from them in pieces.

Knows models as Transformers gives them. Logits of a large vocabulary are never held for a whole batch: hidden states
are, a hundredth of their size, and the head runs on pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from fairspec_bench.engine.rule import fit_vocabulary
from fairspec_bench.mitigation.corpus import Corpus, Text
from fairspec_bench.mitigation.losses import Loss
from fairspec_bench.records import FairspecError

MAX_TOKENS = 8192
"""Padded tokens of one forward pass."""
KEEP_BYTES = 2**31
PIECE_BYTES = 2**28
"""About how much one float32 tensor of logits may take; a few are alive at once."""


def check_head(hf: PreTrainedModel, name: str) -> None:
    """Raise `FairspecError` where logits are more than the head's product (soft-capping, scaling): unsupported here."""
    ids = torch.arange(8, device=hf.device)[None]
    with torch.no_grad():
        want, got = hf(ids, use_cache=False).logits.float(), logits_of(hf, _hidden(hf, ids)).float()
    if not torch.allclose(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max())):
        raise FairspecError(f"{name}: its logits are post-processed, which mending does not support. Choose another.")


def logits_of(hf: PreTrainedModel, hidden: Tensor) -> Tensor:
    """[..., H] → [..., V] in the model's dtype."""
    return hf.get_output_embeddings()(hidden)


def hidden_at_contexts(hf: PreTrainedModel, texts: Sequence[Text]) -> Tensor:
    """Final hidden states [Σ contexts, H] at every context of the texts, in their order."""
    longest = max(len(text.prompt) + len(text.output) for text in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    wanted = torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, text in enumerate(texts):
        tokens = (*text.prompt, *text.output)
        ids[row, : len(tokens)] = torch.tensor(tokens)
        # Having read output token j the model predicts j + 1: the first is the prefill's, the last predicts nothing.
        wanted[row, len(text.prompt) : len(tokens) - 1] = True
    # Padding stands to the right, where no wanted position sees it.
    return _hidden(hf, ids.to(hf.device))[wanted.to(hf.device)]


def _hidden(hf: PreTrainedModel, ids: Tensor) -> Tensor:
    return hf.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state


def targets(texts: Sequence[Text]) -> Tensor:
    """The verifier's token at every context, [Σ contexts] int64."""
    return torch.tensor([token for text in texts for token in text.output[1:]], dtype=torch.long)


def passes(texts: Sequence[Text], indices: Iterable[int]) -> Iterator[list[int]]:
    """Indices of texts with a context, cut into passes of at most `MAX_TOKENS` padded tokens (one text at least)."""
    length = {index: len(texts[index].prompt) + len(texts[index].output) for index in indices if texts[index].contexts}
    batch: list[int] = []
    for index in sorted(length, key=lambda i: (length[i], i)):
        if batch and length[index] * (len(batch) + 1) > MAX_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def task_numbers(texts: Sequence[Text], tasks: Sequence[str]) -> Tensor:
    """The number of the task of every context, [Σ contexts] int64."""
    return torch.tensor([tasks.index(text.task) for text in texts for _ in range(text.contexts)], dtype=torch.long)


class Teacher:
    """The frozen verifier over a fixed list of texts. Hidden states are kept if those of all texts fit `keep_bytes`.

    They are then made in passes that depend on the list alone: the last bits of a state depend on the batch it is made
    in, and a stopped training must go on with the very same ones.
    """

    def __init__(self, hf: PreTrainedModel, texts: Sequence[Text], keep_bytes: int = KEEP_BYTES):
        self.hf, self.texts = hf, texts
        self.vocabulary, width = hf.get_output_embeddings().weight.shape
        self._kept: dict[int, Tensor] = {}
        self._pass_of: dict[int, list[int]] = {}
        if sum(text.contexts for text in texts) * width * hf.dtype.itemsize <= keep_bytes:
            self._pass_of = {index: part for part in passes(texts, range(len(texts))) for index in part}

    @torch.no_grad()
    def hidden(self, indices: Sequence[int]) -> Tensor:
        """Hidden states [Σ contexts, H] of these texts, in their order, on the model's device."""
        if not self._pass_of:
            return hidden_at_contexts(self.hf, [self.texts[index] for index in indices])
        for index in indices:
            if index not in self._kept:
                self._keep(self._pass_of[index])
        return torch.cat([self._kept[index] for index in indices]).to(self.hf.device)

    def _keep(self, part: Sequence[int]) -> None:
        states = hidden_at_contexts(self.hf, [self.texts[index] for index in part]).cpu()
        lengths = [self.texts[index].contexts for index in part]
        self._kept.update(zip(part, states.split(lengths), strict=True))

    @torch.no_grad()
    def log_probs(self, hidden: Tensor) -> Tensor:
        """log p [C, V] float32 at temperature 1 from hidden states [C, H]."""
        return logits_of(self.hf, hidden).float().log_softmax(-1)


def student_log_probs(hf: PreTrainedModel, hidden: Tensor, vocabulary: int) -> Tensor:
    """log q [C, `vocabulary`] float32 at temperature 1; ids that the drafter lacks have −inf. Gradients flow."""
    return fit_vocabulary(logits_of(hf, hidden).float(), vocabulary).log_softmax(-1)


@dataclass(frozen=True)
class Trainee:
    """What a method works on: the drafter (float32) and the verifier over the corpus's two sets of texts.

    `autocast`: the dtype in which the drafter's passes run, `None` for its own.
    """

    student: PreTrainedModel
    train: Teacher
    held_out: Teacher
    corpus: Corpus
    autocast: torch.dtype | None = None

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What moves."""
        return [parameter for parameter in self.student.parameters() if parameter.requires_grad]


def at_contexts(trainee: Trainee, teacher: Teacher, texts: Sequence[int], loss: Loss) -> Tensor:
    """The loss at every context [Σ contexts] of these texts of `teacher`.

    Logits are made in pieces, and made again where gradients need them.
    """
    student, chosen = trainee.student, [teacher.texts[index] for index in texts]
    frozen, y = teacher.hidden(texts), targets(chosen).to(student.device)
    with torch.autocast(student.device.type, dtype=trainee.autocast, enabled=trainee.autocast is not None):
        hidden = hidden_at_contexts(student, chosen)

        def piece(hidden: Tensor, frozen: Tensor, y: Tensor) -> Tensor:
            log_p = teacher.log_probs(frozen)
            return loss(log_p, student_log_probs(student, hidden, log_p.shape[-1]), y)

        size = max(1, PIECE_BYTES // (4 * teacher.vocabulary))
        pieces = zip(hidden.split(size), frozen.split(size), y.split(size), strict=True)
        if len(hidden) <= size:
            return piece(hidden, frozen, y)
        return torch.cat([checkpoint(piece, *each, use_reentrant=False) for each in pieces])
