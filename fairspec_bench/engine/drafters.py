"""The drafters: a causal model, prompt lookup, the oracle, and the table by which any kind is found.

A drafter is one entry in `DRAFTERS`; `drafting` says what it must offer. Knows ids and models; knows nothing of
acceptance.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from fairspec_bench.engine.backends import Steps
from fairspec_bench.engine.batch import Batch, Request
from fairspec_bench.engine.drafting import (
    FILE,
    CertainReading,
    Draft,
    Drafter,
    Guess,
    References,
    certain,
    of_group,
    pick,
    read_drafter_file,
)
from fairspec_bench.engine.forced import Forced
from fairspec_bench.engine.model import Model, Rows, check_vocabulary, load_model
from fairspec_bench.engine.ngram import NgramDrafter, load_tables
from fairspec_bench.engine.noise import Purpose, keys, uniform
from fairspec_bench.engine.rule import fit_vocabulary
from fairspec_bench.hub import locate
from fairspec_bench.records import FairspecError, Record

# --------------------------------------------------------------------------- a causal language model

COOLEST, HOTTEST = 0.01, 100.0
Temperature = Annotated[float, Field(ge=COOLEST, le=HOTTEST)]


class ModelFile(Record):
    """`fairspec_drafter.json` beside a model's weights: its own temperature for each group."""

    kind: Literal["model"]
    temperatures: dict[str, Temperature]


@dataclass(frozen=True)
class ModelDrafter:
    """A smaller causal model of the same vocabulary, its logits divided by a temperature of its own: that is q.

    The decoding rule then applies to q as it does to p: at its own temperature 1 the rule's alone is left, and under
    the greedy rule its own means nothing. `temperatures` gives it by group, `temperature` for every other group.
    """

    model: Model
    verifier: Model
    temperature: float = 1.0
    temperatures: Mapping[str, float] = field(default_factory=dict)
    kind: str = field(default="model", init=False)
    proper: bool = field(default=True, init=False)
    fixed: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_vocabulary(self.verifier, self.model)
        if not COOLEST <= self.temperature <= HOTTEST:
            raise FairspecError(f"drafter option temperature={self.temperature}: must be from {COOLEST} to {HOTTEST}.")

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def identity(self) -> str:
        if not self.temperatures:
            return self.model.identity
        text = json.dumps(sorted(self.temperatures.items()))
        return f"{self.model.identity}+temperatures-sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def own_temperature(self, group: str) -> float:
        """What divides the logits of prompts of a group."""
        found = of_group(self.temperatures, group)
        return self.temperature if found is None else found

    def begin(self, batch: int, max_len: int) -> _ModelDrafting:
        ones = torch.ones(batch, 1, 1, device=self.model.device)
        return _ModelDrafting(self, self.model.rows(batch, max_len), ones)

    def read(self, requests: Sequence[Request], texts: Sequence[Sequence[int]], seed: int) -> _ModelReading:
        warmth = [self.own_temperature(request.group) for request in requests]
        return _ModelReading(
            Forced(self.model, [request.ids for request in requests], texts),
            torch.tensor(warmth, device=self.model.device)[:, None, None],
            self.verifier.vocab_size,
        )


@dataclass
class _ModelDrafting:
    """`warmth` [B, 1, 1] is each row's own temperature."""

    drafter: ModelDrafter
    rows: Rows
    warmth: Tensor

    def prefill(self, row: int, request: Request, seed: int, text: Sequence[int] | None) -> None:
        self.rows.prefill(row, request.ids)
        self.warmth[row] = self.drafter.own_temperature(request.group)

    def propose(self, batch: Batch, gamma: int, steps: Steps) -> Draft:
        token, log_q, last = steps.run("draft_first", first_draft, batch, self.rows, self.warmth)
        ids, log_qs = [token], [log_q]
        for _ in range(gamma - 1):
            token, log_q, last = steps.run("draft_next", next_draft, batch, self.rows, self.warmth, token, last)
            ids.append(token)
            log_qs.append(log_q)
        return Draft(torch.cat(ids, dim=1), None if batch.rule.greedy else torch.cat(log_qs, dim=1))


