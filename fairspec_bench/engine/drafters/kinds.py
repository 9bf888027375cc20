"""The kinds of drafters: one entry of `DRAFTER_KINDS` each. Imports no torch, so that any module can read the table.

A new kind is a module with a function `load(request, verifier) -> Drafter`, and its entry here (docs/howto/drafter.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from fairspec_bench.schemas.base import FairspecError


@dataclass(frozen=True)
class DrafterOption:
    """The option that a value after a colon sets, as in `oracle:0.8`, and its range."""

    name: str
    read: Callable[[str], int | float]
    example: str
    least: float = -inf
    most: float = inf

    def check(self, value: float) -> None:
        """Raises `FairspecError` for a value out of range."""
        if not self.least <= value <= self.most:
            raise FairspecError(f"drafter option {self.name}={value}: must be from {self.least:g} to {self.most:g}.")


@dataclass(frozen=True)
class DrafterKind:
    """What the package needs to know of a kind of drafter.

    Attributes:
        name: what `fairspec_drafter.json`, `run.json` and a submission call it.
        title: what the site calls it.
        module: has the function `load(request, verifier)`; imported when a drafter of this kind is loaded.
        proper: whether it has a q over the whole vocabulary, so that its KL and overlap with p are defined.
        needs_files: whether it is given as a folder or Hub id; else by its name, with `option` after a colon.
        option: what a value after the colon sets; `None`: no value may follow.
        causal_lm: whether it is a causal language model: pinned by commit or hash of weights, can be fine-tuned, and
            makes one forward pass per draft.
        answers: whether its own answers are scored beside the verifier's (the stage `drafter_answer`).
        of_verifier: whether it is made of the verifier's own weights, from which it can be fine-tuned.
        uses_reference: whether its drafts are made from the verifier's own output: a calibration, never ranked.
        vllm_method: vLLM's name of this way to draft; `None`: vLLM has none.
    """

    name: str
    title: str
    module: str
    proper: bool = False
    needs_files: bool = False
    option: DrafterOption | None = None
    causal_lm: bool = False
    answers: bool = False
    of_verifier: bool = False
    uses_reference: bool = False
    vllm_method: str | None = None


_PACKAGE = "fairspec_bench.engine.drafters"

DRAFTER_KINDS: dict[str, DrafterKind] = {
    kind.name: kind
    for kind in (
        DrafterKind(
            "model",
            "causal model",
            f"{_PACKAGE}.model",
            proper=True,
            needs_files=True,
            causal_lm=True,
            answers=True,
            vllm_method="draft_model",
        ),
        DrafterKind("ngram", "n-gram tables", f"{_PACKAGE}.ngram", proper=True, needs_files=True),
        DrafterKind(
            "layers",
            "first layers",
            f"{_PACKAGE}.layers",
            proper=True,
            option=DrafterOption("layers", int, "8", 1),
            of_verifier=True,
        ),
        DrafterKind(
            "lookup",
            "prompt lookup",
            f"{_PACKAGE}.lookup",
            option=DrafterOption("max_ngram", int, "3", 1, 16),
            vllm_method="ngram",
        ),
        DrafterKind(
            "oracle",
            "oracle",
            f"{_PACKAGE}.oracle",
            option=DrafterOption("acceptance", float, "0.8", 0, 1),
            uses_reference=True,
        ),
    )
}


def drafter_kind(name: str) -> DrafterKind:
    """The entry of a kind. Raises `FairspecError` for an unknown one."""
    if name not in DRAFTER_KINDS:
        raise FairspecError(f"unknown drafter kind {name!r}. Known: {', '.join(DRAFTER_KINDS)}.")
    return DRAFTER_KINDS[name]


def check_option(kind: str, value: float) -> None:
    """Check the value of the option of a kind. Raises `FairspecError`."""
    option = drafter_kind(kind).option
    assert option is not None
    option.check(value)
