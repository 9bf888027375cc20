"""The verifier's pass over finished texts, made once for several drafters: its last hidden states, kept in files.

Its logits are then one matrix product away, by the same head on tensors of the same shape: the same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fairspec_bench.engine.batch import Request, padded
from fairspec_bench.engine.finite import check_finite
from fairspec_bench.engine.teacher_forcing import TeacherForcing
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.io import ids_sha256, write_atomic
from fairspec_bench.scoring.reference import hardware_class

STATES_BYTES = 2**32
"""About how much a folder of states may take; what does not fit is computed again for every drafter."""


class VerifierPass(Protocol):
    """A `TeacherForcing`, or what stands for one: the texts, int64 [B, longest], and the logits of a piece of each."""

    @property
    def text(self) -> Tensor: ...

    def piece(self, first: int, last: int) -> Tensor: ...


@dataclass(frozen=True)
class VerifierStates:
    """The states kept in a folder, each batch of texts a file named by all that its bits follow from."""

    folder: Path

    def verifier_pass(
        self, verifier: Model, requests: Sequence[Request], texts: Sequence[Sequence[int]], piece: int
    ) -> VerifierPass:
        """The pass over a batch of texts, read in pieces of `piece` contexts from the first to the last.

        From its file, where there is one whole; else it is made, and kept if there is room and if the model's logits
        are its head's and nothing more.
        """
        path = self.folder / f"{self._address(verifier, requests, texts, piece)}.safetensors"
        states = _read(path)
        if states is not None:
            return _KeptPass(verifier, requests, texts, states)
        forced = forced_pass(verifier, requests, texts)
        size = len(texts) * max(map(len, texts)) * _width(verifier) * verifier.dtype.itemsize
        if verifier.spread or not _width(verifier) or self._taken() + size > STATES_BYTES:
            return forced
        return _KeepingPass(forced, path)

    def _address(self, verifier: Model, requests: Sequence[Request], texts: Sequence[Sequence[int]], piece: int) -> str:
        parts: dict[str, Any] = {
            "content": verifier.content,
            "packed": verifier.packed,
            "dtype": str(verifier.dtype),
            "attention": verifier.hf.config._attn_implementation,
            "hardware": hardware_class(verifier),
            "piece": piece,
            "prompts": [[ids_sha256(request.ids), request.shared] for request in requests],
            "texts": [ids_sha256(ids) for ids in texts],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _taken(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))


def forced_pass(verifier: Model, requests: Sequence[Request], texts: Sequence[Sequence[int]]) -> TeacherForcing:
    """The verifier's own pass over the texts of requests."""
    return TeacherForcing(
        verifier,
        [request.ids for request in requests],
        texts,
        [request.key for request in requests],
        shared=[request.shared for request in requests],
    )


def states_bytes(width: int, itemsize: int, tokens: int) -> int:
    """How much the states of so many output tokens take on disk, at most."""
    return min(STATES_BYTES, width * itemsize * tokens)


class _KeepingPass:
    """A pass that keeps what its head reads, once it was read to the end."""

    def __init__(self, forced: TeacherForcing, path: Path):
        self.forced, self.text, self.path = forced, forced.text, path
        self.head = forced.rows.model.hf.get_output_embeddings()
        self.kept: list[Tensor] | None = []

    def piece(self, first: int, last: int) -> Tensor:
        seen: list[tuple[Tensor, Tensor]] = []
        hook = self.head.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
        try:
            logits = self.forced.piece(first, last)
        finally:
            hook.remove()
        alone = len(seen) == 1 and seen[0][0].shape[:2] == logits.shape[:2] and torch.equal(seen[0][1], logits)
        if self.kept is not None and alone:
            self.kept.append(seen[0][0].cpu())
            if last == self.text.shape[1] - 1:
                _write(self.path, torch.cat(self.kept, dim=1))
        else:
            self.kept = None
        return logits


class _KeptPass:
    """A pass by its states [B, longest − 1, H]: the head alone runs."""

    def __init__(self, verifier: Model, requests: Sequence[Request], texts: Sequence[Sequence[int]], states: Tensor):
        self.verifier, self.states = verifier, states
        self.text = padded(texts, max(map(len, texts)), verifier.device)
        self.contexts = [len(ids) - 1 for ids in texts]
        self.keys = [request.key for request in requests]

    @torch.no_grad()
    def piece(self, first: int, last: int) -> Tensor:
        hidden = self.states[:, first:last].contiguous().to(self.verifier.device)
        logits: Tensor = self.verifier.hf.get_output_embeddings()(hidden)
        check_finite(logits, [count - first for count in self.contexts], self.keys, 2 + first, self.verifier.name)
        return logits


def _width(verifier: Model) -> int:
    """H, 0 for a model whose head is not a module."""
    head = verifier.hf.get_output_embeddings()
    return 0 if head is None else int(verifier.hf.config.get_text_config(decoder=True).hidden_size)


def _read(path: Path) -> Tensor | None:
    """The states of a file, `None` where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            states: Tensor = file.get_tensor("states")
            return states if (file.metadata() or {}).get("sha256") == _sha256(states) else None
    except (OSError, SafetensorError):
        return None


def _write(path: Path, states: Tensor) -> None:
    write_atomic(path, save({"states": states.contiguous()}, {"sha256": _sha256(states.contiguous())}))


def _sha256(states: Tensor) -> str:
    return hashlib.sha256(states.flatten().view(torch.uint8).numpy().data).hexdigest()