def first_draft(batch: Batch, rows: Rows, slot: Tensor, warmth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first draft of a block: its token [B, 1], log q [B, 1, V] and slot [B]."""
    # Two tokens: after a fully accepted block the drafter has not yet seen the last draft. Always two, so that shapes
    # never change.
    pair = torch.stack([batch.pos - 1, batch.pos], dim=1)
    logits = rows.forward(batch.ids.gather(1, pair), batch.pos - 1, slot, keep=1)
    return _drafted(batch, batch.pos + 1, logits, warmth)


def next_draft(
    batch: Batch, rows: Rows, slot: Tensor, warmth: Tensor, token: Tensor, last: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The draft after `token` [B, 1] in slot `last` [B], likewise."""
    return _drafted(batch, last + 1, rows.forward(token, last, slot, keep=1), warmth)


def _drafted(batch: Batch, last: Tensor, logits: Tensor, warmth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits = fit_vocabulary(logits, batch.vocab_size)
    # Division may round two logits to one, which must not move the argmax.
    return *pick(batch, last[:, None], logits if batch.rule.greedy else logits / warmth), last


@dataclass(frozen=True)
class _ModelReading:
    forced: Forced
    warmth: Tensor
    vocab_size: int

    def piece(self, first: int, last: int) -> Guess:
        logits = fit_vocabulary(self.forced.piece(first, last), self.vocab_size)
        return Guess(logits.argmax(-1), logits / self.warmth)


# --------------------------------------------------------------------------- prompt lookup


@dataclass(frozen=True)
class LookupDrafter:
    """Prompt lookup: what followed the latest earlier occurrence of the longest suffix of at most `max_ngram` tokens.

    Looked up anew for every draft, the drafts before it included; with no match the last token is repeated.
    """

    max_ngram: int = 3
    kind: str = field(default="lookup", init=False)
    name: str = field(default="lookup", init=False)
    identity: None = field(default=None, init=False)
    proper: bool = field(default=False, init=False)
    fixed: bool = field(default=True, init=False)
    model: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.max_ngram <= 16:
            raise FairspecError(f"drafter option max_ngram={self.max_ngram}: must be a whole number from 1 to 16.")

    def begin(self, batch: int, max_len: int) -> _LookupDrafting:
        return _LookupDrafting(self.max_ngram)

    def read(self, requests: Sequence[Request], texts: Sequence[Sequence[int]], seed: int) -> CertainReading:
        drafts = [self.proposals(request, ids) for request, ids in zip(requests, texts, strict=True)]
        return certain(drafts)

    def proposals(self, request: Request, ids: Sequence[int]) -> list[int]:
        """Its draft for each output position 2…N of the text `ids`, given the text before it."""
        tokens = torch.tensor([[*request.ids, *ids]])
        last = range(len(request.ids), tokens.shape[1] - 1)
        return [int(lookup(tokens[:, : pos + 1], torch.tensor([pos]), self.max_ngram)) for pos in last]


@dataclass
class _LookupDrafting:
    max_ngram: int

    def prefill(self, row: int, request: Request, seed: int, text: Sequence[int] | None) -> None:
        pass

    def propose(self, batch: Batch, gamma: int, steps: Steps) -> Draft:
        tokens = batch.ids[:, : batch.view].clone()
        for i in range(gamma):
            token = lookup(tokens, batch.pos + i, self.max_ngram)
            tokens.scatter_(1, batch.pos[:, None] + i + 1, token[:, None])
            steps.lap("draft_next" if i else "draft_first")
        return Draft(tokens.gather(1, batch.after(gamma)), None)


def lookup(ids: Tensor, pos: Tensor, max_ngram: int) -> Tensor:
    """The token after the latest, longest earlier match of the suffix that ends at `pos` [B] in `ids` [B, S]; → [B]."""
    slot = torch.arange(ids.shape[1], device=ids.device)
    run = slot < pos[:, None]
    length = torch.zeros_like(ids)
    for back in range(max_ngram):
        wanted = ids.gather(1, (pos[:, None] - back).clamp_min(0))
        run = run & (ids.roll(back, dims=1) == wanted) & (slot >= back)
        length += run
    best = (length * ids.shape[1] + slot).masked_fill(length == 0, -1).max(dim=1)
    source = torch.where(best.values >= 0, best.indices + 1, pos)
    return ids.gather(1, source[:, None]).squeeze(1)


# --------------------------------------------------------------------------- the oracle


@dataclass(frozen=True)
class OracleDrafter:
    """Proposes the reference token with probability `acceptance`, else a wrong one: greedy acceptance as set.

    Needs the reference texts: those that decoding commits, or its own `reference`. With a `payer` it runs that
    drafter's forward passes and discards them, so that cost is real where acceptance is simulated.
    """

    acceptance: float
    verifier: Model
    payer: ModelDrafter | None = None
    reference: References | None = None
    kind: str = field(default="oracle", init=False)
    proper: bool = field(default=False, init=False)
    fixed: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.acceptance <= 1:
            raise FairspecError(f"drafter option acceptance={self.acceptance}: must be from 0 to 1.")

    @property
    def name(self) -> str:
        return f"oracle({self.acceptance:g})"

    @property
    def identity(self) -> str | None:
        return self.payer.identity if self.payer else None

    @property
    def model(self) -> Model | None:
        return self.payer.model if self.payer else None

    def begin(self, batch: int, max_len: int) -> _OracleDrafting:
        table = torch.zeros(batch, max_len, dtype=torch.long, device=self.verifier.device)
        return _OracleDrafting(self, table, self.payer.begin(batch, max_len) if self.payer else None)

    def read(self, requests: Sequence[Request], texts: Sequence[Sequence[int]], seed: int) -> CertainReading:
        drafts = [self.proposals(request, ids, seed) for request, ids in zip(requests, texts, strict=True)]
        return certain(drafts)

    def proposals(self, request: Request, ids: Sequence[int], seed: int) -> list[int]:
        """Its draft for each output position 2…N of the text `ids`."""
        position = torch.arange(2, len(ids) + 1)
        hit = uniform(keys(seed, torch.full_like(position, request.stream), position, Purpose.ORACLE)) < self.acceptance
        text = torch.tensor(ids)[1:]
        return torch.where(hit, text, (text + 1) % self.verifier.vocab_size).tolist()


@dataclass
class _OracleDrafting:
    drafter: OracleDrafter
    table: Tensor
    payer: _ModelDrafting | None

    def prefill(self, row: int, request: Request, seed: int, text: Sequence[int] | None) -> None:
        known = (self.drafter.reference or {}).get(request.key) if text is None else text
        if known is None:
            raise FairspecError("the oracle drafter needs reference texts: make them first (replay and race do).")
        drafts = self.drafter.proposals(request, known, seed)
        first = len(request.ids) + 1
        self.table[row] = 0
        self.table[row, first : first + len(drafts)] = torch.tensor(drafts, dtype=torch.long, device=self.table.device)
        if self.payer:
            self.payer.prefill(row, request, seed, text)

    def propose(self, batch: Batch, gamma: int, steps: Steps) -> Draft:
        if self.payer:
            self.payer.propose(batch, gamma, steps)
        return Draft(self.table.gather(1, batch.after(gamma)), None)


# --------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Wanted:
    """A drafter as asked for: `source` is the folder or Hub name, `name` what reports call it."""

    kind: str
    source: str
    name: str
    options: Mapping[str, Any]
    revision: str | None
    dtype: str
    device: str

    def model(self, options: Mapping[str, Any] | None = None) -> Model:
        """The model that lies at the source."""
        loaded = load_model(self.source, revision=self.revision, dtype=self.dtype, device=self.device, options=options)
        return replace(loaded, name=self.name)

    def known(self, **types: Callable[[Any], Any]) -> dict[str, Any]:
        """The options given, each made of its type. Raises `FairspecError` for others."""
        try:
            return {name: types[name](value) for name, value in self.options.items()}
        except KeyError as error:
            known = f"Known: {', '.join(types)}" if types else "It has none"
            raise FairspecError(f"drafter {self.kind}: unknown option {error}. {known}.") from None
        except (TypeError, ValueError) as error:
            raise FairspecError(f"drafter {self.kind}: {error}.") from None


def _model(wanted: Wanted, verifier: Model) -> ModelDrafter:
    own = {name: value for name, value in wanted.options.items() if name == "temperature"}
    given = replace(wanted, options=own).known(temperature=float)
    folder = locate(wanted.source, wanted.revision).folder
    temperatures = read_drafter_file(folder, ModelFile).temperatures if (folder / FILE).is_file() else {}
    model = wanted.model({name: value for name, value in wanted.options.items() if name not in own})
    return ModelDrafter(model, verifier, temperatures=temperatures, **given)


def _lookup(wanted: Wanted, verifier: Model) -> LookupDrafter:
    return LookupDrafter(**wanted.known(max_ngram=int))


def _oracle(wanted: Wanted, verifier: Model) -> OracleDrafter:
    given = {"acceptance": 0.8} | wanted.known(acceptance=float)
    payer = None if wanted.source in ("", "oracle") else ModelDrafter(wanted.model(), verifier)
    return OracleDrafter(verifier=verifier, payer=payer, **given)


def _ngram(wanted: Wanted, verifier: Model) -> NgramDrafter:
    wanted.known()
    return NgramDrafter(load_tables(wanted.source, name=wanted.name, device=wanted.device), verifier)


class Value(NamedTuple):
    """The option that a value after a colon sets on the command line (`oracle:0.8`), how it is read, an example."""

    option: str
    read: Callable[[str], int | float]
    example: str


class Kind(NamedTuple):
    """How a kind of drafter is loaded. With a `value` it is asked for by its name, else by the folder it lies in."""

    load: Callable[[Wanted, Model], Drafter]
    value: Value | None = None


DRAFTERS: Mapping[str, Kind] = {
    "model": Kind(_model),
    "ngram": Kind(_ngram),
    "lookup": Kind(_lookup, Value("max_ngram", int, "3")),
    "oracle": Kind(_oracle, Value("acceptance", float, "0.8")),
}


def load_drafter(
    kind: str,
    source: str,
    options: Mapping[str, Any] | None,
    verifier: Model,
    *,
    name: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> Drafter:
    """The drafter `kind` (an entry of `DRAFTERS`) for this verifier, called `name` in reports. Raises `FairspecError`.

    `model`: `source` is a folder or Hub name; options `temperature` (1: what divides its logits, for groups that its
    `fairspec_drafter.json` does not name) and `attention`. `ngram`: `source` is a folder of tables. `lookup`: option
    `max_ngram` (3). `oracle`: option `acceptance` (.8); `source` the model whose forward passes it pays, or `oracle`
    for none.
    """
    if kind not in DRAFTERS:
        raise FairspecError(f"unknown drafter kind {kind!r}. Known: {', '.join(DRAFTERS)}.")
    return DRAFTERS[kind].load(
        Wanted(kind, source, name or source, dict(options or {}), revision, dtype, device), verifier
    )
