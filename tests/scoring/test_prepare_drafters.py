"""A drafter's folder says what it is: tables of n-grams and temperatures by group run from a folder like any model."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_pair import save_pair

from fairspec_bench.engine.drafters.base import FILE
from fairspec_bench.engine.drafters.model import ModelDrafter, ModelFile
from fairspec_bench.engine.drafters.ngram import NgramDrafter, fit
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.models.model import load_model
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import write_record
from fairspec_bench.schemas.lines import Answer, Reference, Replay
from fairspec_bench.schemas.options import RunOptions, model_spec
from fairspec_bench.scoring.plan import plan_run
from fairspec_bench.scoring.prepare import prepare
from fairspec_bench.scoring.run import run
from fairspec_bench.scoring.run_folder import RunFolder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def ask(pair: tuple[Path, Path]) -> RunOptions:
    return RunOptions(
        verifier=model_spec("v", str(pair[0])),
        drafter=None,
        suites=("embedded_math",),
        languages=("en", "te"),
        limit=3,
        max_new_tokens=16,
        gamma=2,
        batch_size=2,
        race_prompts=1,
        race_rounds=1,
    )


def test_counts_of_the_verifiers_texts_run_from_their_folder(ask: RunOptions, tmp_path: Path) -> None:
    alone = prepare(ask)
    run(alone, tmp_path / "alone")
    texts = {reference.key: reference.ids for reference in RunFolder(tmp_path / "alone").lines("reference", Reference)}
    counted = [(prompt.group, prompt.ids, texts[prompt.key]) for prompt in alone.questions.encoded.values()]
    verifier = alone.verifier
    tables = fit(counted, verifier.vocab_size, vocabulary=verifier.vocabulary)
    tables.save(tmp_path / "counts")

    asked = replace(ask, drafter=drafter_spec(str(tmp_path / "counts")))
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


def test_temperatures_of_a_folder_belong_to_the_run(ask: RunOptions, pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    shutil.copytree(pair[1], folder)
    plain = replace(ask, drafter=drafter_spec("d", str(folder)), race_rounds=0)
    run(prepare(plain), tmp_path / "plain")
    write_record(folder / FILE, ModelFile(kind="model", temperatures={"embedded_math/te": 3.0}))
    prepared = prepare(replace(plain, drafter=drafter_spec("d", str(folder))))
    assert isinstance(prepared.drafter, ModelDrafter)
    assert prepared.config.drafter is not None
    assert "+temperatures-sha256:" in str(prepared.config.drafter.revision)
    with pytest.raises(FairspecError, match="drafter"):
        run(prepared, tmp_path / "plain")
    run(prepared, tmp_path / "tuned-run")
    before, after = (
        {line.key: line for line in RunFolder(tmp_path / name).lines("replay", Replay)}
        for name in ("plain", "tuned-run")
    )
    for key, line in after.items():
        changed = "/te/" in key and line.contexts > 0
        assert line.draft_ids == before[key].draft_ids
        assert (line.kl != before[key].kl) == changed


def test_a_damaged_folder_is_refused_when_asked_for(pair: tuple[Path, Path], tmp_path: Path) -> None:
    verifier = load_model(str(pair[0]))
    fit([("a", [1], [2])], verifier.vocab_size, vocabulary="0" * 64).save(tmp_path)
    asked = RunOptions(
        model_spec("v", str(pair[0])), drafter_spec(str(tmp_path)), ("embedded_math",), languages=("en",), limit=1
    )
    with pytest.raises(FairspecError, match="Choose a drafter with the same tokenizer"):
        prepare(asked)
    (tmp_path / FILE).write_text('{"kind": "eagle"}')
    with pytest.raises(FairspecError, match="unknown drafter kind 'eagle'"):
        prepare(replace(asked, drafter=drafter_spec(str(tmp_path))))
    (tmp_path / FILE).write_text("[" * 100_000)
    with pytest.raises(FairspecError) as caught:
        drafter_spec(str(tmp_path))
    assert "\n" not in str(caught.value)
