"""The n-gram drafter: its distribution against dictionaries, its groups, size and files, and what is refused."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import VOCAB, family

from fairspec_bench.engine.batch import Request
from fairspec_bench.engine.drafters import ngram
from fairspec_bench.engine.drafters.base import FILE, kind_of
from fairspec_bench.engine.drafters.ngram import TABLES, NgramDrafter, Tables, fit, load_tables
from fairspec_bench.engine.drafters.registry import load_drafter
from fairspec_bench.models.model import wrap
from fairspec_bench.schemas.base import FairspecError

SIZE = 11
Text = tuple[str, list[int], list[int]]


def made_up(seed: int, groups: Sequence[str] = ("s/a", "s/b", "c"), count: int = 12) -> list[Text]:
    """Texts over few ids, so that contexts recur; some prompts shorter than a context, one empty output."""
    rng = random.Random(seed)
    draw = lambda low, high: [int(rng.paretovariate(0.9)) % SIZE for _ in range(rng.randint(low, high))]  # noqa: E731
    return [(groups[i % len(groups)], draw(1, 6), draw(1, 15)) for i in range(count)] + [("d", [1, 2], [])]


def slow_law(texts: Sequence[Text], groups: set[str], order: int, before: Sequence[int]) -> list[float]:
    """Witten–Bell by the letter, from dictionaries of whole contexts."""
    distribution = [1 / SIZE] * SIZE
    for length in range(order):
        if length > len(before):
            break
        context = tuple(before[len(before) - length :])
        seen = Counter(
            token
            for group, prompt, output in texts
            if group in groups
            for i, token in enumerate(output)
            for whole in [(*prompt, *output[:i])]
            if len(whole) >= length and whole[len(whole) - length :] == context
        )
        if seen:
            total, kinds = sum(seen.values()), len(seen)
            distribution = [(seen[x] + kinds * distribution[x]) / (total + kinds) for x in range(SIZE)]
    return distribution


def law_after(tables: Tables, group: str, contexts: Sequence[Sequence[int]]) -> torch.Tensor:
    """The tables' distribution after whole texts, as one row of many times."""
    ids = [[ngram.NO_TOKEN] * 9 + list(context) for context in contexts]
    window = torch.tensor([[row[len(row) - tables.order + 1 :] if tables.order > 1 else [] for row in ids]])
    root = tables.root(group)
    return tables.distribution(torch.tensor([root]), tables.unigrams(root)[None], window.long())[0]


def largest_error(texts: Sequence[Text], order: int) -> float:
    """Against the slow version, at contexts of the texts and at unseen ones, for every kind of group."""
    tables = fit(texts, SIZE, order)
    rng = random.Random(1)
    contexts = [[*prompt, *output[: rng.randint(0, len(output))]] for _, prompt, output in texts]
    contexts += [[rng.randrange(SIZE) for _ in range(rng.randint(1, 6))] for _ in range(20)]
    every = {"s/a", "s/b", "c", "d"}
    worst = 0.0
    for group, whole in {"s/a": {"s/a"}, "t/c": {"c"}, "s/z": every, "d": every, "": every}.items():
        got = law_after(tables, group, contexts)
        want = torch.tensor([slow_law(texts, whole, order, context) for context in contexts])
        worst = max(worst, float((got - want).abs().max()), float((got.sum(-1) - 1).abs().max()))
        assert float(got.min()) > 0
    return worst


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_law_is_that_of_the_dictionaries(order: int) -> None:
    for seed in range(3):
        assert largest_error(made_up(seed), order) < 2e-6


def _prompts_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = ngram._counted
    monkeypatch.setattr(ngram, "_counted", lambda ids, told, *rest: counted(ids, told * 0 + 1, *rest))


def _contexts_cross_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = ngram._counted
    monkeypatch.setattr(
        ngram, "_counted", lambda ids, told, room, *rest: counted(ids, told, np.arange(len(ids), 0, -1), *rest)
    )


def _nothing_is_left_to_the_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    followers = Tables._followers

    def planted(self: Tables, *args: object) -> ngram.Followers:
        found = followers(self, *args)
        return found._replace(kinds=found.kinds.clamp_max(1))

    monkeypatch.setattr(Tables, "_followers", planted)


def _a_missing_context_is_its_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    find = Tables._find
    monkeypatch.setattr(Tables, "_find", lambda *args: find(*args).clamp_min(0))


