"""The token of each id of a tokenizer, and where two tokenizers differ.

A model's embedding may have more ids than its tokenizer: padding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from fairspec_bench.models import hub
from fairspec_bench.schemas.base import FairspecError, Sha256

_SHOWN = 40


@dataclass(frozen=True)
class Tokens:
    """Every token with its id; `added` are those added to the model's own: special tokens and the like."""

    ids: Mapping[str, int]
    added: frozenset[int]

    @property
    def sha256(self) -> Sha256:
        """Hash of the token of every id."""
        tokens = sorted(self.ids.items(), key=lambda item: item[1])
        return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def read_tokens(folder: Path) -> Tokens | None:
    """The tokens of the tokenizer in a folder, `None` without one. Raises `FairspecError` for a damaged one."""
    if not hub.has_tokenizer(folder):
        return None
    file = folder / "tokenizer.json"
    try:
        if file.is_file():
            found = Tokenizer.from_file(str(file))
        else:
            from transformers import AutoTokenizer

            read = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            found = read.backend_tokenizer
    except Exception as error:  # both libraries may raise anything
        raise FairspecError(
            f"{folder}: its tokenizer cannot be read ({hub.one_line(error)}). Fetch it again."
        ) from error
    return Tokens(found.get_vocab(with_added_tokens=True), frozenset(found.get_added_tokens_decoder()))


def difference(one: Tokens, other: Tokens) -> str | None:
    """Where the second tokenizer first differs from the first, `None` where it does not.

    Added tokens that only one has are no difference: to the other they are padding. Nor are those that are only
    `renamed`.
    """
    mine, theirs = by_id(one), by_id(other)
    names = renamed(one, other)
    for number in sorted({*mine, *theirs} - names):
        here, there = mine.get(number), theirs.get(number)
        if here == there:
            continue
        alone = one if there is None else other if here is None else None
        elsewhere = other.ids if there is None else one.ids
        if alone is not None and number in alone.added and (here or there) not in elsewhere:
            continue
        return f"id {number} is {_shown(there)}, not {_shown(here)}"
    return None


def renamed(one: Tokens, other: Tokens) -> frozenset[int]:
    """The ids of tokens that were added to both, under names of which neither is another token of the other.

    Releases of one tokenizer give reserved tokens a name: Llama 3's <|reserved_special_token_2|> is Llama 3.1's
    <|finetune_right_pad_id|>.
    """
    mine, theirs = by_id(one), by_id(other)
    return frozenset(
        number
        for number in one.added & other.added
        if mine[number] != theirs[number] and mine[number] not in other.ids and theirs[number] not in one.ids
    )


def agreement(one: Tokens, other: Tokens) -> str:
    """How many of the ids that either has are the same token in both, in words."""
    ids = {*one.ids.values(), *other.ids.values()}
    same = sum(other.ids.get(token) == number for token, number in one.ids.items())
    return f"{same:,} of {len(ids):,} ids agree"


def renaming(one: Tokens, other: Tokens, ids: frozenset[int]) -> str:
    """The first of the ids that are `renamed`, with both names, and how many more there are."""
    first = min(ids)
    more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    return f"id {first} is {_shown(by_id(other)[first])}, not {_shown(by_id(one)[first])}{more}"


def by_id(tokens: Tokens) -> dict[int, str]:
    """The token of every id."""
    return {number: token for token, number in tokens.ids.items()}


def _shown(token: str | None) -> str:
    return "no token" if token is None else ascii(token[:_SHOWN])
