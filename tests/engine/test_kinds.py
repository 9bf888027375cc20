"""The table of drafter kinds: read without torch, true of the drafters, and open to a kind from outside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

import pytest
import torch
from tiny_models import counted, family, prompts, requests

from fairspec_bench.engine.backends.base import StepRunner
from fairspec_bench.engine.batch import Batch, Request
from fairspec_bench.engine.drafters.base import Draft, Drafter, DrafterRequest, DraftOutput, pick
from fairspec_bench.engine.drafters.kinds import DRAFTER_KINDS, DrafterKind, DrafterOption, drafter_kind
from fairspec_bench.engine.drafters.lookup import LookupDrafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.oracle import OracleDrafter
from fairspec_bench.engine.drafters.registry import load_drafter
from fairspec_bench.engine.speculative import decode
from fairspec_bench.models.model import Model, wrap
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import SamplingParams

VERIFIER = wrap(family("llama", eos_token_id=None), "verifier")
MADE: dict[str, Drafter] = {
    "model": ModelDrafter(VERIFIER, VERIFIER),
    "ngram": counted(VERIFIER, [([9, 8], (8, 9, 10))]),
    "layers": load_drafter("layers", "layers", {"layers": 1}, VERIFIER),
    "lookup": LookupDrafter(),
    "oracle": OracleDrafter(0.5, VERIFIER),
}


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, fairspec_bench.engine.drafters.kinds; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_kind_is_what_the_table_says() -> None:
    assert MADE.keys() == DRAFTER_KINDS.keys()
    for name, drafter in MADE.items():
        kind = drafter_kind(name)
        assert (kind.name, drafter.kind) == (name, name)
        output = drafter.read(requests([[9, 8]], 3), [[8, 9, 10]], 0).piece(0, 2)
        assert (output.scores is not None) is kind.proper
        assert (drafter.model is not None) is (kind.causal_lm or kind.of_verifier)
        assert kind.causal_lm or not kind.answers
        assert kind.needs_files is (kind.option is None)
        if kind.option is not None:
            value = kind.option.read("1")  # a value that every kind takes
            assert load_drafter(name, name, {kind.option.name: value}, VERIFIER).kind == name
    with pytest.raises(FairspecError, match=r"unknown drafter kind 'eagle'\. Known: model, ngram"):
        drafter_kind("eagle")


# --------------------------------------------------------------------------- a kind from outside, with a proper q


@dataclass(frozen=True)
class UnigramDrafter:
    """Whatever came before, q prefers the ids below `low` by as much as `weight`."""

    verifier: Model
    low: int
    weight: float = 3.0
    kind: str = field(default="unigram", init=False)
    name: str = field(default="unigram", init=False)
    identity: None = field(default=None, init=False)
    model: None = field(default=None, init=False)

    def scores(self) -> torch.Tensor:
        return self.weight * (torch.arange(self.verifier.vocab_size) < self.low).float()

    def begin(self, batch: int, max_len: int) -> UnigramDrafter:
        return self

    def prefill(self, row: int, request: Request, seed: int, reference: Sequence[int] | None) -> None:
        pass

    def propose(self, batch: Batch, gamma: int, steps: StepRunner) -> Draft:
        scores = self.scores().expand(len(batch.pos), 1, -1)
        ids, log_qs = zip(*(pick(batch, slot[:, None], scores) for slot in batch.after(gamma).unbind(1)), strict=True)
        for i in range(gamma):
            steps.lap("draft_next" if i else "draft_first")
        return Draft(torch.cat(ids, 1), None if batch.sampling.greedy else torch.cat(log_qs, 1))

    def read(self, requests: Sequence[Request], texts: Sequence[Sequence[int]], seed: int) -> UnigramDrafter:
        return self

    def piece(self, first: int, last: int) -> DraftOutput:
        scores = self.scores().expand(1, last - first, -1)
        return DraftOutput(scores.argmax(-1), scores)


@pytest.fixture
def unigram(monkeypatch: pytest.MonkeyPatch) -> Drafter:
    """Loaded by name: one module with `load`, one entry in the table."""
    module = ModuleType("unigram_drafter")

    def load(request: DrafterRequest, verifier: Model) -> UnigramDrafter:
        return UnigramDrafter(verifier, **request.parsed(request.options, low=int))

    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kind = DrafterKind("unigram", "unigram", module.__name__, proper=True, option=DrafterOption("low", int, "9"))
    monkeypatch.setitem(DRAFTER_KINDS, kind.name, kind)
    return load_drafter("unigram", "unigram", {"low": "30"}, VERIFIER)


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(temperature=1.0)])
def test_a_kind_from_outside_decodes_without_loss_on_every_backend(unigram: Drafter, sampling: SamplingParams) -> None:
    asked = requests(prompts(8, 3, 8), 12)
    options = {"sampling": sampling, "gamma": 3, "batch_size": 4, "seed": 0}
    runs = {
        verifier.backend: {row.key: (row.ids, row.blocks) for row in decode(verifier, unigram, asked, **options)}
        for verifier in (VERIFIER, replace(VERIFIER, backend="graph"))
    }
    assert runs["eager"] == runs["graph"]
    if not sampling.greedy:
        assert sum(block.accepted for _, blocks in runs["eager"].values() for block in blocks) > 0
    else:
        alone = {row.key: row.ids for row in decode(VERIFIER, None, asked, **options)}
        assert {key: ids for key, (ids, _) in runs["eager"].items()} == alone
