"""Whether an answer repeats itself. Its number is read by `numerals`."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RUN = re.compile(r"(\w.{0,7}?)\1{9,}", re.DOTALL)
_MIN_RUN = 20
_MIN_TAIL = 48
_MIN_COPIES = 3
_GRAM = 16
_MIN_GRAMS = 120
_REPEATED_SHARE = 0.5


def looping(text: str) -> bool:
    """Whether a text repeats itself, by one of three signs; digits count as equal, so that a counting loop is one.

    - It ends in at least three copies of one unit, 48 characters or more in all, cut anywhere: a greedy loop.
    - It holds ten copies of a unit of a letter and at most 7 characters more, 20 characters or more in all: scripts
      that say much in few characters, and loops that end in something else.
    - It has at least 120 windows of 16 characters and more than half of them occurred before: a loop with variations.
    """
    plain = re.sub(r"\d", "0", text)
    runs = (len(run[0]) for run in _RUN.finditer(plain))
    return _ends_in_copies(plain) or max(runs, default=0) >= _MIN_RUN or _repeated_share(plain) > _REPEATED_SHARE


def _ends_in_copies(text: str) -> bool:
    # In the reversed text z[p] is how far its start agrees with itself p further on: a tail of p + z[p] has period p.
    # One character is forgiven: the space that would follow the last copy.
    agreement = _z_function(text[::-1])
    return any(p + z >= max(_MIN_COPIES * p - 1, _MIN_TAIL) for p, z in enumerate(agreement) if p)


def _z_function(text: Sequence[str]) -> list[int]:
    """Length of the longest common prefix of `text` and `text[i:]` for every `i` (0 at `i = 0`), in linear time."""
    z = [0] * len(text)
    left = right = 0
    for i in range(1, len(text)):
        match = min(right - i, z[i - left]) if i < right else 0
        while i + match < len(text) and text[match] == text[i + match]:
            match += 1
        z[i] = match
        if i + match > right:
            left, right = i, i + match
    return z


def _repeated_share(text: str) -> float:
    """Share of the 16-character windows that occurred before in the text; 0 where there are fewer than 120."""
    grams = len(text) - _GRAM + 1
    if grams < _MIN_GRAMS:
        return 0.0
    return 1 - len({text[i : i + _GRAM] for i in range(grams)}) / grams
