"""Tokenizers compared by what they hold: the first difference is told; padding and added tokens do not count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from saved_models import refusal, saved
from tiny_models import family
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, WordLevel

from fairspec_bench.models.model import Model, check_vocabulary, load_model, wrap
from fairspec_bench.models.vocabulary import difference, read_tokens
from fairspec_bench.schemas.base import FairspecError

WORDS = [f"w{i}" for i in range(60)]
Put = Callable[..., Model]


def tokenizer(folder: Path, words: list[str], added: list[str] | None = None) -> None:
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    made.add_special_tokens([AddedToken(word, special=True) for word in added or []])
    made.save(str(folder / "tokenizer.json"))


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """A model of some vocabulary in a folder of its own."""

    def make(name: str, words: list[str], added: list[str] | None = None, size: int = 64) -> Model:
        folder = saved(tmp_path / name, family("llama", vocab_size=size))
        tokenizer(folder, words, added)
        return load_model(str(folder))

    return make


def test_what_is_the_same_is_let_through(put: Put) -> None:
    model = put("one", WORDS, ["<end>", "<pad>"])
    for other in (
        put("same", WORDS, ["<end>", "<pad>"]),
        put("padded", WORDS, ["<end>", "<pad>"], size=72),
        put("one added less", WORDS, ["<end>"]),
        put("none added", WORDS),
        put("one added more", WORDS, ["<end>", "<pad>", "<image>"], size=72),
    ):
        check_vocabulary(model, other)
        check_vocabulary(other, model)


@pytest.mark.parametrize(
    ("words", "added", "said"),
    [
        ([WORDS[1], WORDS[0], *WORDS[2:]], ["<end>"], "id 0 is 'w1', not 'w0'"),
        (WORDS, ["<stop>"], "id 60 is '<stop>', not '<end>'"),
        (WORDS, ["<pad>", "<end>"], "id 60 is '<pad>', not '<end>'"),
        (WORDS[:50], ["<end>"], "id 50 is '<end>', not 'w50'"),
        (WORDS[:50], None, "id 50 is no token, not 'w50'"),
        ([*WORDS, "w60"], None, "id 60 is 'w60', not '<end>'"),
        ([*WORDS[:9], "new\nline", *WORDS[10:]], ["<end>"], r"id 9 is 'new\nline', not 'w9'"),
        ([*WORDS[:9], "x" * 500, *WORDS[10:]], ["<end>"], f"id 9 is '{'x' * 40}', not 'w9'"),
    ],
)
def test_the_first_difference_is_told(put: Put, words: list[str], added: list[str] | None, said: str) -> None:
    one, other = put("one", WORDS, ["<end>"]), put("other", words, added)
    message = refusal(lambda: check_vocabulary(one, other))
    assert message.startswith(f"{other.name}: its vocabulary is not that of {one.name}: {said}.")
    assert message.endswith("Choose a drafter with the same tokenizer (docs/MODELS.md).")
    assert "same tokenizer" in refusal(lambda: check_vocabulary(other, one))


def test_where_no_tokenizer_is_known_sizes_decide(put: Put) -> None:
    known, bare = put("one", WORDS), wrap(family("llama", vocab_size=64), "bare")
    check_vocabulary(known, bare)
    other = wrap(family("llama", vocab_size=72), "wide")
    assert "its vocabulary (72 ids) is not that of" in refusal(lambda: check_vocabulary(known, other))


def test_the_hash_is_of_tokens_and_ids(put: Put) -> None:
    """As it has been written into tables of n-grams."""
    pairs = [[word, i] for i, word in enumerate(WORDS)]
    assert put("one", WORDS).vocabulary == hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def test_a_tokenizer_of_older_files_is_read_too(tmp_path: Path) -> None:
    """`vocab.json` and `merges.txt`, as GPT-2 and early Qwen models have them."""
    letters = {letter: i for i, letter in enumerate("abcd")} | {"ab": 4, "<|endoftext|>": 5}
    BPE(letters, [("a", "b")]).save(str(tmp_path))
    config = {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    found = read_tokens(tmp_path)
    assert found is not None
    assert found.ids == letters
    one = Tokenizer(BPE(letters, [("a", "b")]))
    (tmp_path / "new").mkdir()
    one.save(str(tmp_path / "new/tokenizer.json"))
    newer = read_tokens(tmp_path / "new")
    assert newer is not None
    assert difference(found, newer) is None
    assert found.sha256 == newer.sha256


def test_a_damaged_tokenizer_is_one_line(tmp_path: Path) -> None:
    saved(tmp_path)
    assert read_tokens(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "trunc')
    assert "its tokenizer cannot be read" in refusal(lambda: load_model(str(tmp_path)))


def test_a_planted_bug_is_seen(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tokenizers that have the same tokens, whatever their ids."""
    monkeypatch.setattr(
        "fairspec_bench.models.model.difference",
        lambda one, other: None if set(one.ids) == set(other.ids) else difference(one, other),
    )
    one, other = put("one", WORDS), put("other", [WORDS[1], WORDS[0], *WORDS[2:]])
    with pytest.raises(pytest.fail.Exception), pytest.raises(FairspecError):
        check_vocabulary(one, other)
