"""The record every schema is: strict, frozen, finite. And the errors a user can act on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)

Sha256 = str
EMBEDDED = "embedded:"
"""Before `verifier` or `drafter`: a model of the pair that comes with the package."""


class FairspecError(Exception):
    """A failure that the user can correct: its message is one line saying what, where and what to do. Exit status 2."""


class RecordError(FairspecError):
    """A file of records that cannot be trusted: names file, line and field."""


def one_line(error: BaseException) -> str:
    """The first line of an error's message, and the next if the first ends with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def unknown(what: str, name: str, known: Iterable[str]) -> FairspecError:
    """The error for a name that is not among `known`, with the nearest one where there is one."""
    names = list(known)
    near = get_close_matches(name, names, 1)
    return FairspecError(
        f"unknown {what} {name!r}.{f' Did you mean {near[0]}?' if near else ''} Known: {', '.join(names)}."
    )


@dataclass(frozen=True)
class Option:
    """What a declared option adds to its type, constraints and default (`schemas.options`).

    Attributes:
        help: one line for `--help`, the docs' table and the reader of the declaration.
        group: the heading that it stands under.
        recorded: the field of `run.json` that holds it, `None` where it does not decide the lines of a run.
        name: its name in commands and Python, where the field has another one.
        sweep: the field that holds further values: `4,1,2` gives the first to this option and all to the sweep.
        repeat: given several times on the command line, instead of separated by commas.
        choices: its possible values, where its type does not list them.
        argument: positional.
    """

    help: str
    group: str = ""
    recorded: str | None = None
    name: str = ""
    sweep: str = ""
    repeat: bool = False
    choices: tuple[str, ...] = ()
    argument: bool = False


class Record(BaseModel):
    """Strict, frozen, finite: a wrong type, an unknown field, NaN or infinity is an error, never coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class VersionedRecord(Record):
    """A record that gained fields since its first files: a field in `later` is written only where it was set.

    So files from before, and what is derived from them, keep their bytes.
    """

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unset = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in written(self).items() if name not in unset}


class NotebookRecord(Record):
    """A record that a notebook shows as tables. The API sets `notebook_html`, which makes them."""

    notebook_html: ClassVar[Callable[[Any], str] | None] = None

    def _repr_html_(self) -> str | None:
        show = type(self).notebook_html
        return show(self) if show else None


R = TypeVar("R", bound=Record)
