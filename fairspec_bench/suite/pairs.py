"""The pairs of models that studies know by name: the files under `tasks/pairs/`.

Knows what each file says of its models: where they lie, size, memory, licence, and which suites to run. Loads no model
and asks no one: a revision is `null` until someone pins it, sizes and licences are those of the models' own pages.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from pydantic import Field, ValidationError

from fairspec_bench.records import FairspecError, Record
from fairspec_bench.suite.tasks import tasks_folder

BYTES = 2
"""Of one bfloat16 number."""


class PairModel(Record):
    """One model of a pair. `model` is a Hub id or `embedded:…`, `parameters` approximate, `licence` SPDX or its name.

    `gated`: the Hub asks for the licence to be accepted and for a token.
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
    """A verifier and a drafter. `kv_tokens` is the room for keys and values, rows × tokens, that memory is stated for.

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
        """Whether both models lie in the package or have a revision."""
        models = (self.verifier, self.drafter)
        return all(model.revision is not None or model.model.startswith("embedded:") for model in models)


def list_pairs() -> tuple[Pair, ...]:
    """Every pair, by name. Raises `FairspecError` for a file that is not one."""
    return tuple(_read(path) for path in _files())


def load_pair_file(name: str) -> Pair:
    """The pair of that name. Raises `FairspecError` for an unknown one or a file that is not one."""
    files = {path.stem: path for path in _files()}
    if name not in files:
        raise FairspecError(f"unknown pair {name!r}. Known: {', '.join(files)}.")
    return _read(files[name])


def _files() -> list[Path]:
    return sorted((tasks_folder() / "pairs").glob("*.yaml"))


def _read(path: Path) -> Pair:
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        pair = Pair.model_validate_json(json.dumps({**said, "name": path.stem}))
    except (yaml.YAMLError, TypeError):
        raise FairspecError(f"{path}: not a YAML mapping. Mend it or remove it.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise FairspecError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}. Mend it.") from None
    for suite in pair.suites:
        if not (tasks_folder() / suite / "_group.yaml").is_file():
            raise FairspecError(f"{path}: suites: unknown suite {suite!r}. `fairspec tasks` lists them.")
    return pair
