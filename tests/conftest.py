"""Fixtures shared by all tests: where the data sets lie, one thread, no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA_SETS = ("mgsm", "multiq", "ntrex")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder that holds the data sets. Without it a test is skipped, or with `FAIRSPEC_REQUIRE_DATA=1` fails."""
    value = os.environ.get("FAIRSPEC_DATA_DIR", "")
    if value and all((Path(value) / name).is_dir() for name in DATA_SETS):
        return Path(value)
    missing = f"data sets missing: set FAIRSPEC_DATA_DIR to a folder that holds {', '.join(DATA_SETS)}"
    if os.environ.get("FAIRSPEC_REQUIRE_DATA") == "1":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
