"""Named pairs of models: the files under `tasks/pairs/`. Loads no model.

A file states the location, size and licence of both models, and the suites to run. A revision is `null` until `pin`
sets it; sizes and licences are those of the models' own pages.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import yaml  # type: ignore[import-untyped]
from pydantic import Field, ValidationError

from fairspec_bench.models import hub
from fairspec_bench.schemas.base import FairspecError, Record, unknown
from fairspec_bench.schemas.io import write_atomic
from fairspec_bench.suites.listing import tasks_folder

BYTES = 2
"""Of one bfloat16 number."""
ROLES = ("verifier", "drafter")


class PairModel(Record):
    """One model of a pair.

    `model` is a Hub id, a GGUF file of the Hub or `embedded:…`, `parameters` approximate, `licence` SPDX or its name;
    `gated`: the Hub requires a token and an accepted licence.
    """

    model: str
    revision: str | None
    parameters: int = Field(gt=0)
    layers: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_size: int = Field(gt=0)
    licence: str
    gated: bool

    @property
    def weights_bytes(self) -> int:
        """The weights in bfloat16: 2 bytes a parameter."""
        return BYTES * self.parameters

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in bfloat16: 2 · layers · kv_heads · head_size numbers."""
        return BYTES * 2 * self.layers * self.kv_heads * self.head_size


class Pair(Record):
    """A verifier and a drafter. `kv_tokens`: rows × tokens of keys and values in the stated memory.

    `chat_template`: whether prompts are rendered as chats.
    """

    name: str
    title: str
    about: str
    verifier: PairModel
    drafter: PairModel
    chat_template: bool
    suites: tuple[str, ...] = Field(min_length=1)
    kv_tokens: int = Field(gt=0)

    @property
    def memory_bytes(self) -> int:
        """Both models' weights and `kv_tokens` of keys and values, bfloat16. Logits and activations come on top."""
        models = (self.verifier, self.drafter)
        return sum(model.weights_bytes + self.kv_tokens * model.kv_bytes_per_token for model in models)

    @property
    def gated(self) -> bool:
        """Whether either model is."""
        return self.verifier.gated or self.drafter.gated

    @property
    def pinned(self) -> bool:
        """Whether both models lie in the package or name a commit, or a GGUF file by its hash."""
        return not _open(self)


class Pinned(NamedTuple):
    """A model and the commit that it was pinned to."""

    model: str
    commit: str


def list_pairs() -> tuple[Pair, ...]:
    """Every pair, by name. Raises `FairspecError` for a file that is not one."""
    return tuple(_read(path) for path in _files())


def load_pair_file(name: str) -> Pair:
    """The pair of that name. Raises `FairspecError` for an unknown one or a file that is not one."""
    files = {path.stem: path for path in _files()}
    if name not in files:
        raise unknown("pair", name, files)
    return _read(files[name])


def pin(name: str) -> tuple[Pinned, ...]:
    """Write the current commits of its models' branches into a pair's file; → those written.

    A model that names a commit keeps it. Raises `FairspecError` for an unknown pair, no answer from the Hub, or a file
    that cannot be written; nothing is written then.
    """
    pair = load_pair_file(name)
    path = next(path for path in _files() if path.stem == name)
    text, done = path.read_text(encoding="utf-8"), []
    for role in _open(pair):
        model: PairModel = getattr(pair, role)
        commit = hub.resolve(model.model, model.revision)
        # A line is replaced, not the file written anew: its comments and order are its author's.
        text, count = re.subn(rf"(?m)(^{role}:\n(?:[ ].*\n)*?[ ]+revision:).*$", rf'\g<1> "{commit}"', text, count=1)
        if not count:
            raise FairspecError(f"{path}: {role}: no line `revision: null` to write the commit in. Add it.")
        done.append(Pinned(model.model, commit))
    write_atomic(path, text)
    return tuple(done)


def _open(pair: Pair) -> list[str]:
    """The roles whose model is on the Hub and names no commit."""
    models = ((role, getattr(pair, role)) for role in ROLES)
    return [
        role
        for role, model in models
        if not model.model.startswith(hub.EMBEDDED)
        and not any(known.fullmatch(model.revision or "") for known in (hub.COMMIT, hub.GGUF_HASH))
    ]


def _files() -> list[Path]:
    return sorted((tasks_folder() / "pairs").glob("*.yaml"))


def _read(path: Path) -> Pair:
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        pair = Pair.model_validate_json(json.dumps({**said, "name": path.stem}))
    except (yaml.YAMLError, TypeError):
        raise FairspecError(f"{path}: not a YAML mapping. Correct it or remove it.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise FairspecError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}. Correct it.") from None
    for suite in pair.suites:
        if not any((tasks_folder() / file).is_file() for file in (f"{suite}/_group.yaml", f"{suite}.yaml")):
            raise FairspecError(f"{path}: suites: unknown suite {suite!r}. `fairspec tasks` lists them.")
    return pair
