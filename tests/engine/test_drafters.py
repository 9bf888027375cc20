"""Prompt lookup against a slow version, the oracle's rate, options, and that a drafter depends on the text alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import VOCAB, family, noised, prompts, requests, stock

from fairspec_bench.engine.backends.eager import EagerSteps
from fairspec_bench.engine.batch import Batch
from fairspec_bench.engine.clock import Clock
from fairspec_bench.engine.drafters.base import FILE, MAX_FILE_BYTES, kind_of
from fairspec_bench.engine.drafters.lookup import LookupDrafter, lookup
from fairspec_bench.engine.drafters.model import ModelDrafter, ModelFile
from fairspec_bench.engine.drafters.oracle import OracleDrafter
from fairspec_bench.engine.drafters.registry import load_drafter
from fairspec_bench.engine.speculative import Request, decode
from fairspec_bench.models.model import wrap
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.io import write_record

VERIFIER = wrap(family("llama", eos_token_id=None), "verifier")
SHAKY = noised(VERIFIER, 0.15)


def slow_lookup(text: list[int], longest: int) -> int:
    for size in range(longest, 0, -1):
        for end in range(len(text) - 1, size - 1, -1):
            if text[end - size : end] == text[-size:]:
                return text[end]
    return text[-1]


@pytest.mark.parametrize("longest", [1, 3, 5])
def test_lookup_against_the_slow_version(longest: int) -> None:
    rows = prompts(40, 1, 25, vocab=11)
    width = max(map(len, rows)) + 3
    ids = torch.tensor([row + [9] * (width - len(row)) for row in rows])
    got = lookup(ids, torch.tensor([len(row) - 1 for row in rows]), longest)
    assert got.tolist() == [slow_lookup(row, longest) for row in rows]


def test_lookup_drafts_are_those_of_each_prefix() -> None:
    (request,) = requests([[9, 8, 9, 8, 10]], 5)
    text = [9, 8, 9, 8, 10]
    want = [slow_lookup([*request.ids, *text[: i + 1]], 3) for i in range(4)]
    drafts = LookupDrafter().read([request], [text], seed=0).piece(0, 4)
    assert drafts.ids.tolist() == [want]
    assert drafts.scores is None


@pytest.mark.parametrize("acceptance", [0.0, 0.6, 1.0])
def test_oracle_is_right_as_often_as_set(acceptance: float) -> None:
    asked = requests(prompts(40, 3, 8), 60)
    text = {
        done.key: done.ids
        for done in decode(VERIFIER, None, asked, sampling=SamplingParams(), gamma=0, batch_size=40, seed=0)
    }
    oracle = OracleDrafter(acceptance, VERIFIER)
    drafts = oracle.read(asked, [text[request.key] for request in asked], seed=4).piece(0, 59).ids.flatten().tolist()
    tokens = [token for request in asked for token in text[request.key][1:]]
    hits = [draft == token for draft, token in zip(drafts, tokens, strict=True)]
    assert abs(sum(hits) / len(hits) - acceptance) <= 3.3 * (acceptance * (1 - acceptance) / len(hits)) ** 0.5
    done = decode(VERIFIER, oracle, asked, sampling=SamplingParams(), gamma=3, batch_size=40, seed=4, reference=text)
    blocks = [block for row in done for block in row.blocks]
    tested = sum(min(block.emitted, 3) for block in blocks)
    rate = sum(block.accepted for block in blocks) / tested
    assert abs(rate - acceptance) <= 3.3 * (acceptance * (1 - acceptance) / tested) ** 0.5


def test_a_paying_oracle_drafts_the_same_and_runs_forwards() -> None:
    asked = requests(prompts(4, 3, 8), 10)
    text = {
        done.key: done.ids
        for done in decode(VERIFIER, None, asked, sampling=SamplingParams(), gamma=0, batch_size=4, seed=0)
    }
    options = {
        "sampling": SamplingParams(),
        "gamma": 3,
        "batch_size": 1,
        "seed": 0,
        "reference": text,
        "exact_times": True,
    }
    free, paid = (
        {row.key: row for row in decode(VERIFIER, OracleDrafter(0.5, VERIFIER, payer), asked, **options)}
        for payer in (None, ModelDrafter(noised(VERIFIER, 0.1), VERIFIER))
    )
    assert all(free[key].blocks == paid[key].blocks for key in text)
    assert all(free[key].step_times.draft_first == 0 < paid[key].step_times.draft_first for key in text)


# --------------------------------------------------------------------------- a temperature of its own, by group

BY_GROUP = {"s/l": 0.5, "l": 0.8, "s/m": 2.0}


def test_a_group_is_looked_up_whole_then_by_its_end() -> None:
    drafter = ModelDrafter(VERIFIER, VERIFIER, temperature=1.5, temperatures=BY_GROUP)
    wanted = {"s/l": 0.5, "t/l": 0.8, "l": 0.8, "s/m": 2.0, "t/m": 1.5, "": 1.5}
    assert {group: drafter.own_temperature(group) for group in wanted} == wanted


def test_own_temperatures_divide_the_logits_of_their_rows() -> None:
    """The same prompts in rows of different groups, live and read: q is the softmax of logits over the temperature."""
    groups, ids = ("s/l", "t/l", "s/m", "x"), prompts(1, 9, 9)[0]
    drafter = ModelDrafter(VERIFIER, VERIFIER, temperatures=BY_GROUP)
    asked = [Request(group, tuple(ids), 9, 5, None, group) for group in groups]
    logits = stock(VERIFIER)(torch.tensor([ids])).logits[0, -1].detach()
    rows = torch.tensor([[*ids, *[0] * 9]] * 4)
    ones = torch.ones(4, dtype=torch.long)
    batch = Batch(
        rows, 8 * ones, 9 * ones, 5 * ones, ones, torch.zeros(4, 18, 2), None, 18, SamplingParams(temperature=0.7), 0,
        VERIFIER.vocab_size,
    )  # fmt: skip
    drafting = drafter.begin(4, 18)
    for row, request in enumerate(asked):
        drafting.prefill(row, request, 0, None)
    log_q = drafting.propose(batch, 1, EagerSteps(Clock(VERIFIER.device, False))).log_q
    shorter = [replace(request, ids=request.ids[:-1]) for request in asked]
    scores = drafter.read(shorter, [ids[-1:] * 2] * 4, seed=0).piece(0, 1).scores
    assert log_q is not None
    assert scores is not None
    for row, temperature in enumerate((0.5, 0.8, 2.0, 1.0)):
        torch.testing.assert_close(log_q[row, 0], (logits / temperature / 0.7).log_softmax(-1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(scores[row, 0], logits / temperature, rtol=1e-4, atol=1e-4)


def test_a_greedy_draft_has_no_temperature() -> None:
    asked = [replace(request, group="s/m") for request in requests(prompts(8, 3, 8), 12)]
    options = {"sampling": SamplingParams(), "gamma": 3, "batch_size": 4, "seed": 0}
    plain, tempered = (
        {row.key: (row.ids, row.blocks) for row in decode(VERIFIER, drafter, asked, **options)}
        for drafter in (
            ModelDrafter(SHAKY, VERIFIER),
            ModelDrafter(SHAKY, VERIFIER, temperatures={"m": 37.0}),
        )
    )
    assert plain == tempered


def test_temperatures_lie_beside_the_weights(tmp_path: Path) -> None:
    VERIFIER.hf.save_pretrained(tmp_path)
    plain = load_drafter("model", str(tmp_path), {"temperature": "0.9"}, VERIFIER)
    write_record(tmp_path / FILE, ModelFile(kind="model", temperatures=BY_GROUP))
    assert kind_of(tmp_path) == "model"
    drafter = load_drafter("model", str(tmp_path), None, VERIFIER, name="d")
    assert isinstance(plain, ModelDrafter)
    assert isinstance(drafter, ModelDrafter)
    assert (plain.own_temperature("s/l"), drafter.own_temperature("s/l"), drafter.name) == (0.9, 0.5, "d")
    assert plain.identity == VERIFIER.content
    assert drafter.identity.startswith(f"{plain.identity}+temperatures-sha256:")
    assert drafter.identity != replace(drafter, temperatures=BY_GROUP | {"l": 0.81}).identity
    damage = {
        "temperatures.l": '{"kind": "model", "temperatures": {"l": 0}}',
        "temperatures.m": '{"kind": "model", "temperatures": {"m": "hot"}}',
        "more": '{"kind": "model", "temperatures": {}, "more": 1}',
        "kind": '{"kind": "ngram", "temperatures": {}}',
        "Invalid JSON": "{",
        "larger than": " " * (MAX_FILE_BYTES + 1),
    }
    for word, text in damage.items():
        (tmp_path / FILE).write_text(text)
        with pytest.raises(FairspecError, match=word) as caught:
            load_drafter("model", str(tmp_path), None, VERIFIER)
        assert "\n" not in str(caught.value)


def test_refused_in_one_line() -> None:
    other = wrap(family("llama", vocab_size=VOCAB + 1), "other")
    oracle, asked = OracleDrafter(0.5, VERIFIER), requests([[9]], 3)
    options = {"sampling": SamplingParams(), "batch_size": 1, "seed": 0}
    refused = {
        "vocabulary": lambda: ModelDrafter(other, VERIFIER),
        "temperature": lambda: ModelDrafter(VERIFIER, VERIFIER, temperature=0.0),
        "drafter model: could not": lambda: load_drafter("model", "x", {"temperature": "hot"}, VERIFIER),
        "kind": lambda: load_drafter("eagle", "x", None, VERIFIER),
        "max_ngram": lambda: load_drafter("lookup", "lookup", {"max_ngram": 0}, VERIFIER),
        "unknown option": lambda: load_drafter("lookup", "lookup", {"n": 3}, VERIFIER),
        "acceptance": lambda: load_drafter("oracle", "oracle", {"acceptance": 1.5}, VERIFIER),
        "could not convert": lambda: load_drafter("oracle", "oracle", {"acceptance": "high"}, VERIFIER),
        "reference": lambda: next(decode(VERIFIER, oracle, asked, gamma=2, **options)),
        "gamma 0": lambda: next(decode(VERIFIER, LookupDrafter(), asked, gamma=0, **options)),
        "gamma 65": lambda: next(decode(VERIFIER, LookupDrafter(), asked, gamma=65, **options)),
    }
    for word, call in refused.items():
        with pytest.raises(FairspecError, match=word) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_padded_vocabularies_share_a_tokenizer() -> None:
    """Embeddings of different sizes, one tokenizer: q is cut or padded to the verifier's ids and nothing is lost."""
    asked = requests(prompts(6, 3, 8), 12)
    for sampling in (SamplingParams(), SamplingParams(temperature=1.0)):
        for size in (VOCAB - 3, VOCAB + 5):
            verifier = wrap(family("llama", eos_token_id=None), "verifier", vocabulary="same")
            drafter = ModelDrafter(wrap(family("llama", 1, vocab_size=size), "padded", vocabulary="same"), verifier)
            done = decode(verifier, drafter, asked, sampling=sampling, gamma=2, batch_size=6, seed=0)
            got = {row.key: row.ids for row in done}
            assert all(0 <= token < VOCAB for ids in got.values() for token in ids)
            if sampling.greedy:
                alone = decode(verifier, None, asked, sampling=sampling, gamma=0, batch_size=6, seed=0)
                assert got == {row.key: row.ids for row in alone}
