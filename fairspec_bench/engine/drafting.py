"""What a drafter is: it proposes drafts live, reads finished texts, and may lie in a folder that says its kind.

Knows the two protocols, what passes through them, and the file `fairspec_drafter.json`. Knows no drafter: `drafters`
holds the table of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from fairspec_bench.engine.accept import draw
from fairspec_bench.engine.backends import Steps
from fairspec_bench.engine.batch import Batch, Request, padded
from fairspec_bench.engine.model import Model
from fairspec_bench.engine.noise import Purpose, exponential
from fairspec_bench.engine.rule import log_probs
from fairspec_bench.records import FairspecError, Record, read_record

FILE = "fairspec_drafter.json"
MAX_FILE_BYTES = 2**20

References = Mapping[str, Sequence[int]]
R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Draft(NamedTuple):
    """`ids` [B, γ] int64; `log_q` [B, γ, V] float32 under the rule, `None` where the drafts are certain (or greedy)."""

    ids: Tensor
    log_q: Tensor | None


class Guess(NamedTuple):
    """What a drafter says at T contexts of each of B texts.

    `ids` [B, T] is its likeliest token, on any device. `scores` [B, T, V], of the verifier's V, are logits of q before
    the decoding rule, its own temperature within them; `None` where the drafts are certain.
    """

    ids: Tensor
    scores: Tensor | None

    def of(self, row: int, count: int) -> Guess:
        """One text's first `count` contexts: ids [count], scores [count, V]."""
        return Guess(self.ids[row, :count], None if self.scores is None else self.scores[row, :count])


class Drafting(Protocol):
    """A drafter at work on one batch."""

    def prefill(self, row: int, request: Request, seed: int, text: Sequence[int] | None) -> None:
        """A new prompt takes this row; `text` is what will be committed, where it is known."""

    def propose(self, batch: Batch, gamma: int, steps: Steps) -> Draft:
        """γ drafts for the slots after `batch.pos`."""


class Reading(Protocol):
    """A drafter going through a batch of finished texts."""

    def piece(self, first: int, last: int) -> Guess:
        """What it says at contexts `first`…`last − 1` of every text, given the text before each.

        Context i foresees output position i + 2. Pieces are asked for in order, without gaps; past the end of a text
        anything may come.
        """


class Drafter(Protocol):
    """What can be paired with a verifier. `kind` is its entry in `drafters.DRAFTERS`.

    What it says at a position follows from the tokens before it, their group, and the noise of that position alone,
    never from where a block began: so reading a finished text shows the drafts that live decoding saw.
    """

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str | None:
        """The commit or content hash of what it was made from, `None` where kind and options say all."""

    @property
    def proper(self) -> bool:
        """Has a q over the whole vocabulary, whose KL and overlap mean something: its guesses have scores."""

    @property
    def fixed(self) -> bool:
        """Does the same operations on the same shapes for every block, so that a device can record them."""

    @property
    def model(self) -> Model | None:
        """What runs forward passes, if anything does."""

    def begin(self, batch: int, max_len: int) -> Drafting:
        """Start on a batch of rows of `max_len` slots."""

    def read(self, requests: Sequence[Request], texts: Sequence[Sequence[int]], seed: int) -> Reading:
        """Start on the finished texts of requests."""


def pick(batch: Batch, slot: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """A proper drafter's draft for one slot [B, 1] from scores [B, 1, V]: ids [B, 1] and log q [B, 1, V].

    Under the greedy rule the first maximum, beside the scores themselves; else a draw from q.
    """
    if batch.rule.greedy:
        return scores.argmax(-1), scores
    log_q = log_probs(scores, batch.rule)
    token = draw(log_q, exponential(batch.keys(slot, Purpose.DRAFT), batch.vocab_size))
    return batch.scripted(slot, token), log_q


@dataclass(frozen=True)
class CertainReading:
    """The reading of a drafter that knows all its drafts [B, longest] beforehand."""

    drafts: Tensor

    def piece(self, first: int, last: int) -> Guess:
        return Guess(self.drafts[:, first:last], None)


def certain(drafts: Sequence[Sequence[int]]) -> CertainReading:
    """The reading of given drafts, one list a text."""
    return CertainReading(padded(drafts, max(map(len, drafts)), torch.device("cpu")))


# --------------------------------------------------------------------------- groups and folders


def of_group(table: Mapping[str, T], group: str) -> T | None:
    """What a table has for a group: by its whole name, else by the part after its last slash, else `None`."""
    return table.get(group, table.get(group.rpartition("/")[2]))


class _Kind(Record):
    model_config = ConfigDict(extra="ignore")

    kind: str


def kind_of(folder: Path) -> str | None:
    """The kind of drafter that a folder says it holds, `None` if it says nothing. Raises `FairspecError` if damaged."""
    return read_drafter_file(folder, _Kind).kind if (folder / FILE).is_file() else None


def read_drafter_file(folder: Path, record: type[R]) -> R:
    """A folder's `fairspec_drafter.json`. Raises `FairspecError` for one that is missing, damaged or too large."""
    path = folder / FILE
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise FairspecError(f"{path}: larger than {MAX_FILE_BYTES} bytes. Make the drafter again.")
    return read_record(path, record)
