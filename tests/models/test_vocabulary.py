"""Tokenizers compared by what they hold: the first difference is told; padding and added tokens do not count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_models import refusal, saved
from tiny_models import encode, family, generate, noised, prompts, requests, stock
from tiny_pair import save_pair
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, WordLevel

import fairspec_bench as fs
from fairspec_bench.engine import speculative
from fairspec_bench.engine.batch import Batch
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.sampling import log_probs
from fairspec_bench.engine.speculative import decode
from fairspec_bench.models.model import Model, Rows, check_vocabulary, load_model, wrap
from fairspec_bench.models.vocabulary import difference, read_tokens
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import Backend, SamplingParams
from fairspec_bench.scoring.reference import make_references
from fairspec_bench.scoring.replay import replay
from fairspec_bench.scoring.run_folder import RunFolder

WORDS = [f"w{i}" for i in range(60)]
Put = Callable[..., Model]


def tokenizer(folder: Path, words: list[str], added: list[str] | None = None) -> None:
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    made.add_special_tokens([AddedToken(word, special=True) for word in added or []])
    made.save(str(folder / "tokenizer.json"))


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """A model of some vocabulary in a folder of its own."""

    def make(name: str, words: list[str], added: list[str] | None = None, size: int = 64) -> Model:
        folder = saved(tmp_path / name, family("llama", vocab_size=size))
        tokenizer(folder, words, added)
        return load_model(str(folder))

    return make


def test_what_is_the_same_is_let_through(put: Put) -> None:
    model = put("one", WORDS, ["<end>", "<pad>"])
    for other in (
        put("same", WORDS, ["<end>", "<pad>"]),
        put("padded", WORDS, ["<end>", "<pad>"], size=72),
        put("one added less", WORDS, ["<end>"]),
        put("none added", WORDS),
        put("one added more", WORDS, ["<end>", "<pad>", "<image>"], size=72),
    ):
        check_vocabulary(model, other)
        check_vocabulary(other, model)


@pytest.mark.parametrize(
    ("words", "added", "said"),
    [
        ([WORDS[1], WORDS[0], *WORDS[2:]], ["<end>"], "id 0 is 'w1', not 'w0'"),
        (WORDS, ["<pad>", "<end>"], "id 60 is '<pad>', not '<end>'"),
        (WORDS[:50], ["<end>"], "id 50 is '<end>', not 'w50'"),
        (WORDS[:50], None, "id 50 is no token, not 'w50'"),
        ([*WORDS, "w60"], None, "id 60 is 'w60', not '<end>'"),
        ([*WORDS[:9], "new\nline", *WORDS[10:]], ["<end>"], r"id 9 is 'new\nline', not 'w9'"),
        ([*WORDS[:9], "x" * 500, *WORDS[10:]], ["<end>"], f"id 9 is '{'x' * 40}', not 'w9'"),
    ],
)
def test_the_first_difference_is_told(put: Put, words: list[str], added: list[str] | None, said: str) -> None:
    one, other = put("one", WORDS, ["<end>"]), put("other", words, added)
    message = refusal(lambda: check_vocabulary(one, other))
    assert message.startswith(f"{other.name}: its vocabulary is not that of {one.name}: {said}.")
    assert message.endswith("Choose a drafter with the same tokenizer (docs/MODELS.md).")
    assert "same tokenizer" in refusal(lambda: check_vocabulary(other, one))


def test_where_no_tokenizer_is_known_sizes_decide(put: Put) -> None:
    known, bare = put("one", WORDS), wrap(family("llama", vocab_size=64), "bare")
    check_vocabulary(known, bare)
    other = wrap(family("llama", vocab_size=72), "wide")
    assert "its vocabulary (72 ids) is not that of" in refusal(lambda: check_vocabulary(known, other))


def test_the_hash_is_of_tokens_and_ids(put: Put) -> None:
    """As it has been written into tables of n-grams."""
    pairs = [[word, i] for i, word in enumerate(WORDS)]
    assert put("one", WORDS).vocabulary == hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def test_a_tokenizer_of_older_files_is_read_too(tmp_path: Path) -> None:
    """`vocab.json` and `merges.txt`, as GPT-2 and early Qwen models have them."""
    letters = {letter: i for i, letter in enumerate("abcd")} | {"ab": 4, "<|endoftext|>": 5}
    BPE(letters, [("a", "b")]).save(str(tmp_path))
    config = {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    found = read_tokens(tmp_path)
    assert found is not None
    assert found.ids == letters
    one = Tokenizer(BPE(letters, [("a", "b")]))
    (tmp_path / "new").mkdir()
    one.save(str(tmp_path / "new/tokenizer.json"))
    newer = read_tokens(tmp_path / "new")
    assert newer is not None
    assert difference(found, newer) is None
    assert found.sha256 == newer.sha256


def test_a_damaged_tokenizer_is_one_line(tmp_path: Path) -> None:
    saved(tmp_path)
    assert read_tokens(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "trunc')
    assert "its tokenizer cannot be read" in refusal(lambda: load_model(str(tmp_path)))


def test_a_planted_bug_is_seen(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tokenizers that have the same tokens, whatever their ids."""
    monkeypatch.setattr(
        "fairspec_bench.models.model.difference",
        lambda one, other: None if set(one.ids) == set(other.ids) else difference(one, other),
    )
    one, other = put("one", WORDS), put("other", [WORDS[1], WORDS[0], *WORDS[2:]])
    with pytest.raises(pytest.fail.Exception), pytest.raises(FairspecError):
        check_vocabulary(one, other)


