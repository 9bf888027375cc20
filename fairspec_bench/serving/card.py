"""A model as its files describe it: everything a run must know of it before an engine loads it.

Knows configurations, end-of-text ids and hashes of files. Loads no weights: an engine does, in a process of its own.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, GenerationConfig

from fairspec_bench import hub
from fairspec_bench.engine.vocabulary import read_tokens
from fairspec_bench.records import Backend, FairspecError, Sha256

CHUNK = 2**20


@dataclass(frozen=True)
class Card:
    """A causal model in `folder`. `max_positions` is `None` for no limit; `vocabulary` its tokenizer's hash."""

    name: str
    folder: Path
    commit: str | None
    vocab_size: int
    vocabulary: Sha256 | None
    max_positions: int | None
    eos_ids: frozenset[int]
    backend: Backend = "vllm"

    @property
    def home(self) -> Path:
        """Where its tokenizer lies."""
        return self.folder

    @cached_property
    def identity(self) -> str:
        """Its commit on the Hub, else the hash of its files."""
        return self.commit or f"files-sha256:{files_sha256(self.folder)}"

    @cached_property
    def parameters(self) -> int | None:
        """How many parameters its files hold, `None` where the weights lie elsewhere."""
        try:
            return sum(map(_parameters, self.folder.glob("*.safetensors"))) or None
        except (OSError, SafetensorError) as error:
            raise FairspecError(f"{self.name}: damaged weights ({hub.one_line(error)}). Fetch it again.") from error

    def refusal(self, prompt: int, cap: int) -> str | None:
        """Why a prompt of so many tokens cannot be continued by up to `cap` more; `None` if it can."""
        if self.max_positions is not None and prompt + cap > self.max_positions:
            return f"{prompt} prompt tokens + cap {cap} exceed the {self.max_positions} positions of {self.name}"
        return None


def read_card(name: str, source: str, revision: str | None, *, weights: bool = True) -> Card:
    """The card of a model in a folder or on the Hub, safetensors only. Raises `FairspecError`, one line.

    Without `weights` those may lie elsewhere, where a server has them.
    """
    place = hub.locate(source, revision) if weights else hub.locate_tokenizer(source, revision)
    if hub.read_base(place.folder) is not None:
        raise FairspecError(f"{name}: an adapter, which vLLM is not given here. Merge it into its base and save that.")
    try:
        config = AutoConfig.from_pretrained(place.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise FairspecError(f"{name}: cannot be read ({hub.one_line(error)}). Fetch it again.") from error
    text = config.get_text_config(decoder=True)
    tokens = read_tokens(place.folder)
    return Card(
        name=name,
        folder=place.folder,
        commit=place.commit,
        vocab_size=text.vocab_size,
        vocabulary=tokens.sha256 if tokens else None,
        max_positions=getattr(text, "max_position_embeddings", None),
        eos_ids=_eos_ids(place.folder, text),
    )


def files_sha256(folder: Path) -> Sha256:
    """Hash of the names and bytes of a model's configuration and weights, whatever else lies beside them."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
    return digest.hexdigest()


def _parameters(path: Path) -> int:
    with safe_open(path, framework="np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping


def _eos_ids(folder: Path, config: Any) -> frozenset[int]:
    value = config.eos_token_id
    if (folder / "generation_config.json").is_file():
        value = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id or value
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)
