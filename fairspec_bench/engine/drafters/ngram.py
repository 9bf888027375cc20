"""A smoothed n-gram language model of each group as a drafter: counts of ids, no weights, no forward passes.

After the n-gram drafters of arXiv 2605.30580 (reconstructed: the idea, none of its code).

Smoothing is Witten and Bell's (1991), interpolated: after a context h that was followed by c(h) tokens of t(h) kinds,
    q(x | h) = (c(hx) + t(h) · q(x | h')) / (c(h) + t(h)),   h' = h without its first token,
down to the empty context, whose h' is the uniform distribution. It has nothing to tune, and q > 0 everywhere. A group
that is not in the tables gets the counts of all groups together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fairspec_bench.engine.backends.base import StepRunner
from fairspec_bench.engine.batch import Batch, Request, padded
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
from fairspec_bench.models.model import Model, check_vocabulary
from fairspec_bench.schemas.base import FairspecError, Record, Sha256
from fairspec_bench.schemas.io import write_record

TABLES = "tables.safetensors"
MAX_ORDER = 8
MAX_VOCABULARY = 2**22
MAX_GROUPS = 4096
MAX_TABLES_BYTES = 2**32
NO_TOKEN = -1
"""Before the first token of a text, and for a context that was never seen."""
Numbers = NDArray[np.int64]


_PARTS = {"keys": torch.int64, "counts": torch.int32}


class NgramFile(Record):
    """`fairspec_drafter.json` beside the tables; `sha256` is `Tables.sha256`, `vocabulary` that of the verifier."""

    kind: Literal["ngram"]
    order: int = Field(ge=1, le=MAX_ORDER)
    vocab_size: int = Field(ge=1, le=MAX_VOCABULARY)
    vocabulary: Sha256 | None
    groups: tuple[str, ...] = Field(max_length=MAX_GROUPS)
    sha256: Sha256


class Level(NamedTuple):
    """The n-grams of one length: `keys` int64 [n] ascending, `counts` int32 [n].

    An n-gram is known by its number, its place in `keys`. Its key is (number of the n-gram without its last token) ·
    vocabulary + last token; of length 0 there is one per group, the first of all groups together. `counts` says how
    often its last token stood in an output, which may be never where the n-gram is only the beginning of others.
    """

    keys: Tensor
    counts: Tensor


class Followers(NamedTuple):
    """What followed each of the n contexts of one length, from the level above: float32 or int64.

    Context i was followed by `tokens[first[i] : first[i] + size[i]]`, as often as `counts` says there; `total` [n] is
    c(h) and `kinds` [n] is t(h). `keys` ends with one more that nothing has.
    """

    keys: Tensor
    tokens: Tensor
    counts: Tensor
    first: Tensor
    size: Tensor
    total: Tensor
    kinds: Tensor


@dataclass(frozen=True, eq=False)
class Tables:
    """Counts of n-grams up to length `order`, by group. `levels[k]` are those of length k + 1."""

    order: int
    vocab_size: int
    vocabulary: Sha256 | None
    groups: tuple[str, ...]
    levels: tuple[Level, ...]
    name: str = "ngram"

    @cached_property
    def sha256(self) -> Sha256:
        """Hash of everything that decides q."""
        digest = hashlib.sha256(json.dumps([self.order, self.vocab_size, self.vocabulary, self.groups]).encode())
        for level in self.levels:
            for tensor in level:
                digest.update(f"{tuple(tensor.shape)}".encode())
                digest.update(tensor.cpu().numpy().data)
        return digest.hexdigest()

    @cached_property
    def roots(self) -> dict[str, int]:
        """The number of each group's empty context."""
        return {group: number for number, group in enumerate(self.groups, 1)}

    def root(self, group: str) -> int:
        """The empty context of a group: its own, else that of all groups together."""
        return of_group(self.roots, group) or 0

    @cached_property
    def followers(self) -> tuple[Followers, ...]:
        """By length of the context, from 0."""
        contexts = [1 + len(self.groups), *(len(level.keys) for level in self.levels)]
        return tuple(self._followers(level, n) for level, n in zip(self.levels, contexts, strict=False))

    def _followers(self, level: Level, contexts: int) -> Followers:
        edges = torch.arange(contexts + 1, device=level.keys.device) * self.vocab_size
        bounds = torch.searchsorted(level.keys, edges)

        def per_context(values: Tensor) -> Tensor:
            sums = torch.cat([values.new_zeros(1), values.cumsum(0)])[bounds]
            return sums[1:] - sums[:-1]

        return Followers(
            keys=torch.cat([level.keys, level.keys.new_tensor([torch.iinfo(torch.int64).max])]),
            tokens=level.keys % self.vocab_size,
            counts=level.counts.float(),
            first=bounds[:-1],
            size=bounds[1:] - bounds[:-1],
            total=per_context(level.counts.long()),
            kinds=per_context((level.counts > 0).long()),
        )

    def unigrams(self, root: int) -> Tensor:
        """q after the empty context of a root: float32 [V]."""
        after = self.followers[0]
        total, kinds = int(after.total[root]), int(after.kinds[root])
        mine = slice(int(after.first[root]), int(after.first[root] + after.size[root]))
        counts = torch.zeros(self.vocab_size, device=after.tokens.device)
        counts[after.tokens[mine]] = after.counts[mine]
        return (counts + kinds / self.vocab_size) / (total + kinds)

    def distribution(self, root: Tensor, unigrams: Tensor, window: Tensor) -> Tensor:
        """q after the last order − 1 tokens, `window` int64 [B, T, order − 1], `NO_TOKEN` before the first: [B, T, V].

        `root` int64 [B] and `unigrams` float32 [B, V] are those of each row's group. Longest context first: `left` is
        what the longer ones leave to the shorter.
        """
        rows, times, _ = window.shape
        parts: list[tuple[Tensor, Tensor]] = []
        left = torch.ones(rows * times, device=window.device)
        roots, windows = root.repeat_interleave(times), window.flatten(0, 1)
        for length in range(self.order - 1, 0, -1):
            after = self.followers[length]
            context = self._find(roots, windows[:, self.order - 1 - length :])
            place, seen = context.clamp_min(0), context >= 0
            total, kinds = after.total[place] * seen, after.kinds[place] * seen
            share = left / (total + kinds).clamp_min(1)
            owner, follower = _spread(after.first[place], after.size[place] * seen)
            cells = owner * self.vocab_size + after.tokens[follower]
            parts.append((cells, after.counts[follower] * share[owner]))
            left = torch.where(total > 0, kinds * share, left)
        q = (unigrams[:, None] * left.view(rows, times, 1)).flatten()
        for cells, shares in parts:
            q.index_add_(0, cells, shares)
        return q.view(rows, times, -1)

    def _find(self, roots: Tensor, tokens: Tensor) -> Tensor:
        """The numbers of contexts [C, length] below their roots [C]; `NO_TOKEN` for those never seen."""
        number = roots
        for after, token in zip(self.followers, tokens.unbind(1), strict=False):
            key = number * self.vocab_size + token
            place = torch.searchsorted(after.keys, key)
            seen = (number >= 0) & (token >= 0) & (token < self.vocab_size) & (after.keys[place] == key)
            number = torch.where(seen, place, NO_TOKEN)
        return number

    def save(self, folder: Path) -> None:
        """Write the tables, then the file with their hash. Raises `FairspecError`."""
        tensors = {f"{part}.{k}": getattr(level, part) for k, level in enumerate(self.levels, 1) for part in _PARTS}
        path = folder / TABLES
        part = path.with_suffix(".part")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, part)
            os.replace(part, path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise FairspecError(f"{path}: cannot be written ({error}). Free space or choose another folder.") from error
        write_record(
            folder / FILE,
            NgramFile(
                kind="ngram",
                order=self.order,
                vocab_size=self.vocab_size,
                vocabulary=self.vocabulary,
                groups=self.groups,
                sha256=self.sha256,
            ),
        )


def _spread(first: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """All members of ranges first[i]…first[i] + size[i] − 1: the i of each, and the member."""
    owner = torch.arange(len(size), device=size.device).repeat_interleave(size)
    before = size.cumsum(0) - size
    return owner, torch.arange(len(owner), device=size.device) + (first - before)[owner]


# --------------------------------------------------------------------------- making and loading


def fit(
    texts: Iterable[tuple[str, Sequence[int], Sequence[int]]],
    vocab_size: int,
    order: int = 5,
    *,
    vocabulary: Sha256 | None = None,
) -> Tables:
    """Count the outputs of (group, prompt ids, output ids); a prompt is only context.

    `vocabulary` is the verifier's (`Model.vocabulary`). Raises `FairspecError` for no texts, too many groups, an order
    outside 1…8, or an id that is not one of the vocabulary.
    """
    if not 1 <= order <= MAX_ORDER:
        raise FairspecError(f"n-gram order={order}: must be a whole number from 1 to {MAX_ORDER}.")
    owners: list[str] = []
    ids: list[int] = []
    in_output: list[int] = []
    remaining: list[int] = []
    for group, prompt, output in texts:
        text = [*prompt[max(0, len(prompt) - order + 1) :], *output]
        owners += [group] * len(text)
        ids += text
        in_output += [0] * (len(text) - len(output)) + [1] * len(output)
        remaining += range(len(text), 0, -1)
    groups = tuple(sorted({group for group, out in zip(owners, in_output, strict=True) if out}))
    if not groups or len(groups) > MAX_GROUPS:
        raise FairspecError(f"n-gram tables of {len(groups)} groups: must be from 1 to {MAX_GROUPS}. Give other texts.")
    if not 0 <= min(ids) <= max(ids) < vocab_size <= MAX_VOCABULARY:
        raise FairspecError(f"n-gram tables: an id is not one of {vocab_size}. Use the verifier's own tokenizer.")
    roots = {group: number for number, group in enumerate(groups, 1)}
    own = np.array([roots.get(group, 0) for group in owners])
    levels = _counted(np.array(ids), np.array(in_output), np.array(remaining), own, vocab_size, order)
    return Tables(order, vocab_size, vocabulary, groups, levels)


def _counted(
    ids: Numbers, in_output: Numbers, remaining: Numbers, own: Numbers, vocab_size: int, order: int
) -> tuple[Level, ...]:
    """The n-grams that begin at every place, below its group's root and below the common one.

    All [n]: `in_output` is 1 for an output's token, `remaining` how many tokens its text has from there, `own` its
    group's root.
    """
    start = np.tile(np.arange(len(ids)), 2)
    number = np.concatenate([own, np.zeros_like(own)])
    levels = []
    for length in range(order):
        going = remaining[start] > length
        start, number = start[going], number[going]
        last = start + length
        keys, number = np.unique(number * vocab_size + ids[last], return_inverse=True)
        counts = np.bincount(number, weights=in_output[last], minlength=len(keys)).astype(np.int32)
        levels.append(Level(torch.from_numpy(keys), torch.from_numpy(counts)))
    return tuple(levels)


def load_tables(folder: str | Path, *, name: str | None = None, device: str = "cpu") -> Tables:
    """Tables as saved, onto a device. Raises `FairspecError`, one line, for damage or what `fit` cannot have made."""
    folder = Path(folder).expanduser()
    file = read_drafter_file(folder, NgramFile)
    path = folder / TABLES
    wanted = {f"{part}.{k}" for k in range(1, file.order + 1) for part in _PARTS}
    try:
        if path.stat().st_size > MAX_TABLES_BYTES:
            raise ValueError(f"larger than {MAX_TABLES_BYTES} bytes")
        with safe_open(path, framework="pt") as kept:
            if set(kept.keys()) != wanted:
                raise ValueError("not the tables that its json names")
            levels = tuple(
                Level(*(kept.get_tensor(f"{part}.{k}") for part in _PARTS)) for k in range(1, file.order + 1)
            )
        _check(file, levels)
        tables = Tables(file.order, file.vocab_size, file.vocabulary, file.groups, levels, name or str(folder))
        if tables.sha256 != file.sha256:
            raise ValueError("not the bytes whose hash is in its json")
    except (OSError, SafetensorError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FairspecError(f"{path}: cannot be loaded ({reason}). Make the drafter again.") from None
    return replace(tables, levels=tuple(Level(*(tensor.to(device) for tensor in level)) for level in levels))


def _check(file: NgramFile, levels: Sequence[Level]) -> None:
    """Raise `ValueError` for n-grams that cannot be looked up."""
    contexts = 1 + len(file.groups)
    if len(set(file.groups)) < len(file.groups):
        raise ValueError("a group is named twice")
    for keys, counts in levels:
        if (keys.dtype, counts.dtype) != tuple(_PARTS.values()) or keys.dim() != 1 or keys.shape != counts.shape:
            raise ValueError("tables of a wrong type or shape")
        if len(keys) and not (keys[0] >= 0 and keys[-1] < contexts * file.vocab_size and counts.min() >= 0):
            raise ValueError("a number out of range")
        if not bool((keys[1:] > keys[:-1]).all()):
            raise ValueError("n-grams out of order")
        contexts = len(keys)
    first, counts = levels[0]
    in_output = torch.zeros(1 + len(file.groups), dtype=torch.long).index_add_(
        0, first // file.vocab_size, counts.long()
    )
    if not bool((in_output > 0).all()):
        raise ValueError("a group without a token")


# --------------------------------------------------------------------------- the drafter


@dataclass(frozen=True)
class NgramDrafter:
    """The tables as q, each row under those of its group. Raises `FairspecError` for tables of another vocabulary."""

    tables: Tables
    verifier: Model
    kind: str = field(default="ngram", init=False)
    model: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_vocabulary(self.verifier, self.tables)

    @property
    def name(self) -> str:
        return self.tables.name

    @property
    def identity(self) -> str:
        return f"tables-sha256:{self.tables.sha256}"

    def begin(self, batch: int, max_len: int) -> _NgramSession:
        device = self.verifier.device
        unigrams = torch.zeros(batch, self.tables.vocab_size, device=device)
        return _NgramSession(self.tables, torch.zeros(batch, dtype=torch.long, device=device), unigrams)

    def read(self, requests: Sequence[Request], texts: Sequence[Sequence[int]], seed: int) -> _NgramReplay:
        device, roots = self.verifier.device, [self.tables.root(request.group) for request in requests]
        whole = [[*request.ids, *text] for request, text in zip(requests, texts, strict=True)]
        return _NgramReplay(
            tables=self.tables,
            root=torch.tensor(roots, device=device),
            unigrams=torch.stack([self.tables.unigrams(root) for root in roots]),
            ids=padded(whole, max(len(request.ids) for request in requests) + max(map(len, texts)), device),
            start=torch.tensor([len(request.ids) for request in requests], device=device),
            vocab_size=self.verifier.vocab_size,
        )


@dataclass
class _NgramSession:
    """`root` [B] and `unigrams` [B, V] are those of each row's group."""

    tables: Tables
    root: Tensor
    unigrams: Tensor

    def prefill(self, row: int, request: Request, seed: int, reference: Sequence[int] | None) -> None:
        root = self.tables.root(request.group)
        self.root[row], self.unigrams[row] = root, self.tables.unigrams(root)

    def propose(self, batch: Batch, gamma: int, steps: StepRunner) -> Draft:
        # The number of n-grams found depends on data, which no device can record.
        return steps.unrecorded(partial(self._propose, batch, gamma))

    def _propose(self, batch: Batch, gamma: int, steps: StepRunner) -> Draft:
        slots = batch.after(gamma)
        window = _windows(batch.ids, batch.pos[:, None], self.tables.order - 1)
        ids: list[Tensor] = []
        log_qs: list[Tensor] = []
        for i in range(gamma):
            q = self.tables.distribution(self.root, self.unigrams, window)
            scores = fit_vocabulary(q if batch.sampling.greedy else _log(q), batch.vocab_size)
            token, log_q = pick(batch, slots[:, i : i + 1], scores)
            window = torch.cat([window, token[:, None]], dim=2)[:, :, 1:]
            ids.append(token)
            log_qs.append(log_q)
            steps.lap("draft_next" if i else "draft_first")
        return Draft(torch.cat(ids, dim=1), None if batch.sampling.greedy else torch.cat(log_qs, dim=1))


@dataclass(frozen=True)
class _NgramReplay:
    tables: Tables
    root: Tensor
    unigrams: Tensor
    ids: Tensor
    start: Tensor
    vocab_size: int

    def piece(self, first: int, last: int) -> DraftOutput:
        slots = self.start[:, None] + torch.arange(first, last, device=self.ids.device)
        q = self.tables.distribution(self.root, self.unigrams, _windows(self.ids, slots, self.tables.order - 1))
        likeliest = fit_vocabulary(q, self.vocab_size).argmax(-1)
        return DraftOutput(likeliest, fit_vocabulary(_log(q), self.vocab_size))


def _windows(ids: Tensor, last: Tensor, size: int) -> Tensor:
    """The `size` tokens that end at slots `last` [B, T] of ids [B, S], `NO_TOKEN` before the first: [B, T, size]."""
    slots = last[:, :, None] - torch.arange(size - 1, -1, -1, device=ids.device)
    tokens = ids.gather(1, slots.flatten(1).clamp_min(0)).view_as(slots)
    return tokens.masked_fill(slots < 0, NO_TOKEN)


def _log(q: Tensor) -> Tensor:
    """log q, finite even where a product of many small shares has left the range of float32."""
    return q.clamp_min(torch.finfo(q.dtype).tiny).log()


def load(request: DrafterRequest, verifier: Model) -> NgramDrafter:
    """No options; `source` is a folder of tables."""
    request.parsed(request.options)
    return NgramDrafter(load_tables(request.source, name=request.name, device=request.device), verifier)
