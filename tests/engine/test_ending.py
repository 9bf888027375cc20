"""An output ends where a reader of one token at a time would end it, however many tokens a block brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fairspec_bench.engine.ending import ending
from fairspec_bench.models.codec import Codec
from fairspec_bench.schemas.prompts import Prompt, StopCheck

TURN, EOS, OTHER_EOS = 256, 257, 258  # after the 256 bytes
STOPS = ("\n\n", "問", "ab", "<|turn|>", "\n問題：")
PIECES = tuple("ab\n答") + STOPS[:3] + ("\n問題", "：", "é")
Ending = Callable[[Sequence[int], int, int, StopCheck | None, frozenset[int]], tuple[int, str | None]]


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    """One token a byte, so that a character of Chinese is three tokens; three special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: id_ for id_, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|end|>", "<|eos|>"]})
    folder = tmp_path_factory.mktemp("bytes")
    tokenizer.save_pretrained(folder)
    return Codec(str(folder))


def output(codec: Codec, pieces: Sequence[str | int]) -> list[int]:
    ids: list[int] = []
    for piece in pieces:
        ids += [piece] if isinstance(piece, int) else codec.tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def check(codec: Codec, stops: Sequence[str]) -> StopCheck | None:
    prompt = Prompt(
        suite="s", language="en", key="s/en/0", cluster="s/0", text="", max_new_tokens=1, stops=tuple(stops)
    )
    return codec.stop_check(prompt)


def one_by_one(
    codec: Codec, ids: Sequence[int], stops: Sequence[str], most: int, eos: frozenset[int]
) -> tuple[int, str | None]:
    """The definition: after each token, is it an end-of-text id, is a stop string there, is it the last allowed?"""
    for n in range(1, len(ids) + 1):
        text = codec.tokenizer.decode(ids[:n], skip_special_tokens=True)
        if ids[n - 1] in eos:
            return n, "eos"
        if any(stop in text for stop in stops) or ("<|turn|>" in stops and ids[n - 1] == TURN):
            return n, "stop"
        if n == most:
            return n, "length"
    return len(ids), None


def in_blocks(
    end: Ending, codec: Codec, ids: Sequence[int], stops: Sequence[str], most: int, eos: frozenset[int],
    blocks: Sequence[int],
) -> tuple[int, str | None]:  # fmt: skip
    """What the decode loop does: the same after every block, which may bring more than the output needs."""
    stop, seen, sizes = check(codec, stops), 0, iter([*blocks, *[len(ids)] * len(ids)])
    while seen < len(ids):
        now = min(len(ids), seen + next(sizes))
        keep, finish = end(ids[:now], seen, most, stop, eos)
        if finish is not None:
            return keep, finish
        seen = now
    return len(ids), None


def agrees(codec: Codec, end: Ending) -> Any:
    @settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(
        pieces=st.lists(st.sampled_from([*PIECES, TURN, EOS, OTHER_EOS]), max_size=12),
        stops=st.lists(st.sampled_from(STOPS), max_size=3, unique=True),
        most=st.integers(1, 40),
        eos=st.sets(st.sampled_from([TURN, EOS, OTHER_EOS])).map(frozenset),
        blocks=st.lists(st.integers(1, 65), max_size=12),
    )
    # The third token of a block of nine is an end-of-text id; what was accepted after it is in no output.
    @example(pieces=["a", "a", EOS, *"aaaaaa"], stops=[], most=40, eos=frozenset({EOS}), blocks=[9])
    # A stop string, the limit and an end-of-text id in one block of six: the stop string comes first.
    @example(pieces=["a", "a", TURN, "a", EOS, "a"], stops=["<|turn|>"], most=5, eos=frozenset({EOS}), blocks=[6])
    # The same token completes the stop string and reaches the limit.
    @example(pieces=["a", "b", "a"], stops=["ab"], most=2, eos=frozenset(), blocks=[3])
    # A stop string at the second of 65 accepted tokens.
    @example(pieces=["ab", *"a" * 63], stops=["ab"], most=40, eos=frozenset(), blocks=[65])
    # One character of three tokens, each in a block of its own.
    @example(pieces=["a", "問", "a"], stops=["問"], most=40, eos=frozenset(), blocks=[1, 1, 1, 1, 1])
    def holds(pieces: list[str | int], stops: list[str], most: int, eos: frozenset[int], blocks: list[int]) -> None:
        ids = output(codec, pieces)
        assert in_blocks(end, codec, ids, stops, most, eos, blocks) == one_by_one(codec, ids, stops, most, eos)

    return holds


def test_blocks_of_any_size_end_where_single_tokens_do(codec: Codec) -> None:
    agrees(codec, ending)()


def _limit_first(ids: Any, new: int, most: int, stop: Any, eos: Any) -> tuple[int, str | None]:
    return (most, "length") if len(ids) >= most else ending(ids, new, most, stop, eos)


def _last_id_only(ids: Any, new: int, most: int, stop: Any, eos: Any) -> tuple[int, str | None]:
    keep, finish = ending(ids, new, most, stop, frozenset())
    return (keep, "eos") if ids[keep - 1] in eos else (keep, finish)


def _new_ids_only(ids: Any, new: int, most: int, stop: Any, eos: Any) -> tuple[int, str | None]:
    return ending(ids, new, most, stop and (lambda now: (n := stop(now[new:])) and n + new), eos)


def _whole_block(ids: Any, new: int, most: int, stop: Any, eos: Any) -> tuple[int, str | None]:
    return ending(ids, new, most, stop and (lambda now: len(now) if stop(now) else None), eos)


@pytest.mark.parametrize("wrong", [_limit_first, _last_id_only, _new_ids_only, _whole_block])
def test_each_planted_fault_is_found(codec: Codec, wrong: Ending) -> None:
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        agrees(codec, wrong)()
