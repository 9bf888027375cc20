"""Where outputs may not end as one would expect is said before a run, in `run.json` and in its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import Fake, served
from tiny_pair import save_pair

import fairspec_bench as fs
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.models.model import load_model
from fairspec_bench.schemas.options import RunOptions, model_spec
from fairspec_bench.scoring.prepare import prepare
from fairspec_bench.scoring.run_folder import RunFolder


def asked(verifier: Path) -> RunOptions:
    return RunOptions(
        verifier=model_spec("v", str(verifier)),
        drafter=drafter_spec("lookup"),
        suites=("embedded_math",),
        languages=("en", "te"),
        limit=1,
        max_new_tokens=8,
        gamma=2,
    )


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def verifier(tmp_path: Path) -> Path:
    return save_pair(tmp_path / "pair")[0]


def test_nothing_is_said_of_a_model_whose_ends_are_clear(verifier: Path) -> None:
    config = prepare(asked(verifier)).config
    assert config.end_warnings == ()
    assert "end_warnings" not in config.model_dump()


@pytest.mark.parametrize("at_address", [False, True], ids=["engine", "server"])
@pytest.mark.parametrize(
    ("named", "said"), [(2, "names end-of-text id 2; its tokenizer's '<eos>' (id 1)"), ([], "names no end-of-text id;")]
)
def test_an_end_of_text_id_of_the_tokenizer_alone_is_named(
    verifier: Path, tmp_path: Path, named: int | list[int], said: str, at_address: bool
) -> None:
    """It ends no text, as in Transformers, and a user who expects otherwise learns so before the run."""
    changed(verifier / "generation_config.json", eos_token_id=named)
    options: dict[str, Any] = {"languages": ("en",), "limit": 1, "max_new_tokens": 4}
    if not at_address:
        fs.run(str(verifier), None, ["embedded_math"], tmp_path / "run", cache=None, **options)
    else:
        with served(Fake(load_model(str(verifier)), None, 2)) as url:
            fs.run(
                str(verifier), None, ["embedded_math"], tmp_path / "run",
                backend="vllm", model_args={"base_url": url}, **options,
            )  # fmt: skip
    (warning,) = RunFolder(tmp_path / "run").config.end_warnings
    assert said in warning


def test_a_stop_string_that_the_tokenizer_loses_is_named(verifier: Path, tmp_path: Path) -> None:
    prompts = prepare(asked(verifier)).questions.prompts.values()
    stops = {prompt.language: prompt.stops for prompt in prompts}
    (lost,) = stops["en"]
    changed(verifier / "tokenizer.json", normalizer={"type": "Replace", "pattern": {"String": lost}, "content": " "})
    said: list[str] = []
    report = fs.run(
        str(verifier), None, ["embedded_math"], tmp_path / "run", limit=1, max_new_tokens=4, say=said.append, cache=None
    )
    (warning,) = RunFolder(tmp_path / "run").config.end_warnings
    assert ascii(lost) in warning
    assert "embedded_math (" in warning
    assert str(verifier) in warning
    assert [line for line in said if line.startswith("note: ")] == [f"note: {warning}"]
    assert warning in report.notes
