"""A drafter's folder says what it is: tables of n-grams and temperatures by group run from a folder like any model."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_pair import save_pair

from fairspec_bench.engine.drafters import ModelDrafter, ModelFile
from fairspec_bench.engine.drafting import FILE
from fairspec_bench.engine.model import load_model
from fairspec_bench.engine.ngram import NgramDrafter, fit
from fairspec_bench.records import Answer, FairspecError, Replay, Trace, write_record
from fairspec_bench.score.folder import RunFolder
from fairspec_bench.score.plan import plan_run
from fairspec_bench.score.prepare import Ask, drafter_ask, model_ask, prepare
from fairspec_bench.score.run import run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def ask(pair: tuple[Path, Path]) -> Ask:
    return Ask(
        verifier=model_ask("v", str(pair[0])),
        drafter=None,
        suites=("embedded_math",),
        languages=("en", "te"),
        limit=3,
        cap=16,
        gamma=2,
        batch_size=2,
        race_prompts=1,
        race_rounds=1,
    )


def test_counts_of_the_verifiers_texts_run_from_their_folder(ask: Ask, tmp_path: Path) -> None:
    alone = prepare(ask)
    run(alone, tmp_path / "alone")
    texts = {trace.key: trace.ids for trace in RunFolder(tmp_path / "alone").lines("trace", Trace)}
    counted = [(prompt.group, prompt.ids, texts[prompt.key]) for prompt in alone.questions.encoded.values()]
    verifier = alone.verifier
    tables = fit(counted, verifier.vocab_size, vocabulary=verifier.vocabulary)
    tables.save(tmp_path / "counts")

    asked = replace(ask, drafter=drafter_ask(str(tmp_path / "counts")))
    assert plan_run(asked).hours is not None
    prepared = prepare(asked)
    assert isinstance(prepared.drafter, NgramDrafter)
    config = prepared.config.drafter
    assert config is not None
    assert (config.kind, config.revision) == ("ngram", f"tables-sha256:{tables.sha256}")
    assert (config.name, config.parameters) == (str(tmp_path / "counts"), None)
    report = run(prepared, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert folder.complete
    assert folder.lines("drafter_answer", Answer) == []
    for task in report.suites[0].tasks:
        # It has seen these very texts.
        assert task.measures["acceptance"].value is not None
        assert task.measures["acceptance"].value > 0.5
        assert task.measures["misfit"].value is not None
        assert task.measures["drafter_fitness"].value is None


def test_temperatures_of_a_folder_belong_to_the_run(ask: Ask, pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "mended"
    shutil.copytree(pair[1], folder)
    plain = replace(ask, drafter=drafter_ask("d", str(folder)), race_rounds=0)
    run(prepare(plain), tmp_path / "plain")
    write_record(folder / FILE, ModelFile(kind="model", temperatures={"embedded_math/te": 3.0}))
    prepared = prepare(replace(plain, drafter=drafter_ask("d", str(folder))))
    assert isinstance(prepared.drafter, ModelDrafter)
    assert prepared.config.drafter is not None
    assert "+temperatures-sha256:" in str(prepared.config.drafter.revision)
    with pytest.raises(FairspecError, match="drafter"):
        run(prepared, tmp_path / "plain")
    run(prepared, tmp_path / "mended-run")
    before, after = (
        {line.key: line for line in RunFolder(tmp_path / name).lines("replay", Replay)}
        for name in ("plain", "mended-run")
    )
    for key, line in after.items():
        changed = "/te/" in key and line.contexts > 0
        assert line.draft_ids == before[key].draft_ids
        assert (line.kl != before[key].kl) == changed


def test_a_damaged_folder_is_refused_when_asked_for(pair: tuple[Path, Path], tmp_path: Path) -> None:
    verifier = load_model(str(pair[0]))
    fit([("a", [1], [2])], verifier.vocab_size, vocabulary="0" * 64).save(tmp_path)
    asked = Ask(
        model_ask("v", str(pair[0])), drafter_ask(str(tmp_path)), ("embedded_math",), languages=("en",), limit=1
    )
    with pytest.raises(FairspecError, match="Choose a drafter with the same tokenizer"):
        prepare(asked)
    (tmp_path / FILE).write_text('{"kind": "eagle"}')
    with pytest.raises(FairspecError, match="unknown drafter kind 'eagle'"):
        prepare(replace(asked, drafter=drafter_ask(str(tmp_path))))
    (tmp_path / FILE).write_text("[" * 100_000)
    with pytest.raises(FairspecError) as caught:
        drafter_ask(str(tmp_path))
    assert "\n" not in str(caught.value)
