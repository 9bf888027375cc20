"""Where half-type texts leave float32's: against real float32 decoding, in a run, and in its report."""

from __future__ import annotations

import copy
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_models import VOCAB, encode, family, prompts, stock
from tiny_pair import lasting, save_pair

from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.engine.speculative import as_request, decode
from fairspec_bench.metrics.run_data import Lines, load_run_data
from fairspec_bench.models.model import Model, Rows, wrap
from fairspec_bench.schemas.base import FairspecError, RecordError
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.lines import DtypeDivergence, Reference
from fairspec_bench.schemas.options import RunOptions, check, model_spec, sampling_params
from fairspec_bench.scoring import prepare as preparing
from fairspec_bench.scoring.dtype_divergence import WORKING_COPIES, divergences
from fairspec_bench.scoring.merge import merge
from fairspec_bench.scoring.plan import plan_run
from fairspec_bench.scoring.prepare import RunContext, prepare
from fairspec_bench.scoring.reference import make_references
from fairspec_bench.scoring.run import run
from fairspec_bench.scoring.run_folder import RunFolder

EXACT = wrap(family("llama"), "verifier")
ENCODED = encode(prompts(48, 1, 20), max_new_tokens=24)
GREEDY = SamplingParams()


@cache
def half_texts() -> tuple[Reference, ...]:
    half = wrap(copy.deepcopy(EXACT.hf).to(torch.bfloat16), "half")
    return tuple(make_references(half, ENCODED, sampling=GREEDY, batch_size=16, seed=0, chunk="s"))


@cache
def exact_texts() -> dict[str, tuple[int, ...]]:
    asked = [as_request(prompt) for prompt in ENCODED]
    options = {"sampling": GREEDY, "gamma": 0, "batch_size": 16, "seed": 0}
    return {done.key: done.ids for done in decode(EXACT, None, asked, **options)}


def found(references: tuple[Reference, ...], **changes: object) -> list[DtypeDivergence]:
    options = {"batch_size": 8, "chunk": "s", **changes}
    return list(divergences(EXACT, ENCODED, list(references), **options))


# --------------------------------------------------------------------------- against decoding in float32


def test_departures_are_those_of_decoding_in_float32() -> None:
    """Position, and through the gap the token: float32's own, by a plain pass of stock attention."""
    plain = stock(EXACT)
    departed = []
    for line, prompt, reference in zip(found(half_texts()), ENCODED, half_texts(), strict=True):
        exact = exact_texts()[line.key]
        parted = [n for n, (here, there) in enumerate(zip(reference.ids, exact, strict=False)) if here != there]
        if not parted:
            assert reference.ids == exact
            assert (line.first, line.gap) == (None, None), line.key
            continue
        place = parted[0]
        with torch.no_grad():
            logits = plain(torch.tensor([[*prompt.ids, *exact[:place]]])).logits[0, -1]
        assert line.first == place + 1, line.key
        assert line.gap == pytest.approx(float(logits[exact[place]] - logits[reference.ids[place]]), abs=1e-4)
        departed.append(line.first)
    assert 5 < len(departed) < len(ENCODED) - 5
    assert len(set(departed)) > 3


@pytest.mark.parametrize("place", [0, 1, -1])
def test_the_first_and_the_last_token_count(place: int) -> None:
    """A text of float32 with one other token departs there, whatever follows; left alone it departs nowhere."""
    exact = [
        Reference(key=p.key, prompt_sha=p.sha, ids=exact_texts()[p.key], finish="length", chunk="s") for p in ENCODED
    ]
    assert [line.first for line in found(tuple(exact))] == [None] * len(ENCODED)
    spoilt, wanted = [], []
    for reference in exact:
        ids = list(reference.ids)
        where = range(len(ids))[place] if len(ids) > 1 else 0
        ids[where] = (ids[where] + 1) % VOCAB
        spoilt.append(reference.model_copy(update={"ids": tuple(ids)}))
        wanted.append(where + 1)
    assert [line.first for line in found(tuple(spoilt))] == wanted
    assert len(set(wanted)) > (place == -1)


