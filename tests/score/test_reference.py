"""References: the verifier's own texts, the same whatever the batch, kept by content and never trusted when damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import EOS, encode, family, generate, noised, prompts, stock

from fairspec_bench.engine.model import wrap
from fairspec_bench.records import FairspecError, Rule, Trace
from fairspec_bench.score import reference
from fairspec_bench.score.reference import make_references, pair

VERIFIER = wrap(family("llama"), "verifier")
ENCODED = encode(prompts(12, 3, 20), cap=10)
SAMPLED = Rule(temperature=1.0)


def references(cache: Path | None = None, **changes: object) -> list[Trace]:
    options = {"rule": Rule(), "batch_size": 4, "seed": 0, "shard": "s/l#0", "cache": cache, **changes}
    verifier, encoded = options.pop("verifier", VERIFIER), options.pop("encoded", ENCODED)
    return list(make_references(verifier, encoded, **options))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of all requests that are really decoded."""
    keys: list[str] = []
    real = reference.decode

    def spy(verifier: object, drafter: object, requests: list, **options: object) -> object:
        keys.extend(request.key for request in requests)
        return real(verifier, drafter, requests, **options)

    monkeypatch.setattr(reference, "decode", spy)
    return keys


def test_traces_are_generates_ids_in_the_order_of_the_prompts() -> None:
    hf = stock(VERIFIER)
    traces = references()
    assert [trace.key for trace in traces] == [prompt.key for prompt in ENCODED]
    assert [trace.ids for trace in traces] == [generate(hf, list(prompt.ids), 10) for prompt in ENCODED]
    assert [trace.prompt_sha for trace in traces] == [prompt.sha for prompt in ENCODED]
    finishes = {trace.finish for trace in traces}
    assert finishes == {"eos", "cap"}
    assert all((trace.ids[-1] == EOS) == (trace.finish == "eos") for trace in traces)


@pytest.mark.parametrize("rule", [Rule(), SAMPLED])
def test_batch_and_neighbours_change_nothing(rule: Rule) -> None:
    together = references(rule=rule)
    assert references(rule=rule, batch_size=1) == together
    assert references(rule=rule, encoded=ENCODED[5:6]) == together[5:6]


def test_the_cache_gives_the_same_without_decoding(tmp_path: Path, decoded: list[str]) -> None:
    fresh = references(tmp_path)
    assert len(decoded) == 12
    again = references(tmp_path, shard="s/l#9", batch_size=1)
    assert len(decoded) == 12
    assert [trace.model_copy(update={"shard": "s/l#0"}) for trace in again] == fresh
    more = [*encode([[9, 10, 11]], cap=10), *ENCODED]
    renamed = [prompt.model_copy(update={"key": f"t/l/{i}"}) for i, prompt in enumerate(more)]
    assert [trace.ids for trace in references(tmp_path, encoded=renamed)][1:] == [trace.ids for trace in fresh]
    assert decoded[12:] == ["t/l/0"]


def test_all_that_decides_a_text_is_in_its_address(tmp_path: Path, decoded: list[str]) -> None:
    references(tmp_path)
    references(tmp_path, seed=1)
    assert len(decoded) == 12, "the greedy rule has no seed"
    stop = dict.fromkeys((prompt.key for prompt in ENCODED), lambda ids: 2 if len(ids) > 1 else None)
    changes = [
        {"rule": SAMPLED},
        {"rule": SAMPLED, "seed": 1},
        {"rule": Rule(temperature=1.0, top_k=9)},
        {"verifier": wrap(noised(VERIFIER, 0.01).hf, VERIFIER.name)},
        {"verifier": wrap(family("llama"), "another name")},
        {"encoded": [prompt.model_copy(update={"cap": 9}) for prompt in ENCODED]},
        {"stops": stop, "stop_identity": "two tokens"},
    ]
    for number, change in enumerate(changes, start=2):
        traces = references(tmp_path, **change)
        assert len(decoded) == 12 * number, change
    assert all(len(trace.ids) <= 2 for trace in traces)
    with pytest.raises(ValueError, match="stop_identity"):
        references(tmp_path, stops=stop)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text, other: text[: len(text) // 2],
        lambda text, other: "",
        lambda text, other: text.replace('"ids": [\n  ', '"ids": [\n  1'),
        lambda text, other: text.replace('"cap"', '"eos"').replace('"finish"', '"end"'),
        lambda text, other: other,
    ],
)
def test_a_damaged_entry_is_made_anew(damage: Callable[[str, str], str], tmp_path: Path, decoded: list[str]) -> None:
    fresh = references(tmp_path)
    victim, other = sorted(tmp_path.rglob("*.json"))[:2]
    good = victim.read_text()
    victim.write_text(damage(good, other.read_text()))
    assert references(tmp_path) == fresh
    assert len(decoded) == 13
    assert victim.read_text() == good


def test_a_shard_cut_short_leaves_nothing_behind(tmp_path: Path) -> None:
    traces = make_references(VERIFIER, ENCODED, rule=Rule(), batch_size=4, seed=0, shard="s/l#0", cache=tmp_path)
    next(traces)
    traces.close()
    assert not list(tmp_path.rglob("*.json"))


def test_an_unwritable_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FairspecError, match="cannot be written"):
        references(tmp_path / "file")


def test_pair_wants_the_trace_of_each_prompt() -> None:
    traces = references()
    assert pair(ENCODED, traces[::-1]) == list(zip(ENCODED, traces, strict=True))
    with pytest.raises(FairspecError, match="no reference trace"):
        pair(ENCODED, traces[1:])
    foreign = traces[0].model_copy(update={"prompt_sha": "0" * 64})
    with pytest.raises(FairspecError, match="another prompt"):
        pair(ENCODED, [foreign, *traces[1:]])
