"""Trains a small byte-level BPE tokenizer.

Digits are single tokens (so that arithmetic has one form) and combining marks stay with their letters (the usual
GPT-2 pattern splits Indic words at every vowel sign). Any text round-trips, through bytes where need be.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"
PAD_ID, EOS_ID = 0, 1
_PIECES = r"[0-9]| ?[\p{L}\p{M}]+|\s+| ?[^\s\p{L}\p{M}0-9]+"


def train_tokenizer(texts: Iterable[str], vocabulary: int, positions: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocabulary` entries, `<pad>` = 0 and `<eos>` = 1 among them, for models of `positions` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )
