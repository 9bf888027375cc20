"""The oracle: its drafts are the reference tokens at a set rate, a calibration of acceptance and speed-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fairspec_bench.engine.backends.base import StepRunner
from fairspec_bench.engine.batch import Batch, Request
from fairspec_bench.engine.drafters.base import (
    DeterministicReplay,
    Draft,
    DrafterRequest,
    DraftSession,
    deterministic_replay,
)
from fairspec_bench.engine.drafters.kinds import check_option
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.queue import ReferenceIds
from fairspec_bench.engine.rng import Purpose, keys, uniform
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.base import FairspecError


@dataclass(frozen=True)
class OracleDrafter:
    """Proposes the reference token with probability `acceptance`, else a wrong one: greedy acceptance as set.

    Attributes:
        acceptance: from 0 to 1.
        verifier: the model that it is paired with.
        payer: a drafter whose forward passes are run and discarded, so that the cost of drafting is real.
        reference: reference ids by key, used where decoding does not commit reference ids itself.
    """

    acceptance: float
    verifier: Model
    payer: ModelDrafter | None = None
    reference: ReferenceIds | None = None
    kind: str = field(default="oracle", init=False)

    def __post_init__(self) -> None:
        check_option(self.kind, self.acceptance)

    @property
    def name(self) -> str:
        return f"oracle({self.acceptance:g})"

    @property
    def identity(self) -> str | None:
        return self.payer.identity if self.payer else None

    @property
    def model(self) -> Model | None:
        return self.payer.model if self.payer else None

    def begin(self, batch: int, max_len: int) -> _OracleSession:
        table = torch.zeros(batch, max_len, dtype=torch.long, device=self.verifier.device)
        return _OracleSession(self, table, self.payer.begin(batch, max_len) if self.payer else None)

    def read(self, requests: Sequence[Request], texts: Sequence[Sequence[int]], seed: int) -> DeterministicReplay:
        drafts = [self.proposals(request, ids, seed) for request, ids in zip(requests, texts, strict=True)]
        return deterministic_replay(drafts)

    def proposals(self, request: Request, ids: Sequence[int], seed: int) -> list[int]:
        """Its draft for each output position 2…N of the text `ids`."""
        position = torch.arange(2, len(ids) + 1)
        hit = uniform(keys(seed, torch.full_like(position, request.stream), position, Purpose.ORACLE)) < self.acceptance
        text = torch.tensor(ids)[1:]
        return torch.where(hit, text, (text + 1) % self.verifier.vocab_size).tolist()


@dataclass
class _OracleSession:
    drafter: OracleDrafter
    table: Tensor
    payer: DraftSession | None

    def prefill(self, row: int, request: Request, seed: int, reference: Sequence[int] | None) -> None:
        ids = (self.drafter.reference or {}).get(request.key) if reference is None else reference
        if ids is None:
            raise FairspecError(f"{request.key}: the oracle drafter needs reference ids. Make the references first.")
        drafts = self.drafter.proposals(request, ids, seed)
        first = len(request.ids) + 1
        self.table[row] = 0
        self.table[row, first : first + len(drafts)] = torch.tensor(drafts, dtype=torch.long, device=self.table.device)
        if self.payer:
            self.payer.prefill(row, request, seed, reference)

    def propose(self, batch: Batch, gamma: int, steps: StepRunner) -> Draft:
        if self.payer:
            self.payer.propose(batch, gamma, steps)
        return Draft(self.table.gather(1, batch.after(gamma)), None)


def load(request: DrafterRequest, verifier: Model) -> OracleDrafter:
    """Option: `acceptance` (0.8). `source` is the model that pays, `oracle` for none."""
    given = {"acceptance": 0.8} | request.parsed(request.options, acceptance=float)
    payer = None if request.source in ("", "oracle") else ModelDrafter(request.model(), verifier)
    return OracleDrafter(verifier=verifier, payer=payer, **given)
