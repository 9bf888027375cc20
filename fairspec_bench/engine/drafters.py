"""Drafters: what proposes γ tokens, live (`begin`, then `propose`) and in replay (`model` or `proposals`).

A drafter is one entry in `DRAFTERS`. What it proposes for a position depends on the tokens before it and on the noise
of that position alone, never on where a block began: so a replay over finished text sees the drafts that live decoding
saw. Knows ids and models; knows nothing of acceptance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fairspec_bench.engine.accept import draw
from fairspec_bench.engine.batch import Batch, Clock, Request
from fairspec_bench.engine.model import Model, Rows, check_vocabulary, load_model
from fairspec_bench.engine.noise import Purpose, exponential, keys, uniform
from fairspec_bench.engine.rule import fit_vocabulary, log_probs
from fairspec_bench.records import FairspecError, Rule

References = Mapping[str, Sequence[int]]


class Draft(NamedTuple):
    """`ids` [B, γ] int64; `log_q` [B, γ, V] float32 under the rule, `None` where the drafts are certain (or greedy)."""

    ids: Tensor
    log_q: Tensor | None


class Drafting(Protocol):
    """A drafter at work on one batch."""

    def prefill(self, row: int, request: Request, seed: int) -> None:
        """A new prompt takes this row."""

    def propose(self, batch: Batch, gamma: int, clock: Clock) -> Draft:
        """γ drafts for the slots after `batch.pos`."""


class Drafter(Protocol):
    """What can be paired with a verifier. `kind` is its entry in `DRAFTERS`."""

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def proper(self) -> bool:
        """Has a q over the whole vocabulary, whose KL and overlap mean something: that of `model`."""

    @property
    def model(self) -> Model | None:
        """What runs forward passes, if anything does."""

    def rule(self, rule: Rule) -> Rule:
        """The rule under which q is taken when p is taken under `rule`."""

    def begin(self, batch: int, max_len: int, reference: References | None) -> Drafting:
        """Start on a batch of rows; `reference` gives the texts to be committed, by key, where they are known."""

    def proposals(self, request: Request, ids: Sequence[int], seed: int) -> list[int]:
        """Without a proper q: its draft for each output position 2…N of the text `ids`, given the text before it."""


# --------------------------------------------------------------------------- a causal language model


@dataclass(frozen=True)
class ModelDrafter:
    """A smaller causal model of the same vocabulary. `temperature`, if set, is its own and belongs to q."""

    model: Model
    verifier: Model
    temperature: float | None = None
    kind: str = field(default="model", init=False)
    proper: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_vocabulary(self.verifier, self.model)
        if self.temperature is not None and not self.temperature > 0:
            raise FairspecError(f"drafter option temperature={self.temperature}: must be greater than 0.")

    @property
    def name(self) -> str:
        return self.model.name

    def rule(self, rule: Rule) -> Rule:
        if self.temperature is None or rule.greedy:
            return rule
        return rule.model_copy(update={"temperature": self.temperature})

    def begin(self, batch: int, max_len: int, reference: References | None) -> _ModelDrafting:
        return _ModelDrafting(self, self.model.rows(batch, max_len))

    def proposals(self, request: Request, ids: Sequence[int], seed: int) -> list[int]:
        raise NotImplementedError("a model's drafts come from its logits")


@dataclass
class _ModelDrafting:
    drafter: ModelDrafter
    rows: Rows

    def prefill(self, row: int, request: Request, seed: int) -> None:
        self.rows.prefill(row, request.ids)

    def propose(self, batch: Batch, gamma: int, clock: Clock) -> Draft:
        # Two tokens first: after a fully accepted block the drafter has not yet seen the last draft. Always two, so
        # that shapes never change.
        slots = batch.after(gamma)
        pair = torch.stack([batch.pos - 1, batch.pos], dim=1)
        logits = self.rows.step(batch.ids.gather(1, pair), batch.pos - 1, view=batch.top + 1, keep=1)
        ids: list[Tensor] = []
        log_qs: list[Tensor] = []
        for i in range(gamma):
            if i > 0:
                logits = self.rows.step(ids[-1], batch.pos + i, view=batch.top + i + 1, keep=1)
            token, log_q = self._pick(batch, slots[:, i : i + 1], logits)
            ids.append(token)
            log_qs.append(log_q)
            clock.lap("draft_next" if i else "draft_first")
        return Draft(torch.cat(ids, dim=1), None if batch.rule.greedy else torch.cat(log_qs, dim=1))

    def _pick(self, batch: Batch, slot: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The draft for one slot [B, 1] and log q (the logits themselves under the greedy rule) [B, 1, V]."""
        logits = fit_vocabulary(logits, batch.vocab_size)
        if batch.rule.greedy:
            return logits.argmax(-1), logits
        log_q = log_probs(logits, self.drafter.rule(batch.rule))
        token = draw(log_q, exponential(batch.keys(slot, Purpose.DRAFT), batch.vocab_size))
        return batch.scripted(slot, token), log_q


# --------------------------------------------------------------------------- prompt lookup


