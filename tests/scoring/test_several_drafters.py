"""Several drafters of one verifier: a run folder each, with the bytes of a run of its own; the verifier's work once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import encode, family, noised, prompts
from tiny_pair import lasting, save_pair
from typer.testing import CliRunner

import fairspec_bench as fairspec
from fairspec_bench.cli.main import app
from fairspec_bench.engine.batch import as_request, with_prefixes
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.models.model import Model, Rows, wrap
from fairspec_bench.models.packing import pack
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.scoring import prepare as preparing
from fairspec_bench.scoring import verifier_states
from fairspec_bench.scoring.reference import make_references
from fairspec_bench.scoring.replay import replay
from fairspec_bench.scoring.verifier_states import VerifierStates, states_bytes

OPTIONS: dict[str, Any] = {
    "suites": ["embedded_math"],
    "languages": ("en", "te"),
    "limit": 5,
    "max_new_tokens": 16,
    "batch_size": 2,
    "race_rounds": 0,
}
SHARED = with_prefixes(encode([prompts(1, 40, 40, seed=8)[0] + tail for tail in prompts(10, 1, 20, seed=9)], 24))


@pytest.fixture(autouse=True)
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "CHUNK_LEAST", 2)
    monkeypatch.setattr(preparing, "CHUNK_BATCHES", 1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    verifier, drafter = save_pair(tmp_path_factory.mktemp("pair"))
    return str(verifier), str(drafter)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The model of every pass, by its name."""
    names, forward = list[str](), Rows.forward

    def named(self: Rows, *args: Any, **rest: Any) -> torch.Tensor:
        names.append(self.model.name)
        return forward(self, *args, **rest)

    monkeypatch.setattr(Rows, "forward", named)
    return names


class Killed(BaseException):
    """As if the process had ended there."""


