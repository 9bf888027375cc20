"""Teacher-forced passes over examples: final hidden states at every context, and logits from them in pieces.

Logits of a large vocabulary are never held for a whole batch: hidden states
are, a hundredth of their size, and the head runs on pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from fairspec_bench.engine.finite import HINT, NOT_FINITE, finite, not_finite
from fairspec_bench.engine.sampling import fit_vocabulary
from fairspec_bench.mitigation.corpus import Corpus, Example
from fairspec_bench.mitigation.losses import Loss
from fairspec_bench.schemas.base import FairspecError

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
    if not bool(finite(want.amax(-1)).all()):
        raise FairspecError(f"{name}: the logits of its first ids are {NOT_FINITE}. {HINT}")
    if not torch.allclose(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max())):
        raise FairspecError(f"{name}: its logits are post-processed, not supported here. Choose another.")


def logits_of(hf: PreTrainedModel, hidden: Tensor) -> Tensor:
    """[..., H] → [..., V] in the model's dtype."""
    return hf.get_output_embeddings()(hidden)


def hidden_at_contexts(hf: PreTrainedModel, examples: Sequence[Example]) -> Tensor:
    """Final hidden states [Σ contexts, H] at every context of the examples, in their order."""
    longest = max(len(example.prompt) + len(example.output) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    wanted = torch.zeros(len(examples), longest, dtype=torch.bool)
    for row, example in enumerate(examples):
        tokens = (*example.prompt, *example.output)
        ids[row, : len(tokens)] = torch.tensor(tokens)
        # Having read output token j the model predicts j + 1: the first is the prefill's, the last predicts nothing.
        wanted[row, len(example.prompt) : len(tokens) - 1] = True
    # Padding stands to the right, where no wanted position sees it.
    return _hidden(hf, ids.to(hf.device))[wanted.to(hf.device)]


def _hidden(hf: PreTrainedModel, ids: Tensor) -> Tensor:
    return hf.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state


def targets(examples: Sequence[Example]) -> Tensor:
    """The verifier's token at every context, [Σ contexts] int64."""
    return torch.tensor([token for example in examples for token in example.output[1:]], dtype=torch.long)


def passes(examples: Sequence[Example], indices: Iterable[int]) -> Iterator[list[int]]:
    """Indices of examples with a context, in passes of at most `MAX_TOKENS` padded tokens (one example at least)."""
    length = {
        index: len(examples[index].prompt) + len(examples[index].output)
        for index in indices
        if examples[index].contexts
    }
    batch: list[int] = []
    for index in sorted(length, key=lambda i: (length[i], i)):
        if batch and length[index] * (len(batch) + 1) > MAX_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def task_numbers(examples: Sequence[Example], tasks: Sequence[str]) -> Tensor:
    """The number of the task of every context, [Σ contexts] int64."""
    return torch.tensor(
        [tasks.index(example.task) for example in examples for _ in range(example.contexts)], dtype=torch.long
    )


class Teacher:
    """The frozen verifier over a fixed list of examples; hidden states are kept if those of all fit `keep_bytes`.

    They are then made in passes that depend on the list alone: the last bits of a state depend on the batch it is made
    in, and a resumed training must get the same bits.
    """

    def __init__(self, hf: PreTrainedModel, examples: Sequence[Example], keep_bytes: int = KEEP_BYTES):
        self.hf, self.examples = hf, examples
        self.vocabulary, width = hf.get_output_embeddings().weight.shape
        self._kept: dict[int, Tensor] = {}
        self._pass_of: dict[int, list[int]] = {}
        if sum(example.contexts for example in examples) * width * hf.dtype.itemsize <= keep_bytes:
            self._pass_of = {index: part for part in passes(examples, range(len(examples))) for index in part}

    @torch.no_grad()
    def hidden(self, indices: Sequence[int]) -> Tensor:
        """Hidden states [Σ contexts, H] of these examples, in their order, on the model's device."""
        if not self._pass_of:
            return hidden_at_contexts(self.hf, [self.examples[index] for index in indices])
        for index in indices:
            if index not in self._kept:
                self._keep(self._pass_of[index])
        return torch.cat([self._kept[index] for index in indices]).to(self.hf.device)

    def _keep(self, part: Sequence[int]) -> None:
        states = hidden_at_contexts(self.hf, [self.examples[index] for index in part]).cpu()
        lengths = [self.examples[index].contexts for index in part]
        self._kept.update(zip(part, states.split(lengths), strict=True))

    @torch.no_grad()
    def log_probs(self, hidden: Tensor) -> Tensor:
        """log p [C, V] float32 at temperature 1 from hidden states [C, H]."""
        return logits_of(self.hf, hidden).float().log_softmax(-1)


def student_log_probs(hf: PreTrainedModel, hidden: Tensor, vocabulary: int) -> Tensor:
    """log q [C, `vocabulary`] float32 at temperature 1; ids that the drafter lacks have −inf. Gradients flow."""
    return fit_vocabulary(logits_of(hf, hidden).float(), vocabulary).log_softmax(-1)


@dataclass(frozen=True)
class TrainingSetup:
    """What a method works with: the drafter (float32), the verifier over the corpus's two sets of examples.

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


def at_contexts(setup: TrainingSetup, teacher: Teacher, examples: Sequence[int], loss: Loss) -> Tensor:
    """The loss at every context [Σ contexts] of these examples of `teacher`.

    Logits are made in pieces, and made again where gradients need them. Raises `FairspecError` where those of either
    model are not finite.
    """
    student, chosen = setup.student, [teacher.examples[index] for index in examples]
    frozen, y = teacher.hidden(examples), targets(chosen).to(student.device)
    with torch.autocast(student.device.type, dtype=setup.autocast, enabled=setup.autocast is not None):
        hidden = hidden_at_contexts(student, chosen)

        def piece(first: int, hidden: Tensor, frozen: Tensor, y: Tensor) -> Tensor:
            log_p = teacher.log_probs(frozen)
            log_q = student_log_probs(student, hidden, log_p.shape[-1])
            _check_finite(log_p, chosen, first, "the verifier", HINT)
            _check_finite(log_q, chosen, first, "the drafter", f"Choose a smaller --lr. {HINT}")
            return loss(log_p, log_q, y)

        size = max(1, PIECE_BYTES // (4 * teacher.vocabulary))
        if len(hidden) <= size:
            return piece(0, hidden, frozen, y)
        firsts = range(0, len(hidden), size)
        pieces = zip(firsts, hidden.split(size), frozen.split(size), y.split(size), strict=True)
        return torch.cat([checkpoint(piece, *each, use_reentrant=False) for each in pieces])


def _check_finite(log_probs: Tensor, examples: Sequence[Example], first: int, model: str, hint: str) -> None:
    """Raise `FairspecError` where log-probabilities [C, V] of the examples' contexts from `first` on are not finite."""
    bad = ~finite(log_probs.detach().amax(-1))
    if bool(bad.any()):
        contexts = ((example, place) for example in examples for place in range(example.contexts))
        example, place = list(contexts)[first + int(bad.nonzero()[0])]
        raise not_finite(f"{example.task}: {example.key}", place + 2, model, hint)
