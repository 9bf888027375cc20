"""What an answer says: its last number, in any script and separator style, and whether it runs in circles.

Knows characters only. Knows nothing of languages, suites or right answers: a number is read the same way everywhere, so
that no language is graded by a rule of its own.

How a number is read, where styles disagree:
- a separator followed by exactly three digits groups thousands (`1.000`, `1,000`, `1 000`, `1'000`, `1,00,000`), so
  `2.125` is 2125; a leading zero or any other count of digits makes it a decimal mark (`0.125`, `18.00`, `18,00`);
- a minus sign counts where it touches the digits or their currency sign and follows neither digit nor letter (`-5`,
  `−$5`, not `8-5`, `COVID-19`, `3–5`), unless in a script without spaces (`答えは-5`); percent and units are ignored;
- `万`, `萬`, `億`, `亿` directly after the digits multiply (`8万` is 80000). Numbers spelled in words are not read.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Sequence

INVALID = "[invalid]"
"""What lm-eval sees for a text without a number, as its own filters write it."""

_CURRENCY = re.escape("".join(c for c in map(chr, range(0x20, 0x10000)) if unicodedata.category(c) == "Sc"))
_MINUS = "-−–﹣－"
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
_SPACES = " \u00a0\u2009\u202f"
_NUMBER = re.compile(
    rf"(?:(?:(?<![\w.,)])|(?<=[{_UNSPACED}]))(?P<minus>[{_MINUS}])[{_CURRENCY}]?|(?<!\d))"
    r"(?:"
    rf"(?P<grouped>[1-9]\d{{0,2}}(?:(?P<sep>[.,'’_{_SPACES}])\d{{3}}(?:(?P=sep)\d{{3}})*|(?:,\d{{2}})+,\d{{3}}))(?!\d)"
    r"(?:[.,](?P<cents>\d+))?"
    r"|(?P<whole>\d+)(?:[.,](?P<fraction>\d+))?"
    r"|(?<![\w.,])[.,](?P<bare>\d+)"
    r")"
    r"(?P<unit>[万萬億亿])?"
)
_UNITS = {"万": 4, "萬": 4, "億": 8, "亿": 8}
_TEX_SEPARATORS = re.compile(r"\{,\}|\\[,;!:]")
_WIDE_SEPARATOR = re.compile(r"(?<=[０-９])[，．](?=[０-９])")


def number(text: str) -> str | None:
    """The last number of `text` in canonical digits (`18`, `-3`, `0.5`), or `None` where it has none."""
    found = deque(_NUMBER.finditer(_plain_digits(text)), maxlen=1)
    return _canonical(found[0]) if found else None


def _plain_digits(text: str) -> str:
    """ASCII digits for those of any script; Arabic, full-width and TeX separators as `.` and `,`."""
    text = _TEX_SEPARATORS.sub(",", text.replace("\u066c", ",").replace("\u066b", "."))
    text = _WIDE_SEPARATOR.sub(lambda match: "," if match[0] == "，" else ".", text)
    # Not NFKC, which would also turn the 2 of m² into a number.
    return "".join(str(unicodedata.decimal(c)) if c > "\x7f" and c.isdecimal() else c for c in text)


def _canonical(match: re.Match[str]) -> str:
    whole = re.sub(r"\D", "", match["grouped"] or match["whole"] or "0")
    fraction = match["cents"] or match["fraction"] or match["bare"] or ""
    shift = _UNITS.get(match["unit"] or "", 0)
    fraction = fraction.ljust(shift, "0")
    whole, fraction = (whole + fraction[:shift]).lstrip("0") or "0", fraction[shift:].rstrip("0")
    value = f"{whole}.{fraction}" if fraction else whole
    return f"-{value}" if match["minus"] and value != "0" else value


# --------------------------------------------------------------------------- running in circles

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
