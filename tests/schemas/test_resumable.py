"""A folder of interruptible work, by whatever record it is configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairspec_bench.schemas.base import Record
from fairspec_bench.schemas.config import revision_difference
from fairspec_bench.schemas.resumable import LOCK, FolderError, difference, resumable


class Recipe(Record):
    steps: int
    weights: dict[str, float]
    languages: tuple[str, ...] = ("en", "te")


HERE = Recipe(steps=3, weights={"en": 1.0})


WEIGHTS = "weights-sha256:w"


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (WEIGHTS, WEIGHTS, None),
        (WEIGHTS, "weights-sha256:x", "the weights or their dtype differ"),
        (WEIGHTS, f"{WEIGHTS}+config-sha256:c+generation-sha256:g", None),
        (f"{WEIGHTS}+config-sha256:c", f"{WEIGHTS}+config-sha256:d", "config.json differs"),
        (f"{WEIGHTS}+generation-sha256:c", f"{WEIGHTS}+generation-sha256:d", "generation_config.json differs"),
        (f"{WEIGHTS}+adapter-sha256:a", WEIGHTS, "the adapter differs"),
        (WEIGHTS, f"{WEIGHTS}+temperatures-sha256:t", "the drafter's temperatures differ"),
        (WEIGHTS, f"{WEIGHTS}+quantization:bnb-4bit", "the quantization differs"),
        ("a" * 40, "b" * 40, "the revision differs"),
        ("a" * 40, WEIGHTS, "the revision differs"),
        (None, None, None),
        (None, WEIGHTS, "the weights or their dtype differ"),
    ],
)
def test_revisions_differ_by_part(there: str | None, here: str | None, said: str | None) -> None:
    assert revision_difference(there, here) == said
    assert (revision_difference(here, there) is None) == (said is None)


def open_folder(path: Path, recipe: Recipe) -> None:
    with resumable(path, "recipe.json", recipe, what="training"):
        pass


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != LOCK}


def test_the_configuration_is_there_before_the_work(tmp_path: Path) -> None:
    with resumable(tmp_path / "new", "recipe.json", HERE):
        before = files(tmp_path / "new")
    assert Recipe.model_validate_json(before["recipe.json"]) == HERE
    open_folder(tmp_path / "new", HERE)
    assert files(tmp_path / "new") == before


def test_another_configuration_is_refused_with_the_field_and_both_values(tmp_path: Path) -> None:
    open_folder(tmp_path, HERE)
    before = files(tmp_path)
    other = HERE.model_copy(update={"weights": {"en": 0.5}})
    with pytest.raises(FolderError, match=r"holds another training \(weights\.en: 1\.0 there, 0\.5 here\)"):
        open_folder(tmp_path, other)
    assert files(tmp_path) == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(FolderError, match=r"not empty, and not a training folder \(no recipe\.json\)"):
        open_folder(tmp_path, HERE)
    assert files(tmp_path) == {"thesis.tex": b"precious"}


def test_only_one_writes(tmp_path: Path) -> None:
    with (
        resumable(tmp_path, "recipe.json", HERE),
        pytest.raises(FolderError, match="another process is writing here"),
    ):
        open_folder(tmp_path, HERE)
    open_folder(tmp_path, HERE)


def test_difference_is_the_first_field_and_of_the_fields_asked_for(tmp_path: Path) -> None:
    other = Recipe(steps=4, weights={"en": 1.0, "te": 2.0}, languages=("en", "fr"))
    assert difference(HERE, HERE) is None
    assert difference(HERE, other) == "steps: 3 there, 4 here"
    assert difference(HERE, other, of={"weights"}) == "weights.te: None there, 2.0 here"
    assert difference(HERE, other, of={"languages"}) == "languages.1: te there, fr here"