@dataclass(frozen=True)
class NgramDrafter:
    """Prompt lookup: what followed the latest earlier occurrence of the longest suffix of at most `max_ngram` tokens.

    Looked up anew for every draft, the drafts before it included; with no match the last token is repeated.
    """

    max_ngram: int = 3
    kind: str = field(default="ngram", init=False)
    name: str = field(default="ngram", init=False)
    proper: bool = field(default=False, init=False)
    model: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.max_ngram <= 16:
            raise FairspecError(f"drafter option max_ngram={self.max_ngram}: must be a whole number from 1 to 16.")

    def rule(self, rule: Rule) -> Rule:
        return rule

    def begin(self, batch: int, max_len: int, reference: References | None) -> _NgramDrafting:
        return _NgramDrafting(self.max_ngram)

    def proposals(self, request: Request, ids: Sequence[int], seed: int) -> list[int]:
        tokens = torch.tensor([[*request.ids, *ids]])
        last = range(len(request.ids), tokens.shape[1] - 1)
        return [int(lookup(tokens[:, : pos + 1], torch.tensor([pos]), self.max_ngram)) for pos in last]


@dataclass
class _NgramDrafting:
    max_ngram: int

    def prefill(self, row: int, request: Request, seed: int) -> None:
        pass

    def propose(self, batch: Batch, gamma: int, clock: Clock) -> Draft:
        tokens = batch.ids[:, : batch.top + gamma + 1].clone()
        for i in range(gamma):
            token = lookup(tokens, batch.pos + i, self.max_ngram)
            tokens.scatter_(1, batch.pos[:, None] + i + 1, token[:, None])
            clock.lap("draft_next" if i else "draft_first")
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

    def __post_init__(self) -> None:
        if not 0 <= self.acceptance <= 1:
            raise FairspecError(f"drafter option acceptance={self.acceptance}: must be from 0 to 1.")

    @property
    def name(self) -> str:
        return f"oracle({self.acceptance:g})"

    @property
    def model(self) -> Model | None:
        return self.payer.model if self.payer else None

    def rule(self, rule: Rule) -> Rule:
        return rule

    def begin(self, batch: int, max_len: int, reference: References | None) -> _OracleDrafting:
        known = reference or self.reference
        if known is None:
            raise FairspecError("the oracle drafter needs reference texts: make them first (replay and race do).")
        table = torch.zeros(batch, max_len, dtype=torch.long, device=self.verifier.device)
        return _OracleDrafting(self, known, table, self.payer.begin(batch, max_len, None) if self.payer else None)

    def proposals(self, request: Request, ids: Sequence[int], seed: int) -> list[int]:
        position = torch.arange(2, len(ids) + 1)
        hit = uniform(keys(seed, torch.full_like(position, request.stream), position, Purpose.ORACLE)) < self.acceptance
        text = torch.tensor(ids)[1:]
        return torch.where(hit, text, (text + 1) % self.verifier.vocab_size).tolist()


@dataclass
class _OracleDrafting:
    drafter: OracleDrafter
    reference: References
    table: Tensor
    payer: _ModelDrafting | None

    def prefill(self, row: int, request: Request, seed: int) -> None:
        drafts = self.drafter.proposals(request, self.reference[request.key], seed)
        first = len(request.ids) + 1
        self.table[row] = 0
        self.table[row, first : first + len(drafts)] = torch.tensor(drafts, dtype=torch.long, device=self.table.device)
        if self.payer:
            self.payer.prefill(row, request, seed)

    def propose(self, batch: Batch, gamma: int, clock: Clock) -> Draft:
        if self.payer:
            self.payer.propose(batch, gamma, clock)
        return Draft(self.table.gather(1, batch.after(gamma)), None)


# --------------------------------------------------------------------------- the table


def _model(name: str, verifier: Model, options: dict[str, Any], loading: dict[str, Any]) -> ModelDrafter:
    temperature = options.pop("temperature", None)
    return ModelDrafter(load_model(name, options=options, **loading), verifier, temperature)


def _ngram(name: str, verifier: Model, options: dict[str, Any], loading: dict[str, Any]) -> NgramDrafter:
    return NgramDrafter(**_known("ngram", options, max_ngram=int))


def _oracle(name: str, verifier: Model, options: dict[str, Any], loading: dict[str, Any]) -> OracleDrafter:
    given = {"acceptance": 0.8} | _known("oracle", options, acceptance=float)
    payer = None if name in ("", "oracle") else ModelDrafter(load_model(name, **loading), verifier)
    return OracleDrafter(verifier=verifier, payer=payer, **given)


def _known(kind: str, options: dict[str, Any], **types: Callable[[Any], Any]) -> dict[str, Any]:
    """The options given, each made of its type. Raises `FairspecError` for others."""
    try:
        return {name: types[name](value) for name, value in options.items()}
    except KeyError as error:
        raise FairspecError(f"drafter {kind}: unknown option {error}. Known: {', '.join(types)}.") from None
    except (TypeError, ValueError) as error:
        raise FairspecError(f"drafter {kind}: {error}.") from None


DRAFTERS: dict[str, Callable[[str, Model, dict[str, Any], dict[str, Any]], Drafter]] = {
    "model": _model,
    "ngram": _ngram,
    "oracle": _oracle,
}


def load_drafter(
    kind: str,
    name: str,
    options: Mapping[str, Any] | None,
    verifier: Model,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> Drafter:
    """The drafter `kind` (an entry of `DRAFTERS`) for this verifier. Raises `FairspecError`.

    `model`: `name` is a folder or Hub name; options `temperature`, `attention`. `ngram`: option `max_ngram` (3).
    `oracle`: option `acceptance` (.8); `name` the model whose forward passes it pays, or `oracle` for none.
    """
    if kind not in DRAFTERS:
        raise FairspecError(f"unknown drafter kind {kind!r}. Known: {', '.join(DRAFTERS)}.")
    loading = {"revision": revision, "dtype": dtype, "device": device}
    return DRAFTERS[kind](name, verifier, dict(options or {}), loading)