# --------------------------------------------------------------------------- added tokens of other names


OLD = ["<end>", "<reserved 1>", "<pad>"]
NEW = ["<end>", "<tool>", "<pad>"]
RENAMED = 61


def test_the_share_of_ids_that_agree_is_told(put: Put) -> None:
    one, other = put("one", WORDS, OLD), put("other", [*WORDS[:50], "ten", *WORDS[51:]], OLD)
    assert "id 50 is 'ten', not 'w50'. 62 of 63 ids agree. Choose" in refusal(lambda: check_vocabulary(one, other))
    shorter = put("shorter", WORDS[:20])
    assert "20 of 63 ids agree." in refusal(lambda: check_vocabulary(one, shorter))


def test_added_tokens_of_other_names_are_let_through(put: Put) -> None:
    one, other = put("one", WORDS, OLD), put("other", WORDS, NEW)
    assert check_vocabulary(one, one) == frozenset()
    assert check_vocabulary(one, other) == check_vocabulary(other, one) == {RENAMED}
    drafter = ModelDrafter(other, one)
    (said,) = drafter.warnings
    assert said.startswith(f"{other.name}: id 61 is '<tool>', not '<reserved 1>' as in {one.name}. ")
    assert ModelDrafter(one, one).warnings == ()
    plain = put("plain", [*WORDS, "<end>", "a word", "<pad>"])
    assert "id 61 is 'a word', not '<reserved 1>'" in refusal(lambda: check_vocabulary(one, plain))
    moved = put("moved", WORDS, ["<end>", "<pad>", "<tool>"])
    assert "id 61 is '<pad>', not '<reserved 1>'" in refusal(lambda: check_vocabulary(one, moved))


def test_a_run_names_added_tokens_of_other_names(tmp_path: Path) -> None:
    verifier, drafter = save_pair(tmp_path / "pair")
    state = json.loads((drafter / "tokenizer.json").read_text())
    last = max(state["added_tokens"], key=lambda token: token["id"])
    old, last["content"] = last["content"], "<renamed>"
    (drafter / "tokenizer.json").write_text(json.dumps(state).replace(json.dumps(old), '"<renamed>"'))
    said: list[str] = []
    report = fs.run(
        str(verifier), str(drafter), ["embedded_math"], tmp_path / "run",
        languages=("en",), limit=1, max_new_tokens=4, race_rounds=0, say=said.append, cache=None,
    )  # fmt: skip
    (warning,) = RunFolder(tmp_path / "run").config.vocabulary_warnings
    assert f"id {last['id']} is '<renamed>', not {old!r}" in warning
    assert f"note: {warning}" in said
    assert warning in report.notes


