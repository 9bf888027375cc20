"""Prompt lookup against a slow version, the oracle's rate, options, and that a drafter depends on the text alone."""

from __future__ import annotations

import pytest
import torch
from tiny_models import VOCAB, family, noised, prompts, requests

from fairspec_bench.engine.drafters import ModelDrafter, NgramDrafter, OracleDrafter, load_drafter, lookup
from fairspec_bench.engine.loop import decode
from fairspec_bench.engine.model import wrap
from fairspec_bench.records import FairspecError, Rule

VERIFIER = wrap(family("llama", eos_token_id=None), "verifier")


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


def test_ngram_proposals_are_those_of_each_prefix() -> None:
    (request,) = requests([[9, 8, 9, 8, 10]], 5)
    text = [9, 8, 9, 8, 10]
    want = [slow_lookup([*request.ids, *text[: i + 1]], 3) for i in range(4)]
    assert NgramDrafter().proposals(request, text, seed=0) == want


@pytest.mark.parametrize("acceptance", [0.0, 0.6, 1.0])
def test_oracle_is_right_as_often_as_set(acceptance: float) -> None:
    asked = requests(prompts(40, 3, 8), 60)
    text = {done.key: done.ids for done in decode(VERIFIER, None, asked, rule=Rule(), gamma=0, batch_size=40, seed=0)}
    oracle = OracleDrafter(acceptance, VERIFIER)
    drafts = [draft for request in asked for draft in oracle.proposals(request, text[request.key], seed=4)]
    tokens = [token for request in asked for token in text[request.key][1:]]
    hits = [draft == token for draft, token in zip(drafts, tokens, strict=True)]
    assert abs(sum(hits) / len(hits) - acceptance) <= 3.3 * (acceptance * (1 - acceptance) / len(hits)) ** 0.5
    done = decode(VERIFIER, oracle, asked, rule=Rule(), gamma=3, batch_size=40, seed=4, reference=text)
    blocks = [block for row in done for block in row.blocks]
    tested = sum(min(block.emitted, 3) for block in blocks)
    rate = sum(block.accepted for block in blocks) / tested
    assert abs(rate - acceptance) <= 3.3 * (acceptance * (1 - acceptance) / tested) ** 0.5


def test_a_paying_oracle_drafts_the_same_and_runs_forwards() -> None:
    asked = requests(prompts(4, 3, 8), 10)
    text = {done.key: done.ids for done in decode(VERIFIER, None, asked, rule=Rule(), gamma=0, batch_size=4, seed=0)}
    options = {"rule": Rule(), "gamma": 3, "batch_size": 1, "seed": 0, "reference": text}
    free, paid = (
        {row.key: row for row in decode(VERIFIER, OracleDrafter(0.5, VERIFIER, payer), asked, **options)}
        for payer in (None, ModelDrafter(noised(VERIFIER, 0.1), VERIFIER))
    )
    assert all(free[key].blocks == paid[key].blocks for key in text)
    assert all(free[key].pieces.draft_first == 0 < paid[key].pieces.draft_first for key in text)


def test_own_temperature_belongs_to_q() -> None:
    drafter = ModelDrafter(VERIFIER, VERIFIER, temperature=0.5)
    assert drafter.rule(Rule(temperature=1.0, top_k=4)) == Rule(temperature=0.5, top_k=4)
    assert drafter.rule(Rule()) == Rule()


def test_refused_in_one_line() -> None:
    other = wrap(family("llama", vocab_size=VOCAB + 1), "other")
    oracle, asked = OracleDrafter(0.5, VERIFIER), requests([[9]], 3)
    options = {"rule": Rule(), "batch_size": 1, "seed": 0}
    refused = {
        "vocabulary": lambda: ModelDrafter(other, VERIFIER),
        "temperature": lambda: ModelDrafter(VERIFIER, VERIFIER, temperature=0.0),
        "kind": lambda: load_drafter("eagle", "x", None, VERIFIER),
        "max_ngram": lambda: load_drafter("ngram", "ngram", {"max_ngram": 0}, VERIFIER),
        "unknown option": lambda: load_drafter("ngram", "ngram", {"n": 3}, VERIFIER),
        "acceptance": lambda: load_drafter("oracle", "oracle", {"acceptance": 1.5}, VERIFIER),
        "could not convert": lambda: load_drafter("oracle", "oracle", {"acceptance": "high"}, VERIFIER),
        "reference": lambda: next(decode(VERIFIER, oracle, asked, gamma=2, **options)),
        "gamma 0": lambda: next(decode(VERIFIER, NgramDrafter(), asked, gamma=0, **options)),
        "gamma 65": lambda: next(decode(VERIFIER, NgramDrafter(), asked, gamma=65, **options)),
    }
    for word, call in refused.items():
        with pytest.raises(FairspecError, match=word) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_padded_vocabularies_share_a_tokenizer() -> None:
    """Embeddings of different sizes, one tokenizer: q is cut or padded to the verifier's ids and nothing is lost."""
    asked = requests(prompts(6, 3, 8), 12)
    for rule in (Rule(), Rule(temperature=1.0)):
        for size in (VOCAB - 3, VOCAB + 5):
            verifier = wrap(family("llama", eos_token_id=None), "verifier", vocabulary="same")
            drafter = ModelDrafter(wrap(family("llama", 1, vocab_size=size), "padded", vocabulary="same"), verifier)
            done = decode(verifier, drafter, asked, rule=rule, gamma=2, batch_size=6, seed=0)
            got = {row.key: row.ids for row in done}
            assert all(0 <= token < VOCAB for ids in got.values() for token in ids)
            if rule.greedy:
                alone = decode(verifier, None, asked, rule=rule, gamma=0, batch_size=6, seed=0)
                assert got == {row.key: row.ids for row in alone}
