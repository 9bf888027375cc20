"""An option is declared once: the command line, signatures, checks, run.json's fields and the docs follow."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

import fairspec_bench
from fairspec_bench.api.options import RUN, run_options
from fairspec_bench.cli.parameters import declared
from fairspec_bench.schemas.base import FairspecError, Option
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.options import (
    ExecutionOptions,
    MitigateOptions,
    RunOptions,
    check_values,
    model_spec,
    parameters,
    takes,
)

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class WithPatience(RunOptions):
    """One line more than `RunOptions`."""

    patience: Annotated[int, Field(ge=1, le=9), Option("Rounds without change.", "Timing", "patience")] = 3


def test_adding_an_option_is_one_line() -> None:
    seen: dict[str, Any] = {}
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @declared(*parameters(WithPatience))
    def command(options: dict[str, Any]) -> None:
        seen.update(options)

    assert CliRunner().invoke(app, ["--suite", "mgsm", "--patience", "5"]).exit_code == 0
    assert (seen["patience"], seen["suite"], seen["gamma"]) == (5, ("mgsm",), (4,))
    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    assert "--patience <int> Rounds without change. [default: 3]" in shown

    @takes(*parameters(WithPatience))
    def function(**options: Any) -> None:
        """Takes them."""

    assert str(inspect.signature(function).parameters["patience"]) == "patience: int = 3"
    options = WithPatience(model_spec("v"), None, ("mgsm",), patience=7)
    assert options.recorded["patience"] == 7
    check_values(options)
    with pytest.raises(FairspecError, match="patience=10: must be at most 9"):
        check_values(dataclasses.replace(options, patience=10))
    new = {each.name for each in parameters(WithPatience)} - {each.name for each in parameters(RunOptions)}
    assert new == {"patience"}


def test_what_is_recorded_is_a_field_of_the_configuration() -> None:
    """An option names the field of run.json that holds it; those of a suite stand in its own record."""
    for option in parameters(RunOptions):
        where = option.option.recorded
        assert where is not None, option.name
        assert where.split(".")[0] in RunConfig.model_fields, option.name
    recorded = {option.option.recorded.split(".")[0] for option in parameters(RunOptions) if option.option.recorded}
    made = {"schema_version", "verifier", "drafter", "tokenizer_sha256", "chunks", "clusters", "gammas", "batch_sizes"}
    found = {
        "generation_config_not_followed",
        "end_warnings",
        "vocabulary_warnings",
    }  # in the models' files, once they are read
    assert recorded | made | found == set(RunConfig.model_fields)
    assert RunOptions(model_spec("v"), None, ("mgsm",)).recorded.keys() <= RunConfig.model_fields.keys()


def test_python_takes_what_the_command_line_takes() -> None:
    shown = inspect.signature(fairspec_bench.run).parameters
    assert {each.name for each in RUN if not each.required} <= shown.keys()
    assert shown["gamma"].default == 4
    assert shown["gamma"].annotation == int | Sequence[int]
    assert {each.name for each in parameters(MitigateOptions)} <= inspect.signature(
        fairspec_bench.mitigate
    ).parameters.keys()
    with pytest.raises(FairspecError, match=r"unknown option 'gama'. Did you mean gamma\?"):
        run_options("v", None, ["mgsm"], gama=3)
    with pytest.raises(FairspecError, match="limit=three: must be a whole number"):
        fairspec_bench.run("embedded:verifier", None, ["embedded_math"], limit="three")


def test_choices_are_those_that_can_be_run() -> None:
    from fairspec_bench.schemas.backends import BACKENDS
    from fairspec_bench.scoring.executors.registry import EXECUTORS

    (backend,), (executor,) = parameters(RunOptions, ("backend",)), parameters(ExecutionOptions, ("executor",))
    assert set(backend.choices) == {"auto", *BACKENDS}
    assert set(executor.choices) == set(EXECUTORS)


def test_no_command_spells_out_an_option_of_a_run() -> None:
    names = [f'"--{option.name}"' for option in RUN]
    for path in (ROOT / "fairspec_bench").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not [name for name in names if name in text], path


def test_the_table_of_options_is_current() -> None:
    made = subprocess.run([sys.executable, "docs/options.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ROOT / "docs/OPTIONS.md").read_text(encoding="utf-8") == made.stdout, "run: make options"
