"""References: the verifier's own texts, the same whatever the batch, kept by content and never trusted when damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import EOS, encode, family, generate, noised, prompts, stock

from fairspec_bench.models.model import wrap
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.lines import Reference
from fairspec_bench.scoring import reference
from fairspec_bench.scoring.reference import make_references, pair

VERIFIER = wrap(family("llama"), "verifier")
ENCODED = encode(prompts(12, 3, 20), max_new_tokens=10)
SAMPLED = SamplingParams(temperature=1.0)


def made(cache: Path | None = None, **changes: object) -> list[Reference]:
    options = {"sampling": SamplingParams(), "batch_size": 4, "seed": 0, "chunk": "s/l#0", "cache": cache, **changes}
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
    references = made()
    assert [reference.key for reference in references] == [prompt.key for prompt in ENCODED]
    assert [reference.ids for reference in references] == [generate(hf, list(prompt.ids), 10) for prompt in ENCODED]
    assert [reference.prompt_sha for reference in references] == [prompt.sha for prompt in ENCODED]
    finishes = {reference.finish for reference in references}
    assert finishes == {"eos", "length"}
    assert all((reference.ids[-1] == EOS) == (reference.finish == "eos") for reference in references)


@pytest.mark.parametrize("sampling", [SamplingParams(), SAMPLED])
def test_batch_and_neighbours_change_nothing(sampling: SamplingParams) -> None:
    together = made(sampling=sampling)
    assert made(sampling=sampling, batch_size=1) == together
    assert made(sampling=sampling, encoded=ENCODED[5:6]) == together[5:6]


def test_the_cache_gives_the_same_without_decoding(tmp_path: Path, decoded: list[str]) -> None:
    fresh = made(tmp_path)
    assert len(decoded) == 12
    again = made(tmp_path, chunk="s/l#9", batch_size=1)
    assert len(decoded) == 12
    assert [reference.model_copy(update={"chunk": "s/l#0"}) for reference in again] == fresh
    more = [*encode([[9, 10, 11]], max_new_tokens=10), *ENCODED]
    renamed = [prompt.model_copy(update={"key": f"t/l/{i}"}) for i, prompt in enumerate(more)]
    assert [reference.ids for reference in made(tmp_path, encoded=renamed)][1:] == [
        reference.ids for reference in fresh
    ]
    assert decoded[12:] == ["t/l/0"]


def test_all_that_decides_a_text_is_in_its_address(tmp_path: Path, decoded: list[str]) -> None:
    made(tmp_path)
    made(tmp_path, seed=1)
    assert len(decoded) == 12, "greedy decoding has no seed"
    stop = dict.fromkeys((prompt.key for prompt in ENCODED), lambda ids: 2 if len(ids) > 1 else None)
    changes = [
        {"sampling": SAMPLED},
        {"sampling": SAMPLED, "seed": 1},
        {"sampling": SamplingParams(temperature=1.0, top_k=9)},
        {"verifier": wrap(noised(VERIFIER, 0.01).hf, VERIFIER.name)},
        {"verifier": wrap(family("llama"), "another name")},
        {"verifier": wrap(family("llama", rms_norm_eps=0.5), VERIFIER.name)},
        {"encoded": [prompt.model_copy(update={"max_new_tokens": 9}) for prompt in ENCODED]},
        {"stops": stop, "stop_identity": "two tokens"},
    ]
    for number, change in enumerate(changes, start=2):
        references = made(tmp_path, **change)
        assert len(decoded) == 12 * number, change
    assert all(len(reference.ids) <= 2 for reference in references)
    with pytest.raises(ValueError, match="stop_identity"):
        made(tmp_path, stops=stop)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text, other: text[: len(text) // 2],
        lambda text, other: "",
        lambda text, other: text.replace('"ids": [\n  ', '"ids": [\n  1'),
        lambda text, other: text.replace('"max_new_tokens"', '"eos"').replace('"finish"', '"end"'),
        lambda text, other: other,
    ],
)
def test_a_damaged_entry_is_made_anew(damage: Callable[[str, str], str], tmp_path: Path, decoded: list[str]) -> None:
    fresh = made(tmp_path)
    victim, other = sorted(tmp_path.rglob("*.json"))[:2]
    good = victim.read_text()
    victim.write_text(damage(good, other.read_text()))
    assert made(tmp_path) == fresh
    assert len(decoded) == 13
    assert victim.read_text() == good


def test_a_shard_cut_short_leaves_nothing_behind(tmp_path: Path) -> None:
    references = make_references(
        VERIFIER, ENCODED, sampling=SamplingParams(), batch_size=4, seed=0, chunk="s/l#0", cache=tmp_path
    )
    next(references)
    references.close()
    assert not list(tmp_path.rglob("*.json"))


def test_an_unwritable_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FairspecError, match="cannot be written"):
        made(tmp_path / "file")


def test_pair_wants_the_trace_of_each_prompt() -> None:
    references = made()
    assert pair(ENCODED, references[::-1]) == list(zip(ENCODED, references, strict=True))
    with pytest.raises(FairspecError, match="no reference"):
        pair(ENCODED, references[1:])
    foreign = references[0].model_copy(update={"prompt_sha": "0" * 64})
    with pytest.raises(FairspecError, match="another prompt"):
        pair(ENCODED, [foreign, *references[1:]])