def killed_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass after so many ends the process."""
    left, forward = iter(range(count)), Rows.forward

    def pass_(self: Rows, *args: Any, **rest: Any) -> torch.Tensor:
        if next(left, None) is None:
            raise Killed
        return forward(self, *args, **rest)

    monkeypatch.setattr(Rows, "forward", pass_)


# --------------------------------------------------------------------------- runs


def test_each_has_the_bytes_of_a_run_of_its_own(pair: tuple[str, str], tmp_path: Path, passes: list[str]) -> None:
    verifier, drafter = pair
    reports = fairspec.run(verifier, [drafter, "lookup"], out=tmp_path / "all", cache=None, **OPTIONS)
    assert list(reports) == [drafter, "lookup"]
    for name, folder in ((drafter, "drafter"), ("lookup", "lookup")):
        alone = fairspec.run(verifier, name, out=tmp_path / "alone" / folder, cache=None, **OPTIONS)
        assert lasting(tmp_path / "all" / folder) == lasting(tmp_path / "alone" / folder)
        assert reports[name].config == alone.config
    passes.clear()
    fairspec.run(verifier, [drafter, "lookup", "lookup:1"], out=tmp_path / "all", cache=None, **OPTIONS)
    # A model is tried as it is loaded, before it has its name in the run, in three passes. There are no others.
    assert passes == 3 * [verifier] + 3 * [drafter] + 2 * 3 * [verifier]
    fairspec.run(verifier, "lookup:1", out=tmp_path / "alone/more", cache=None, **OPTIONS)
    assert lasting(tmp_path / "all/lookup-1") == lasting(tmp_path / "alone/more")


@pytest.mark.parametrize("count", [5, 60, 150])
def test_killed_anywhere_it_resumes_to_the_same_bytes(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    verifier, drafter = pair
    wanted, out = tmp_path / "wanted", tmp_path / "out"
    fairspec.run(verifier, [drafter, "lookup"], out=wanted, cache=None, **OPTIONS)
    with monkeypatch.context() as patch:
        killed_after(count, patch)
        with pytest.raises(Killed):
            fairspec.run(verifier, [drafter, "lookup"], out=out, cache=None, **OPTIONS)
    fairspec.run(verifier, [drafter, "lookup"], out=out, cache=None, **OPTIONS)
    for part in ("drafter", "lookup", "references", "verifier-states"):
        assert lasting(out / part) == lasting(wanted / part)
        assert lasting(out / part)


def test_one_drafter_in_a_list_and_none(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(FairspecError, match="no drafter is named"):
        fairspec.run(pair[0], [], out=tmp_path, **OPTIONS)
    with pytest.raises(FairspecError, match="another drafter has the folder lookup-1 too"):
        fairspec.run(pair[0], ["lookup:1", "a/lookup-1"], out=tmp_path, **OPTIONS)
    assert not any(tmp_path.iterdir())
    assert list(fairspec.run(pair[0], ["lookup"], out=tmp_path, cache=None, **OPTIONS)) == ["lookup"]
    assert (tmp_path / "lookup/run.json").is_file()


def test_a_plan_tells_what_each_adds(pair: tuple[str, str]) -> None:
    verifier, drafter = pair
    first, second = fairspec.plan(verifier, [drafter, "lookup"], **OPTIONS).values()
    alone = fairspec.plan(verifier, drafter, **OPTIONS)
    assert first.disk_bytes == alone.disk_bytes + 2 * 5 * 16 * 32 * 4
    assert first.hours["reference"] > 0
    assert (second.hours["reference"], second.hours["replay"]) == (0, 0)
    assert second.memory_bytes["weights"] < first.memory_bytes["weights"]


# --------------------------------------------------------------------------- states


def lines(model: Model, states: VerifierStates | None, drafter_noise: float = 0.05) -> list[dict[str, Any]]:
    options = {"sampling": SamplingParams(), "seed": 0, "batch_size": 4, "chunk": "c"}
    references = list(make_references(model, SHARED, **options))
    drafter = ModelDrafter(noised(model, drafter_noise), model)
    # Pieces of a few contexts, so that a batch has several.
    made = replay(model, drafter, SHARED, references, memory_bytes=2**16, states=states, **options)
    return [line.model_dump() for line in made]


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_kept_states_give_the_same_bits(name: str, tmp_path: Path, passes: list[str]) -> None:
    model, states = wrap(family(name), name), VerifierStates(tmp_path)
    assert lines(model, states) == lines(model, None)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    want = lines(model, None, 0.2)
    passes.clear()
    assert lines(model, states, 0.2) == want
    replayed = passes[len(passes) - passes[::-1].index(name) :]
    assert replayed
    assert set(replayed) == {"noised(0.2)"}


def test_logits_that_are_more_than_the_heads_are_not_kept(tmp_path: Path) -> None:
    """Gemma 2 caps its logits after the head."""
    model = wrap(family("gemma2"), "capped")
    assert model.hf.config.final_logit_softcapping
    assert lines(model, VerifierStates(tmp_path)) == lines(model, None)
    assert not any(tmp_path.iterdir())


def test_states_of_anything_else_are_not_taken(tmp_path: Path) -> None:
    model, states = wrap(family("llama"), "v"), VerifierStates(tmp_path)
    request, text = as_request(SHARED[0]), (9, 10, 11, 12)
    base = (model, [request], [text], 8)
    packed = family("llama")
    pack(packed)
    configured = wrap(family("llama", rms_norm_eps=0.1), "v")  # the same weights, another network
    assert configured.weights_sha256 == model.weights_sha256
    names = {
        states._address(*given)
        for given in (
            base,
            (noised(model, 0.1), *base[1:]),
            (configured, *base[1:]),
            (wrap(packed, "v"), *base[1:]),
            (model, [as_request(SHARED[1])], [text], 8),
            (model, [as_request(SHARED[0].model_copy(update={"shared": 0}))], [text], 8),
            (model, [request], [(9, 10, 11, 13)], 8),
            (model, [request], [text], 7),
        )
    }
    assert len(names) == 8
    assert states._address(wrap(family("llama"), "w"), *base[1:]) == states._address(*base)


def spoil(path: Path) -> None:
    tensors = load_file(path)
    tensors["states"][0, 0, 0] += 1
    save_file(tensors, path, {"sha256": "0" * 64})


@pytest.mark.parametrize("damage", [spoil, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    model, states = wrap(family("llama"), "v"), VerifierStates(tmp_path)
    want = lines(model, states)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    for path in files:
        damage(path)
    assert lines(model, states) == want
    assert {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == files


def test_states_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrap(family("llama"), "v")
    monkeypatch.setattr(verifier_states, "STATES_BYTES", 15_000)
    assert lines(model, VerifierStates(tmp_path)) == lines(model, None)
    kept = [path.stat().st_size for path in tmp_path.glob("*.safetensors")]
    assert 0 < len(kept) < 3
    assert sum(kept) < 15_000
    assert states_bytes(32, 4, 10**6) == 15_000
    assert states_bytes(32, 4, 10) == 1280


def test_the_command_line_says_where_each_run_is(pair: tuple[str, str], tmp_path: Path) -> None:
    given = ["--suite", "embedded_math", "--languages", "en", "--limit", "2", "--max_new_tokens", "8"]
    said = CliRunner().invoke(app, ["run", *pair, "lookup", *given, "--race_rounds", "0", "--out", str(tmp_path)])
    assert said.exit_code == 0
    lines = [line for line in said.output.splitlines() if line.startswith("Every table: ")]
    assert lines == [f"Every table: fairspec report {tmp_path / name} --full" for name in ("drafter", "lookup")]
    said = CliRunner().invoke(app, ["plan", *pair, "lookup", *given])
    assert [name for name in (pair[1], "lookup") if f"\n{name}:\n" in f"\n{said.output}"] == [pair[1], "lookup"]


def test_one_verifier_is_in_memory_at_a_time(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, at_once, load = weakref.WeakSet[Any](), list[int](), preparing.load_run_verifier

    def counted(ask: Any) -> Model:
        gc.collect()
        at_once.append(len(loaded))
        model = load(ask)
        loaded.add(model.hf)
        return model

    monkeypatch.setattr(preparing, "load_run_verifier", counted)
    fairspec.run(pair[0], [pair[1], "lookup", "lookup:1"], out=tmp_path, cache=None, **OPTIONS)
    assert at_once == [0, 0, 0]