def test_pieces_and_batches_change_nothing_and_keep_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    read = Rows.read

    def spy(self: Rows, tokens: torch.Tensor, start: torch.Tensor, view: int, keep: int) -> torch.Tensor:
        kept.append(tokens.shape[0] * keep * VOCAB * 4)
        return read(self, tokens, start, view, keep)

    whole = found(half_texts())
    monkeypatch.setattr(Rows, "read", spy)
    for memory, batch in [(2**30, 48), (8 * VOCAB * 4 * WORKING_COPIES * 3, 8), (1, 1)]:
        kept.clear()
        lines = found(half_texts(), memory_bytes=memory, batch_size=batch)
        assert max(kept) * WORKING_COPIES <= memory or memory == 1
        assert [line.first for line in lines] == [line.first for line in whole]
        assert [line.gap for line in lines] == pytest.approx([line.gap for line in whole], abs=1e-5)


# --------------------------------------------------------------------------- in a run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def ask(pair: tuple[Path, Path]) -> Iterator[RunOptions]:
    """Shards of two prompts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "CHUNK_LEAST", 2)
        patch.setattr(preparing, "CHUNK_BATCHES", 1)
        yield RunOptions(
            verifier=model_spec("v", str(pair[0])),
            drafter=drafter_spec("d", str(pair[1])),
            suites=("embedded_math",),
            languages=("en", "te"),
            limit=6,
            max_new_tokens=16,
            gamma=2,
            batch_size=2,
            dtype="bfloat16",
            race_prompts=1,
            race_rounds=1,
        )


@pytest.fixture(scope="module")
def whole(ask: RunOptions, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(prepare(ask), out)
    return RunFolder(out)


def watched(prepared: RunContext) -> tuple[RunContext, list[weakref.ref[torch.Tensor]]]:
    """The same, with a weight of every float32 verifier that it loads."""
    loaded: list[weakref.ref[torch.Tensor]] = []

    def load() -> Model:
        model = prepared.float32_verifier()
        loaded.append(weakref.ref(next(model.hf.parameters())))
        return model

    return replace(prepared, float32_verifier=load), loaded


def test_a_run_in_bfloat16_tells_where_it_leaves_float32(ask: RunOptions, tmp_path: Path) -> None:
    """One load for all chunks, let go before the race; the figures are the lines' own."""
    prepared, loaded = watched(prepare(ask))
    alive = []

    def watch(progress: object) -> None:
        if progress.unit.stage in ("dtype_divergence", "race"):
            alive.append((progress.unit.stage, sum(ref() is not None for ref in loaded)))

    report = run(prepared, tmp_path / "run", watch=watch)
    assert len(loaded) == 1
    assert alive.count(("dtype_divergence", 1)) > 6
    assert alive[-1] == ("race", 0)
    folder = RunFolder(tmp_path / "run")
    lines = folder.lines("dtype_divergence", DtypeDivergence)
    assert [line.key for line in lines] == [reference.key for reference in folder.lines("reference", Reference)]
    departed = [line for line in lines if line.first is not None]
    assert 0 < len(departed) < len(lines)
    assert all((line.first is None) == (line.gap is None) for line in lines)
    for task in report.suites[0].tasks:
        mine = [line for line in lines if line.key.startswith(f"{task.task}/")]
        off = [line for line in mine if line.first is not None]
        assert task.measures["diverged_share"].value == pytest.approx(len(off) / len(mine))
        for name, values in {"gap": [x.gap for x in off], "position": [x.first for x in off]}.items():
            mean = sum(values) / len(off) if off else None
            assert task.measures[f"divergence_{name}"].value == (mean and pytest.approx(mean, rel=1e-6))


