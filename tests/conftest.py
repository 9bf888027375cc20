"""Fixtures shared by all tests: where the real data lies, one thread, no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder holding `mgsm/`, `multiq/` and `ntrex/`; tests on real data need it."""
    value = os.environ.get("FAIRSPEC_DATA_DIR")
    if not value or not Path(value).is_dir():
        pytest.fail("FAIRSPEC_DATA_DIR must name the folder with mgsm/, multiq/ and ntrex/ (see README, 'Tests').")
    return Path(value)
