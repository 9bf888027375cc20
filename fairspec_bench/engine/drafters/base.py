"""What a drafter is: it proposes drafts live, is replayed on finished texts, and may lie in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from fairspec_bench.engine.acceptance import draw
from fairspec_bench.engine.backends.base import StepRunner
from fairspec_bench.engine.batch import DRAFTER, Batch, Request, padded
from fairspec_bench.engine.rng import Purpose, exponential
from fairspec_bench.engine.sampling import log_probs
from fairspec_bench.models.model import Model, load_model
from fairspec_bench.schemas.base import FairspecError, Record
from fairspec_bench.schemas.io import read_record

FILE = "fairspec_drafter.json"
MAX_FILE_BYTES = 2**20

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Draft(NamedTuple):
    """The drafts of a block: `ids` int64 [B, γ], and `log_q` float32 [B, γ, V] under the sampling parameters.

    `log_q` is `None` where the drafts are deterministic, and under greedy decoding.
    """

    ids: Tensor
    log_q: Tensor | None


class DraftOutput(NamedTuple):
    """A drafter's output at T contexts of each of B texts.

    `ids` int64 [B, T] is its likeliest token, on any device. `scores` [B, T, V], of the verifier's V, are logits of q
    before the sampling parameters, its own temperature within them; `None` where the drafts are deterministic.
    """

    ids: Tensor
    scores: Tensor | None

    def of(self, row: int, count: int) -> DraftOutput:
        """One text's first `count` contexts: ids [count], scores [count, V]."""
        return DraftOutput(self.ids[row, :count], None if self.scores is None else self.scores[row, :count])


class DraftSession(Protocol):
    """A drafter decoding one batch."""

    def prefill(self, row: int, request: Request, seed: int, reference: Sequence[int] | None) -> None:
        """A new prompt takes this row; `reference` are the ids that will be committed, where they are given."""

    def propose(self, batch: Batch, gamma: int, steps: StepRunner) -> Draft:
        """γ drafts for the slots after `batch.pos`. Each is closed by `steps.lap("draft_first")` or `"draft_next"`."""


class ReplaySession(Protocol):
    """A drafter on a batch of finished texts."""

    def piece(self, first: int, last: int) -> DraftOutput:
        """Its output at contexts `first`…`last − 1` of every text, given the text before each.

        Context i predicts output position i + 2. Pieces come in order, without gaps; past the end of a text the output
        is undefined.
        """


class Drafter(Protocol):
    """What can be paired with a verifier.

    Its draft at a position must follow from the tokens before it, their group and the randomness of that position
    alone, never from where a block began: so replay on a finished text gives the drafts that live decoding had.
    """

    @property
    def kind(self) -> str:
        """Its entry of `DRAFTER_KINDS`."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def identity(self) -> str | None:
        """The commit or content hash of what it was made from, `None` where kind and options say all."""

    @property
    def model(self) -> Model | None:
        """The model whose forward passes it runs, if any."""

    def begin(self, batch: int, max_len: int) -> DraftSession:
        """Start decoding a batch of rows of `max_len` slots."""

    def read(self, requests: Sequence[Request], texts: Sequence[Sequence[int]], seed: int) -> ReplaySession:
        """Start on the finished outputs `texts` of requests."""


@dataclass(frozen=True)
class DrafterRequest:
    """A drafter to load: `source` is the folder or Hub id, `name` what reports call it."""

    kind: str
    source: str
    name: str
    options: Mapping[str, Any]
    revision: str | None
    dtype: str
    device: str

    def model(self, options: Mapping[str, Any] | None = None) -> Model:
        """The model at the source. Raises `FairspecError`."""
        loaded = load_model(self.source, revision=self.revision, dtype=self.dtype, device=self.device, options=options)
        return replace(loaded, name=self.name)

    def parsed(self, options: Mapping[str, Any], **types: Callable[[Any], Any]) -> dict[str, Any]:
        """Options, each converted to its type. Raises `FairspecError` for an unknown or invalid one."""
        try:
            return {name: types[name](value) for name, value in options.items()}
        except KeyError as error:
            known = f"Known: {', '.join(types)}" if types else "It has none"
            raise FairspecError(f"drafter {self.kind}: unknown option {error}. {known}.") from None
        except (TypeError, ValueError) as error:
            raise FairspecError(f"drafter {self.kind}: {error}.") from None


def pick(batch: Batch, slot: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """A draft for one slot [B, 1] from scores [B, 1, V] of a proper q: ids [B, 1] and log q [B, 1, V].

    Under greedy decoding the first maximum, beside the scores themselves; else a draw from q. Scores that are not
    finite are refused once a draft that they gave is tested.
    """
    if batch.sampling.greedy:
        return batch.choose(DRAFTER, slot, scores), scores
    log_q = log_probs(scores, batch.sampling)
    batch.note(DRAFTER, slot, scores.amax(-1))
    token = draw(log_q, exponential(batch.keys(slot, Purpose.DRAFT), batch.vocab_size))
    return batch.forced(slot, token), log_q


@dataclass(frozen=True)
class DeterministicReplay:
    """The replay of deterministic drafts [B, longest], made beforehand."""

    drafts: Tensor

    def piece(self, first: int, last: int) -> DraftOutput:
        return DraftOutput(self.drafts[:, first:last], None)


def deterministic_replay(drafts: Sequence[Sequence[int]]) -> DeterministicReplay:
    """The replay of given drafts, one list a text."""
    return DeterministicReplay(padded(drafts, max(map(len, drafts)), torch.device("cpu")))


# --------------------------------------------------------------------------- groups and folders


def of_group(table: Mapping[str, T], group: str) -> T | None:
    """A table's entry for a group: by its whole name, else by the part after its last slash, else `None`."""
    return table.get(group, table.get(group.rpartition("/")[2]))


class _Kind(Record):
    model_config = ConfigDict(extra="ignore")

    kind: str


def kind_of(folder: Path) -> str | None:
    """The kind that a folder's `fairspec_drafter.json` names, `None` without one. Raises `FairspecError` if damaged."""
    return read_drafter_file(folder, _Kind).kind if (folder / FILE).is_file() else None


def read_drafter_file(folder: Path, record: type[R]) -> R:
    """A folder's `fairspec_drafter.json`. Raises `FairspecError` for one that is missing, damaged or too large."""
    path = folder / FILE
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise FairspecError(f"{path}: larger than {MAX_FILE_BYTES} bytes. Make the drafter again.")
    return read_record(path, record)
