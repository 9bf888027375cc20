"""A model as its files describe it: everything a run must know of it before an engine loads it.

Configurations, end-of-text ids and hashes of files. No weights are loaded: an engine does so in its own process.
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

from fairspec_bench.models import hub
from fairspec_bench.models.positions import max_positions
from fairspec_bench.models.vocabulary import read_tokens
from fairspec_bench.schemas.base import FairspecError, Sha256
from fairspec_bench.schemas.config import Backend

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
    backend: Backend
    packed: bool = False

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

    @cached_property
    def generation_config(self) -> GenerationConfig | None:
        """What its `generation_config.json` sets, `None` where it has none."""
        return _generation_config(self.folder)

    def refusal(self, prompt: int, max_new_tokens: int) -> str | None:
        """Why a prompt of so many tokens cannot be continued by up to `max_new_tokens` more; `None` if it can."""
        if self.max_positions is not None and prompt + max_new_tokens > self.max_positions:
            return f"{prompt} prompt + {max_new_tokens} new exceed the {self.max_positions} positions of {self.name}"
        return None


def read_card(name: str, source: str, revision: str | None, backend: Backend, *, weights: bool = True) -> Card:
    """The card of a model for a serving engine, in a folder or on the Hub, safetensors only.

    Raises `FairspecError`. Without `weights` those may lie elsewhere, where a server has them.
    """
    place = hub.locate(source, revision) if weights else hub.locate_tokenizer(source, revision)
    if hub.read_base(place.folder) is not None:
        raise FairspecError(
            f"{name}: an adapter, which a serving engine is not given here. Merge it into its base and save that."
        )
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
        max_positions=max_positions(text),
        eos_ids=_eos_ids(place.folder, text),
        backend=backend,
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


def _generation_config(folder: Path) -> GenerationConfig | None:
    if not (folder / "generation_config.json").is_file():
        return None
    return GenerationConfig.from_pretrained(folder, local_files_only=True)


def _eos_ids(folder: Path, config: Any) -> frozenset[int]:
    generation = _generation_config(folder)
    value = generation.eos_token_id if generation else None  # 0 is an id, and [] says that there is none
    if value is None:
        value = config.eos_token_id
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)