@pytest.mark.parametrize(
    "plant",
    [
        _prompts_are_counted,
        _contexts_cross_texts,
        _nothing_is_left_to_the_shorter,
        _a_missing_context_is_its_neighbour,
    ],
)
def test_a_planted_bug_is_seen(plant: object, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert largest_error(made_up(0), 3) > 1e-3


def test_a_large_vocabulary_needs_no_table_of_it() -> None:
    """V = 150,000, batch 50: what is kept grows with the texts, and one step gives a distribution for every row."""
    rng = random.Random(0)
    size = 150_000
    texts = [
        (str(i % 11), [rng.randrange(size)], [int(rng.paretovariate(0.3)) % size for _ in range(100)])
        for i in range(200)
    ]
    tables = fit(texts, size, 5)
    kept = sum(tensor.numel() for after in tables.followers for tensor in after)
    assert kept < 60 * 2 * sum(len(prompt) + len(output) for _, prompt, output in texts)
    roots = [tables.root(str(i % 12)) for i in range(50)]
    unigrams = torch.stack([tables.unigrams(root) for root in roots])
    window = torch.tensor([[texts[i][2][7:11]] for i in range(50)])
    distribution = tables.distribution(torch.tensor(roots), unigrams, window)
    assert distribution.shape == (50, 1, size)
    torch.testing.assert_close(distribution.sum(-1), torch.ones(50, 1), rtol=0, atol=1e-4)
    assert bool((distribution > 0).all())


# --------------------------------------------------------------------------- files


def saved(folder: Path, vocabulary: str | None = None) -> Tables:
    texts = [(group, prompt, output) for group, prompt, output in made_up(0)]
    tables = fit(texts, VOCAB, 3, vocabulary=vocabulary)
    tables.save(folder)
    return tables


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    tables = saved(tmp_path / "x")
    assert kind_of(tmp_path / "x") == "ngram"
    verifier = wrap(family("llama"), "verifier")
    drafter = load_drafter("ngram", str(tmp_path / "x"), None, verifier, name="counts")
    assert isinstance(drafter, NgramDrafter)
    assert (drafter.name, drafter.identity) == ("counts", f"tables-sha256:{tables.sha256}")
    request = Request("k", (1, 2, 3), 5, 0, None, "s/a")
    guesses = [one.read([request], [[4, 1, 2]], 0).piece(0, 2) for one in (drafter, NgramDrafter(tables, verifier))]
    assert torch.equal(guesses[0].scores, guesses[1].scores)
    again = saved(tmp_path / "y")
    assert again.sha256 == tables.sha256
    assert (tmp_path / "x" / TABLES).read_bytes() == (tmp_path / "y" / TABLES).read_bytes()
    other = fit([("s/a", [1], [2, 3])], VOCAB, 3)
    assert other.sha256 != tables.sha256 != replace(tables, groups=("s/x", *tables.groups[1:])).sha256


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    verifier = wrap(family("llama"), "verifier", vocabulary="f" * 64)
    for tables in (saved(tmp_path, "e" * 64), fit([("a", [1], [2])], VOCAB - 1)):
        with pytest.raises(FairspecError, match="is not that of verifier"):
            NgramDrafter(tables, verifier)
    assert NgramDrafter(saved(tmp_path, "f" * 64), verifier).identity
    with pytest.raises(FairspecError, match="unknown option 'order'"):
        load_drafter("ngram", str(tmp_path), {"order": 3}, verifier)


def test_what_cannot_be_counted_is_refused() -> None:
    refused = {
        "order=0": ([("a", [1], [2])], SIZE, 0),
        "order=9": ([("a", [1], [2])], SIZE, 9),
        "0 groups": ([("a", [1], [])], SIZE, 2),
        "not one of 11": ([("a", [1], [SIZE])], SIZE, 2),
        "one of 11": ([("a", [-1], [2])], SIZE, 2),
    }
    for word, arguments in refused.items():
        with pytest.raises(FairspecError, match=word):
            fit(*arguments)


def _rewritten(folder: Path, **changes: object) -> None:
    file = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(file | changes))


def _retold(folder: Path, name: str, change: object) -> None:
    tensors = load_file(folder / TABLES)
    tensors[name] = change(tensors[name])
    save_file(tensors, folder / TABLES)


DAMAGE = {
    "order: ": lambda folder: _rewritten(folder, order=9),
    "vocab_size: ": lambda folder: _rewritten(folder, vocab_size=2**40),
    "more: ": lambda folder: _rewritten(folder, more=1),
    "out of range": lambda folder: _retold(folder, "keys.2", lambda x: x + 10**9),
    "a number out of range": lambda folder: _retold(folder, "counts.3", lambda x: -x),
    "wrong type or shape": lambda folder: _retold(folder, "counts.1", lambda x: x.float()),
    "of a wrong type": lambda folder: _retold(folder, "keys.1", lambda x: x[:-1]),
    "out of order": lambda folder: _retold(folder, "keys.3", lambda x: x.flip(0)),
    "a group without a token": lambda folder: _retold(folder, "counts.1", lambda x: x * 0),
    "whose hash is in its json": lambda folder: _retold(folder, "counts.3", lambda x: x + 1),
    "not the bytes": lambda folder: _rewritten(folder, groups=["p", "q", "r"]),
    "named twice": lambda folder: _rewritten(folder, groups=["p", "p", "r"]),
    "not the tables": lambda folder: _rewritten(folder, order=2),
    "cannot be loaded": lambda folder: (folder / TABLES).write_bytes((folder / TABLES).read_bytes()[:100]),
    "No such file": lambda folder: (folder / TABLES).unlink(),
    "no such file": lambda folder: (folder / FILE).unlink(),
}


@pytest.mark.parametrize("word", DAMAGE)
def test_damaged_and_hostile_files_are_refused_in_one_line(word: str, tmp_path: Path) -> None:
    saved(tmp_path)
    DAMAGE[word](tmp_path)
    with pytest.raises(FairspecError, match=word) as caught:
        load_tables(tmp_path)
    assert "\n" not in str(caught.value)


def test_tables_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    monkeypatch.setattr(ngram, "MAX_TABLES_BYTES", 100)
    with pytest.raises(FairspecError, match="larger than 100 bytes"):
        load_tables(tmp_path)
