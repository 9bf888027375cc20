"""The page that quotes the loop, and how long it is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from fairspec_bench.engine.speculative import speculative_decode

PAGE = Path(__file__).parents[2] / "docs" / "ENGINE.md"
MOST_LINES = 60


def test_the_loop_is_short_and_quoted_word_for_word() -> None:
    source = inspect.getsource(inspect.unwrap(speculative_decode))
    assert len(source.splitlines()) <= MOST_LINES
    (quoted,) = re.findall(r"```python source=\S+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert quoted == source


def test_the_loop_names_the_steps_of_the_paper_in_their_order() -> None:
    source = inspect.getsource(inspect.unwrap(speculative_decode))
    steps = re.findall(r"^ +# (Draft|Verify|Accept|Commit):", source, re.MULTILINE)
    assert steps == ["Draft", "Verify", "Accept", "Commit"]
