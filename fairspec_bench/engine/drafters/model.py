"""A causal language model as a drafter: q is its softmax, the logits divided by a temperature of the drafter's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from fairspec_bench.engine.backends.base import StepRunner
from fairspec_bench.engine.batch import Batch, Request
from fairspec_bench.engine.drafters.base import (
    FILE,
    Draft,
    DrafterRequest,
    DraftOutput,
    of_group,
    pick,
    read_drafter_file,
)
from fairspec_bench.engine.sampling import fit_vocabulary
from fairspec_bench.engine.teacher_forcing import TeacherForcing
from fairspec_bench.models.hub import locate
from fairspec_bench.models.model import Model, Rows, check_vocabulary, renaming_warning
from fairspec_bench.schemas.base import FairspecError, Record

LOWEST, HIGHEST = 0.01, 100.0
Temperature = Annotated[float, Field(ge=LOWEST, le=HIGHEST)]


class ModelFile(Record):
    """`fairspec_drafter.json` beside a model's weights: its own temperature for each group."""

    kind: Literal["model"]
    temperatures: dict[str, Temperature]


@dataclass(frozen=True)
class ModelDrafter:
    """A smaller causal model of the same vocabulary.

    Its logits are divided by a temperature of its own; then the sampling parameters apply to q as they do to p. Greedy
    drafts do not depend on it. Added tokens that have another name in the verifier are never proposed.

    Attributes:
        temperature: the drafter's own temperature.
        temperatures: the same by group, where it differs from `temperature`.
    """

    model: Model
    verifier: Model
    temperature: float = 1.0
    temperatures: Mapping[str, float] = field(default_factory=dict)
    kind: str = field(default="model", init=False)

    def __post_init__(self) -> None:
        never = check_vocabulary(self.verifier, self.model)
        if never - self.model.never:
            object.__setattr__(self, "model", replace(self.model, never=self.model.never | never))
        if not LOWEST <= self.temperature <= HIGHEST:
            raise FairspecError(f"drafter option temperature={self.temperature}: must be from {LOWEST} to {HIGHEST}.")

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def identity(self) -> str:
        if not self.temperatures:
            return self.model.identity
        text = json.dumps(sorted(self.temperatures.items()))
        return f"{self.model.identity}+temperatures-sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line where added tokens have another name in the verifier."""
        return renaming_warning(self.verifier, self.model, self.model.never)

    def own_temperature(self, group: str) -> float:
        """The temperature for prompts of a group."""
        found = of_group(self.temperatures, group)
        return self.temperature if found is None else found

    def begin(self, batch: int, max_len: int) -> _ModelSession:
        ones = torch.ones(batch, 1, 1, device=self.model.device)
        return _ModelSession(self, self.model.rows(batch, max_len), ones)

    def read(self, requests: Sequence[Request], texts: Sequence[Sequence[int]], seed: int) -> _ModelReplay:
        temperatures = [self.own_temperature(request.group) for request in requests]
        return _ModelReplay(
            TeacherForcing(
                self.model,
                [request.ids for request in requests],
                texts,
                [request.key for request in requests],
                shared=[request.shared for request in requests],
                vocab_size=self.verifier.vocab_size,
            ),
            torch.tensor(temperatures, device=self.model.device)[:, None, None],
        )


@dataclass
class _ModelSession:
    """`temperature` [B, 1, 1] is each row's own."""

    drafter: ModelDrafter
    rows: Rows
    temperature: Tensor

    def prefill(self, row: int, request: Request, seed: int, reference: Sequence[int] | None) -> None:
        self.rows.prefill(row, request.ids, request.shared)
        self.temperature[row] = self.drafter.own_temperature(request.group)

    def propose(self, batch: Batch, gamma: int, steps: StepRunner) -> Draft:
        token, log_q, last = steps.run(first_draft, batch, self.rows, self.temperature)
        steps.lap("draft_first")
        ids, log_qs = [token], [log_q]
        for _ in range(gamma - 1):
            token, log_q, last = steps.run(next_draft, batch, self.rows, self.temperature, token, last)
            steps.lap("draft_next")
            ids.append(token)
            log_qs.append(log_q)
        return Draft(torch.cat(ids, dim=1), None if batch.sampling.greedy else torch.cat(log_qs, dim=1))


def first_draft(batch: Batch, rows: Rows, slot: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first draft of a block: its token [B, 1], log q [B, 1, V] and slot [B]."""
    # Two tokens: where all drafts were accepted, the last one is not in the drafter's cache yet. Always two, so that
    # shapes never change.
    pair = torch.stack([batch.pos - 1, batch.pos], dim=1)
    logits = rows.forward(batch.ids.gather(1, pair), batch.pos - 1, slot, keep=1)
    return _drafted(batch, batch.pos + 1, logits, temperature)


def next_draft(
    batch: Batch, rows: Rows, slot: Tensor, temperature: Tensor, token: Tensor, last: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The draft after `token` [B, 1] in slot `last` [B]; → as `first_draft`."""
    return _drafted(batch, last + 1, rows.forward(token, last, slot, keep=1), temperature)


def _drafted(batch: Batch, last: Tensor, logits: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits = fit_vocabulary(logits, batch.vocab_size)
    # Division may round two logits to one, which must not move the argmax.
    return *pick(batch, last[:, None], logits if batch.sampling.greedy else logits / temperature), last


@dataclass(frozen=True)
class _ModelReplay:
    forced: TeacherForcing
    temperature: Tensor

    def piece(self, first: int, last: int) -> DraftOutput:
        logits = self.forced.piece(first, last)
        return DraftOutput(logits.argmax(-1), logits / self.temperature)


def load(request: DrafterRequest, verifier: Model) -> ModelDrafter:
    """Options: `temperature` (1), and those of a model; `fairspec_drafter.json` may hold temperatures by group."""
    own = {name: value for name, value in request.options.items() if name == "temperature"}
    rest = {name: value for name, value in request.options.items() if name not in own}
    given = request.parsed(own, temperature=float)
    folder = locate(request.source, request.revision).folder
    temperatures = read_drafter_file(folder, ModelFile).temperatures if (folder / FILE).is_file() else {}
    return ModelDrafter(request.model(rest), verifier, temperatures=temperatures, **given)