PROMPTS = prompts(8, 3, 20, vocab=60)


def renamed_pair(put: Put) -> tuple[Model, ModelDrafter]:
    """Both models like the renamed id, the drafter more."""
    verifier = put("verifier", WORDS, OLD)
    drafter = noised(verifier, 0.05)
    with torch.no_grad():
        for model, loud in ((verifier, 1.5), (drafter, 3.0)):
            model.hf.lm_head.weight[RENAMED] *= loud
    folder = put("names", WORDS, NEW)
    return verifier, ModelDrafter(replace(drafter, vocabulary=folder.vocabulary, home=folder.home), verifier)


def check_never_proposed(put: Put, sampling: SamplingParams, backend: Backend = "eager") -> None:
    verifier, drafter = renamed_pair(put)
    verifier = replace(verifier, backend=backend)
    drafter = replace(drafter, verifier=verifier)
    drafts: list[torch.Tensor] = []
    accept = speculative.accept

    def watched(batch: Batch, x: torch.Tensor, *rest: Any) -> Any:
        drafts.append(x.clone())
        return accept(batch, x, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speculative, "accept", watched)
        asked = requests(PROMPTS, 12)
        done = list(decode(verifier, drafter, asked, sampling=sampling, gamma=3, batch_size=5, seed=0))
    assert sum(len(row.ids) for row in done) > 50
    assert not any((each == RENAMED).any() for each in drafts)
    encoded = encode(PROMPTS, 12)
    references = list(make_references(verifier, encoded, sampling=sampling, batch_size=8, seed=0, chunk="s"))
    assert any(RENAMED in reference.ids for reference in references)
    lines = list(replay(verifier, drafter, encoded, references, sampling=sampling, seed=0, batch_size=8, chunk="s"))
    assert not any(RENAMED in line.draft_ids for line in lines)
    plain = SamplingParams(temperature=1.0)
    for line, prompt, reference in zip(lines, encoded, references, strict=True):
        ids = torch.tensor([[*prompt.ids, *reference.ids]])
        with torch.no_grad():
            p, q = (stock(model)(ids).logits[0, len(prompt.ids) : -1] for model in (verifier, drafter.model))
        q[:, RENAMED] = -torch.inf
        overlap = torch.minimum(log_probs(p, plain).exp(), log_probs(q, plain).exp()).sum()
        assert line.overlap == pytest.approx(float(overlap), rel=1e-3, abs=1e-4)
    if sampling.greedy:
        hf = stock(verifier)
        got = {row.key: row.ids for row in done}
        assert [got[f"p{i}"] for i in range(len(PROMPTS))] == [generate(hf, ids, 12) for ids in PROMPTS]


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(temperature=1.0)], ids=["greedy", "sampled"])
def test_a_renamed_id_is_never_proposed(put: Put, sampling: SamplingParams) -> None:
    """Texts are the verifier's, which may choose it, and replay has the q that decoding had."""
    check_never_proposed(put, sampling)


def test_a_renamed_id_is_never_proposed_by_a_recorded_block(put: Put) -> None:
    check_never_proposed(put, SamplingParams(), "graph")


def test_a_mask_that_is_left_out_is_seen(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Rows.__init__

    def planted(self: Rows, *args: Any) -> None:
        begin(self, *args)
        self.never = None

    monkeypatch.setattr(Rows, "__init__", planted)
    with pytest.raises(AssertionError):
        check_never_proposed(put, SamplingParams())
