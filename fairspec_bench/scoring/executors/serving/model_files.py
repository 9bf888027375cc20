"""A model as its files describe it: everything a run must know of it before an engine loads it.

Configurations, end-of-text ids and hashes of files. No weights are loaded: an engine does so in its own process.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, GenerationConfig

from fairspec_bench.models import hub
from fairspec_bench.models.positions import max_positions
from fairspec_bench.models.vocabulary import read_tokens
from fairspec_bench.schemas.base import FairspecError, Sha256
from fairspec_bench.schemas.config import Backend

CHUNK = 2**20
MAX_CONFIG = 2**22


@dataclass(frozen=True)
class Card:
    """A causal model in `folder`. `max_positions` is `None` for no limit; `vocabulary` its tokenizer's hash.

    `method` is how the checkpoint of a drafter says that it drafts; `None`: as a causal model of its own.
    """

    name: str
    folder: Path
    commit: str | None
    vocab_size: int
    vocabulary: Sha256 | None
    max_positions: int | None
    eos_ids: frozenset[int]
    backend: Backend
    method: str | None = None
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
    def draft_vocabulary(self) -> frozenset[int] | None:
        """The verifier's ids that a drafter of a smaller vocabulary can propose; `None` for the whole vocabulary.

        As EAGLE-3 stores it: `d2t[i]` is the offset from draft id i to the verifier's id, `t2d` a mask over the
        verifier's ids. Raises `FairspecError` for damaged weights.
        """
        try:
            for path in sorted(self.folder.glob("*.safetensors")):
                with safe_open(path, framework="np") as file:
                    names = set(file.keys())
                    if "d2t" in names:
                        offsets = np.asarray(file.get_tensor("d2t"), dtype=np.int64).ravel()
                        return frozenset((np.arange(len(offsets)) + offsets).tolist())
                    if "t2d" in names:
                        return frozenset(np.flatnonzero(file.get_tensor("t2d")).tolist())
        except (OSError, SafetensorError) as error:
            raise FairspecError(f"{self.name}: damaged weights ({hub.one_line(error)}). Fetch it again.") from error
        return None

    @cached_property
    def generation_config(self) -> GenerationConfig | None:
        """What its `generation_config.json` sets, `None` where it has none."""
        return _generation_config(self.folder)

    def refusal(self, prompt: int, max_new_tokens: int) -> str | None:
        """Why a prompt of so many tokens cannot be continued by up to `max_new_tokens` more; `None` if it can."""
        if self.max_positions is not None and prompt + max_new_tokens > self.max_positions:
            return f"{prompt} prompt + {max_new_tokens} new exceed the {self.max_positions} positions of {self.name}"
        return None


def read_card(
    name: str, source: str, revision: str | None, backend: Backend, *, weights: bool = True, head: bool = False
) -> Card:
    """The card of a model for a serving engine, in a folder or on the Hub, safetensors only.

    Raises `FairspecError`. Without `weights` those may lie elsewhere, where a server has them. A `head` may be of a
    kind that Transformers does not know: then its configuration is read as it stands.
    """
    place = hub.locate(source, revision) if weights else hub.locate_tokenizer(source, revision)
    if hub.read_base(place.folder) is not None:
        raise FairspecError(
            f"{name}: an adapter, which a serving engine is not given here. Merge it into its base and save that."
        )
    stored = _configuration(name, place.folder) if head else {}
    try:
        config = AutoConfig.from_pretrained(place.folder, local_files_only=True, trust_remote_code=False)
        text = config.get_text_config(decoder=True)
        vocab_size, positions, eos_ids = text.vocab_size, max_positions(text), _eos_ids(place.folder, text)
    except (OSError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        if draft_method(stored) is None:
            raise FairspecError(f"{name}: cannot be read ({hub.one_line(error)}). Fetch it again.") from error
        inner = {**stored, **_part(stored, "transformer_layer_config")}
        vocab_size, positions, eos_ids = (
            _number(inner, "vocab_size") or 0,
            _number(inner, "max_position_embeddings"),
            frozenset(),
        )
    tokens = read_tokens(place.folder)
    return Card(
        name=name,
        folder=place.folder,
        commit=place.commit,
        vocab_size=vocab_size,
        vocabulary=tokens.sha256 if tokens else None,
        max_positions=positions,
        eos_ids=eos_ids,
        backend=backend,
        method=draft_method(stored),
    )


def draft_method(config: Mapping[str, Any]) -> str | None:
    """How a drafter's configuration says that it drafts; `None` for a causal model of its own.

    By the name that the library speculators writes, whatever it is, else by that of its class or type.
    """
    if isinstance(named := config.get("speculators_model_type"), str):
        return named.lower()
    classes = config.get("architectures")
    called = [config.get("model_type"), *(classes if isinstance(classes, list) else [])]
    words = " ".join(re.sub(r"[^a-z0-9]", "", each.lower()) for each in called if isinstance(each, str))
    return next((method for method in HEADS if method.replace("_", "") in words), None)


HEADS = ("peagle", "eagle3", "eagle", "dflash", "dspark", "medusa", "mlp_speculator")
"""Methods that a class or type names, the longer name first; one that is not here is given as `method`."""


def _configuration(name: str, folder: Path) -> Mapping[str, Any]:
    try:
        with (folder / "config.json").open("rb") as file:
            text = file.read(MAX_CONFIG + 1)
        found = json.loads(text) if len(text) <= MAX_CONFIG else None
    except (OSError, ValueError) as error:
        raise FairspecError(f"{name}: config.json cannot be read ({hub.one_line(error)}). Fetch it again.") from error
    if not isinstance(found, dict):
        raise FairspecError(f"{name}: config.json is not a configuration. Fetch it again.")
    return found


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _number(config: Mapping[str, Any], name: str) -> int | None:
    found = config.get(name)
    return found if isinstance(found, int) and found > 0 else None


def files_sha256(folder: Path) -> Sha256:
    """Hash of the names and bytes of a model's configurations and weights, whatever else lies beside them."""
    digest = hashlib.sha256()
    generation = folder / "generation_config.json"
    own = [folder / "config.json", *([generation] if generation.is_file() else [])]
    for path in sorted([*own, *folder.glob("*.safetensors")]):
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
