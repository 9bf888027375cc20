"""The table of methods: every part that an entry names exists, and names and titles can be read without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fairspec_bench.mitigation.methods import METHODS, Trained


@pytest.mark.parametrize("name", METHODS)
def test_every_part_that_a_method_names_is_there(name: str) -> None:
    method = METHODS[name]
    parts = (method.weight_function, method.loss_function) if isinstance(method, Trained) else (method.fit_function,)
    assert all(callable(part) for part in parts)
    assert method.title


def test_names_and_titles_need_no_torch() -> None:
    code = (
        "import sys; from fairspec_bench.mitigation.methods import METHODS; print(len(METHODS), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(METHODS)), "False"]
