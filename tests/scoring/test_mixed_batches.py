"""Chunks that do not fill a batch share one, across languages; nothing else about a run changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_pair import lasting, save_pair

import fairspec_bench as fairspec
from fairspec_bench.engine.speculative import DecodeState
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.lines import Reference
from fairspec_bench.schemas.stages import Unit, decoded_together
from fairspec_bench.scoring.run import Progress
from fairspec_bench.scoring.run_folder import RunFolder

OPTIONS: dict[str, Any] = {
    "suites": ["embedded_math"],
    "languages": ("en", "te", "ja"),
    "limit": 2,
    "max_new_tokens": 12,
    "race_rounds": 0,
    "cache": None,
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    verifier, drafter = save_pair(tmp_path_factory.mktemp("pair"))
    return str(verifier), str(drafter)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that were made."""
    sizes, make = list[int](), DecodeState.__init__

    def sized(self: DecodeState, decoder: Any, size: int, *rest: Any) -> None:
        sizes.append(size)
        make(self, decoder, size, *rest)

    monkeypatch.setattr(DecodeState, "__init__", sized)
    return sizes


def groups(chunks: Mapping[str, int], batch_size: int) -> set[tuple[str, ...]]:
    keys = {chunk: tuple(f"{chunk}/{n}" for n in range(count)) for chunk, count in chunks.items()}
    return set(decoded_together(RunConfig.model_construct(chunks=keys, batch_size=batch_size)).values())


def test_small_neighbours_of_a_suite_are_decoded_together() -> None:
    assert groups({"a/en/000": 4, "a/ja/000": 4, "a/te/000": 4}, 4) == {("a/en/000",), ("a/ja/000",), ("a/te/000",)}
    assert groups({"a/en/000": 4, "a/ja/000": 4, "a/te/000": 4}, 8) == {("a/en/000", "a/ja/000"), ("a/te/000",)}
    assert groups({"a/en/000": 4, "b/en/000": 4}, 8) == {("a/en/000",), ("b/en/000",)}
    assert groups({"a/en/000": 8, "a/en/001": 1, "a/ja/000": 8, "a/ja/001": 1}, 8) == {
        ("a/en/000",),
        ("a/en/001",),
        ("a/ja/000",),
        ("a/ja/001",),
    }


def test_a_batch_is_filled_with_other_languages(pair: tuple[str, str], tmp_path: Path, rows: list[int]) -> None:
    """Verifier and drafter alike; the lines are those of a run that decodes one prompt at a time."""
    fairspec.run(*pair, out=tmp_path / "mixed", batch_size=8, **OPTIONS)
    assert rows == [6, 6]
    fairspec.run(*pair, out=tmp_path / "alone", batch_size=1, **OPTIONS)
    mixed, alone = (RunFolder(tmp_path / name).lines("reference", Reference) for name in ("mixed", "alone"))
    assert mixed == alone
    assert {line.chunk for line in mixed} == {f"embedded_math/{language}/000" for language in ("en", "te", "ja")}


def test_shards_have_the_same_bytes(pair: tuple[str, str], tmp_path: Path) -> None:
    fairspec.run(*pair, out=tmp_path / "whole", batch_size=8, **OPTIONS)
    for n in (1, 2):
        fairspec.run(*pair, out=tmp_path / f"{n}", batch_size=8, shard=(n, 2), **OPTIONS)
    fairspec.merge(tmp_path / "merged", [tmp_path / "1", tmp_path / "2"])
    assert lasting(tmp_path / "merged") == lasting(tmp_path / "whole")


def test_texts_are_found_in_the_cache_whoever_shared_their_batch(
    pair: tuple[str, str], tmp_path: Path, rows: list[int]
) -> None:
    options = {**OPTIONS, "cache": tmp_path / "cache", "batch_size": 8}
    fairspec.run(*pair, out=tmp_path / "mixed", **options)
    rows.clear()
    fairspec.run(*pair, out=tmp_path / "ja", **{**options, "languages": ("ja",)})
    assert rows == []


def test_stopped_between_two_that_share_a_batch(pair: tuple[str, str], tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.unit == Unit("embedded_math/te/000", "reference"):
            raise KeyboardInterrupt

    fairspec.run(*pair, out=tmp_path / "whole", batch_size=8, **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        fairspec.run(*pair, out=tmp_path / "stopped", batch_size=8, on_progress=stop, **OPTIONS)
    assert len(RunFolder(tmp_path / "stopped").lines("reference", Reference)) == 2
    fairspec.run(*pair, out=tmp_path / "stopped", batch_size=8, **OPTIONS)
    assert lasting(tmp_path / "stopped") == lasting(tmp_path / "whole")
