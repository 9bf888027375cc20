"""Models saved to a folder, and the one line with which one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import family
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedModel

from fairspec_bench.schemas.base import FairspecError


def saved(folder: Path, hf: PreTrainedModel | None = None) -> Path:
    (hf or family("llama")).save_pretrained(folder)
    return folder


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(FairspecError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def word_level(folder: Path, words: list[str]) -> None:
    Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0])).save(
        str(folder / "tokenizer.json")
    )
