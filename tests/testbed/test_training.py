"""Training: the optimiser by its definition, a resumed training against a straight one, text from folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.testbed import pair
from fairspec_bench.testbed.muon import Muon, orthogonalise
from fairspec_bench.testbed.text import packed_source, read_texts
from fairspec_bench.testbed.tokenizer import EOS_ID, train_tokenizer
from fairspec_bench.testbed.trainer import Schedule, Shape, TrainingBatch, build, train, weighted_loss

SHAPE = Shape(hidden=32, layers=2, heads=2, kv_heads=1, head_size=16, feed_forward=48)


def batch_at(step: int) -> TrainingBatch:
    generator = torch.Generator().manual_seed(step)
    start = torch.randint(2, 40, (4, 1), generator=generator)
    return (start + torch.arange(12)) % 50 + 2, torch.ones(4, 12)


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_orthogonalise_keeps_directions_and_evens_singular_values() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 24, 40)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    moved = left.mT @ orthogonalise(matrices) @ right.mT
    diagonal = moved.diagonal(dim1=-2, dim2=-1)
    assert (diagonal > 0.6).all()
    assert (diagonal < 1.3).all()
    assert (moved - torch.diag_embed(diagonal)).abs().max() < 1e-4, "the singular vectors stay"


def test_muon_moves_a_tall_matrix_against_its_gradient() -> None:
    parameter = torch.nn.Parameter(torch.zeros(32, 8))
    parameter.grad = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    Muon([parameter], lr=0.1).step()
    assert (parameter.detach() * parameter.grad).sum() < 0


def test_schedule_rises_holds_and_falls() -> None:
    schedule = Schedule(warmup=2, constant=3, decay=4, matrix_rate=1, other_rate=1)
    assert [schedule.factor(step) for step in range(9)] == pytest.approx([0.5, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_training_learns() -> None:
    model = build(SHAPE, 64, 64, seed=0)
    before = weighted_loss(model, *batch_at(999)).item()
    train(model, batch_at, Schedule(2, 40, 10, 0.03, 6e-3))
    assert weighted_loss(model, *batch_at(999)).item() < before / 4


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    schedule = Schedule(2, 4, 6, 0.03, 6e-3)
    whole = train(build(SHAPE, 64, 64, seed=0), batch_at, schedule)

    def broken(step: int) -> TrainingBatch:
        if step == 7:
            raise KeyboardInterrupt
        return batch_at(step)

    checkpoint = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        train(build(SHAPE, 64, 64, seed=0), broken, schedule, checkpoint=checkpoint, every=3)
    resumed = train(build(SHAPE, 64, 64, seed=123), batch_at, schedule, checkpoint=checkpoint)
    assert weights(resumed).equal(weights(whole))
    restarted = train(build(SHAPE, 64, 64, seed=123), batch_at, schedule)
    assert not weights(restarted).equal(weights(whole)), "the check can fail"


def test_weighted_loss_leaves_padding_out() -> None:
    model = build(SHAPE, 64, 64, seed=0).eval()
    ids, weight = batch_at(0)
    padded_ids, padded_weight = torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(weight, (0, 5))
    assert weighted_loss(model, padded_ids, padded_weight).item() == pytest.approx(
        weighted_loss(model, ids, weight).item(), rel=1e-5
    )


def test_ntrex_is_split_by_document(data_dir: Path) -> None:
    texts = read_texts(data_dir / "ntrex")
    assert len(texts.train) == 11
    sizes = {(len(texts.train[x]), len(texts.held_out[x])) for x in texts.train}
    assert len(sizes) == 1, "the same documents are held out in every language"
    ((kept, held),) = sizes
    assert kept + held == 123
    assert 4 <= held <= 25
    assert not set(texts.train["en"]) & set(texts.held_out["en"])


def test_text_without_ids_is_cut_at_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "aa.txt").write_text("\n\n".join(f"a{i}\nb{i}" for i in range(40)), encoding="utf-8")
    texts = read_texts(tmp_path)
    assert len(texts.train["aa"]) + len(texts.held_out["aa"]) == 40
    assert texts.train["aa"][0].count("\n") == 1


def test_packed_rows_hold_whole_lengths_of_one_language(tmp_path: Path) -> None:
    for name, word in (("aa", "ab "), ("bb", "cd ")):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(word * 8 for _ in range(30)), encoding="utf-8")
    texts = read_texts(tmp_path)
    tokenizer = train_tokenizer(texts.train["aa"], 300, 64)
    ids, weight = packed_source(texts, tokenizer, {"aa": 0.0, "bb": 1.0}, 64, 2, 0)(0)
    assert ids.shape == weight.shape == (2, 64)
    assert "a" not in tokenizer.decode([x for x in ids.flatten().tolist() if x != EOS_ID])


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no <language>.txt"),
        ({"en.txt": b"\xff\xfe\xfa bad"}, "is not UTF-8"),
        ({"en.txt": b"one\ntwo\n", "DOCUMENT_IDS.tsv": b"d1\n"}, "DOCUMENT_IDS.tsv has 1"),
    ],
)
def test_unusable_text_is_one_clear_line(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FairspecError) as caught:
        read_texts(tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pair_is_trained_saved_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for name in ("aa", "bb"):
        (text / f"{name}.txt").write_text("\n\n".join(f"{name} word {i}" for i in range(60)), encoding="utf-8")
    small = pair.ModelRecipe(SHAPE, Schedule(1, 1, 1, 0.03, 6e-3), 1, 0.0, 0)
    monkeypatch.setitem(pair.TEXT_SCALES, "tiny", pair.PairRecipe(300, 128, small, small))
    monkeypatch.setattr(pair, "TRAIN_LENGTH", 64)
    said: list[str] = []
    verifier, drafter = pair.train_on_text(text, tmp_path / "out", skew=1.5, say=said.append)
    assert {path.name for path in drafter.iterdir()} >= {
        "model.safetensors",
        "tokenizer.json",
        "config.json",
        "recipe.json",
    }
    assert (verifier / "model.safetensors").stat().st_mode & 0o444
    again: list[str] = []
    pair.train_on_text(text, tmp_path / "out", skew=1.5, say=again.append)
    assert [line.split(" loss")[0] for line in said] == [
        f"{name}: step {step}/3" for name in ("verifier", "drafter") for step in (1, 2, 3)
    ]
    assert not again
    assert capfd.readouterr().err == "", "no progress bar of another library"
    with pytest.raises(FairspecError, match=r"drafter: holds another training \(recipe.skew: 1.5 there, 0.5 here\)"):
        pair.train_on_text(text, tmp_path / "out", skew=0.5, say=again.append)


def test_a_pair_killed_while_training_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = pair.ModelRecipe(SHAPE, Schedule(1, 8, 3, 0.03, 6e-3), 2, 0.0, 0)
    recipe = pair.PairRecipe(300, 128, member, member)
    pair.train_embedded(tmp_path / "straight", recipe, say=lambda line: None)
    for place in ("verifier: step 5/", "drafter: step 8/"):

        def kill(line: str, place: str = place) -> None:
            if line.startswith(place):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pair.train_embedded(tmp_path / "killed", recipe, say=kill)
    pair.train_embedded(tmp_path / "killed", recipe, say=lambda line: None)
    for name in ("verifier", "drafter"):
        weights = [(tmp_path / one / name / "model.safetensors").read_bytes() for one in ("straight", "killed")]
        assert weights[0] == weights[1]
    assert not list((tmp_path / "killed").rglob(".training.pt"))
