"""What is asked: a prompt as text, and as ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from fairspec_bench.schemas.base import Record, Sha256

StopCheck = Callable[[Sequence[int]], int | None]
"""Output ids so far → how many of them to keep if a stop string is complete, else `None`."""


class Message(Record):
    """One turn of a chat prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Record):
    """One question of one task. `key` is `suite/language/number`; `cluster` the problem shared with other languages."""

    key: str
    cluster: str
    suite: str
    language: str
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    target: str | None = None
    stops: tuple[str, ...] = ()
    max_new_tokens: int = Field(gt=0)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("exactly one of text and messages must be given")
        return self


class Encoded(Record):
    """A prompt as ids. `group` is opaque to the engine; `sha` is `ids_sha256(ids)`.

    Its first `shared` ids are those of the other prompts of its group too (exemplars), to be prefilled once for all.
    """

    key: str
    group: str
    ids: tuple[int, ...] = Field(min_length=1)
    sha: Sha256
    max_new_tokens: int = Field(gt=0)
    shared: int = Field(default=0, ge=0)
