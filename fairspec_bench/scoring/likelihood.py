"""How likely a model finds texts that it did not write: teacher-forced, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fairspec_bench.engine.sampling import log_probs
from fairspec_bench.engine.teacher_forcing import TeacherForcing
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.config import SamplingParams

WORKING_COPIES = 4
"""About how many float32 tensors of the logits' shape are alive at once."""


def target_nats(
    model: Model,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    batch_size: int,
    memory_bytes: int = 2**30,
    keys: Sequence[str] | None = None,
) -> Iterator[float | None]:
    """−ln p(text | prompt) at temperature 1 of each pair of ids (prompt, text); EOS is not asked for.

    `None` for a pair that the model has no positions for, an empty text, or a prompt of a single token. Only the texts'
    contexts have logits, made in pieces such that the work on them stays within about `memory_bytes`. `keys` name the
    pairs in errors. Raises `FairspecError` where logits are not finite.
    """
    fits = [len(prompt) > 1 and len(text) > 0 and not model.refusal(len(prompt), len(text)) for prompt, text in pairs]
    kept = [pair for pair, fit in zip(pairs, fits, strict=True) if fit]
    names = keys or [f"text {number}" for number in range(1, len(pairs) + 1)]
    kept_names = [name for name, fit in zip(names, fits, strict=True) if fit]
    found = (
        value
        for first in range(0, len(kept), batch_size)
        for value in _batch(
            model, kept[first : first + batch_size], kept_names[first : first + batch_size], memory_bytes
        )
    )
    return (next(found) if fit else None for fit in fits)


def _batch(
    model: Model, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], keys: Sequence[str], memory_bytes: int
) -> list[float]:
    # The prompt's last token predicts the text's first, so it stands before the text and not in the prefill.
    prompts, texts = [prompt[:-1] for prompt, _ in pairs], [(prompt[-1], *text) for prompt, text in pairs]
    forced = TeacherForcing(model, prompts, texts, keys, position=1)
    counts = [len(text) for _, text in pairs]
    piece = max(1, memory_bytes // (len(pairs) * model.vocab_size * 4 * WORKING_COPIES))
    nats = [0.0] * len(pairs)
    for first in range(0, max(counts), piece):
        last = min(first + piece, max(counts))
        log_p = log_probs(forced.piece(first, last), SamplingParams(temperature=1.0))
        found = log_p.gather(-1, forced.text[:, first + 1 : last + 1, None]).squeeze(-1).double()
        for row, count in enumerate(counts):
            nats[row] -= float(found[row, : max(0, count - first)].sum())
    return nats