def test_stopped_and_in_parts_it_ends_with_the_same_bytes(ask: RunOptions, whole: RunFolder, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def watch(progress: object) -> None:
        if progress.unit == progress_unit and progress.done > 0:
            raise Stop

    progress_unit = [unit for unit in whole.units if unit.stage == "dtype_divergence"][2]
    with pytest.raises(Stop):
        run(prepare(ask), tmp_path / "stopped", watch=watch)
    assert RunFolder(tmp_path / "stopped").progress.startswith("26 of")
    run(prepare(ask), tmp_path / "stopped")
    assert lasting(tmp_path / "stopped") == lasting(whole.path)
    parts = []
    for number in (1, 2):
        run(prepare(replace(ask, shard=(number, 2))), tmp_path / f"part{number}")
        parts.append(tmp_path / f"part{number}")
    merged, wanted = lasting(merge(tmp_path / "merged", parts).path), lasting(whole.path)
    assert {name: body for name, body in merged.items() if name != "run.json"} == {
        name: body for name, body in wanted.items() if name != "run.json"
    }


def test_a_departure_beyond_its_text_is_damage(whole: RunFolder) -> None:
    references = whole.lines("reference", Reference)
    line = DtypeDivergence(
        key=references[0].key, prompt_sha=references[0].prompt_sha, first=len(references[0].ids), gap=0.1, chunk="s"
    )
    load_run_data(whole.config, Lines(references=references, divergences=[line]))
    beyond = line.model_copy(update={"first": len(references[0].ids) + 1})
    with pytest.raises(FairspecError, match=r"first is .*, not at most"):
        load_run_data(whole.config, Lines(references=references, divergences=[beyond]))


def test_a_spoilt_line_is_refused(whole: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "run")
    path = tmp_path / "run/dtype_divergence.jsonl"
    lines = path.read_text().splitlines()
    lines[0] = lines[0].replace('"first":null,"gap":null', '"first":3,"gap":0.5')
    first = DtypeDivergence.model_validate_json(lines[0])
    lines[0] = first.model_copy(update={"first": 10_000}).model_dump_json()
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RecordError, match="first is 10000, not at most"):
        RunFolder(tmp_path / "run").check()


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"dtype": "float32"}, None),
        ({"float32_check": False}, "texts are the bfloat16 verifier's"),
        ({"sampling": sampling_params(1.0)}, "texts were sampled in bfloat16"),
    ],
)
def test_others_have_no_such_stage(
    ask: RunOptions, changes: dict[str, object], note: str | None, tmp_path: Path
) -> None:
    quick = replace(ask, **{"limit": 2, "race_rounds": 0, "languages": ("en",), **changes})
    prepared, loaded = watched(prepare(quick))
    report = run(prepared, tmp_path / "run")
    assert loaded == []
    assert not any(unit.stage == "dtype_divergence" for unit in RunFolder(tmp_path / "run").units)
    assert not (tmp_path / "run/dtype_divergence.jsonl").exists()
    assert "float32_check" not in (tmp_path / "run/run.json").read_text()
    assert "depart" not in report.model_dump_json()
    assert (note is None) == (not any("float32" in each for each in report.notes))
    assert note is None or any(each.startswith(note) for each in report.notes)


@pytest.mark.parametrize("changes", [{"dtype": "float32"}, {"sampling": sampling_params(1.0)}])
def test_a_check_that_cannot_be_is_refused(ask: RunOptions, changes: dict[str, object]) -> None:
    with pytest.raises(FairspecError, match="float32_check: "):
        check(replace(ask, float32_check=True, **changes))


def test_plan_counts_the_float32_verifier(ask: RunOptions) -> None:
    with_it, without = plan_run(ask), plan_run(replace(ask, float32_check=False))
    parameters = prepare(ask).verifier.parameters
    assert with_it.memory_bytes["float32_check"] > 4 * parameters
    assert with_it.memory_bytes["total"] - without.memory_bytes["total"] == with_it.memory_bytes["float32_check"]
    assert with_it.disk_bytes > without.disk_bytes
    assert with_it.hours is not None
    assert without.hours is not None
    assert with_it.hours["dtype_divergence"] > 0
    assert "dtype_divergence" not in without.hours
