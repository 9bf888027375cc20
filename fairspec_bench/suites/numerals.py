"""The last number of an answer, in any script and in each language's habit.

Reads characters and, where habits differ, the language of the prompt. What is read:
- digits of any script, circled ones too; `1,000`, `1.000`, `1'000`, `1 000` (no-break or thin space; an ordinary space
  only in German, Spanish, French and Russian, which group by it), `1,00,000`. A separator before exactly three digits
  groups thousands, so `2.125` is 2125; a leading zero or any other count of digits makes it a decimal mark
  (`0.125`, `18.00`, `18,00`);
- `3/4`, `1 3/4`, `4½`, `\\frac{1}{2}`; `1.5e3`, `1.5 × 10^3`;
- scaled by a word: `2.5 million`, `80 mil`, `elfu 70`, `৩ লাখ`, `5 ล้าน`;
- Chinese and Japanese: digits with units (`1万2000`, `3億5,000万`, `1万5千円`) and numerals of two characters or more
  (`十八`, `三百二十`); `千克` and `千米` are units of measure;
- a minus sign that touches the digits or their currency sign and follows neither a digit nor a letter (`-5`, `−$5`, not
  `8-5`, `COVID-19`, `3–5`), unless in a script without spaces (`答えは-5`).

What is deliberately not read: numbers spelled out in words (`twelve`, `sabini`), single Chinese numerals (`一个`),
Roman numerals. Of a range, a time, a ratio or a list the last number counts (`3–5`, `7:30`, `1, 2, 3`); percent signs
and units are ignored; of a date with slashes the last part counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Mapping
from fractions import Fraction

INVALID = "[invalid]"
"""What lm-eval sees for a text without a number, as its own filters write it."""

SPACE_GROUPED = frozenset({"de", "es", "fr", "ru"})
"""Languages that group thousands by an ordinary space; elsewhere it separates numbers (`3 250 g bags`)."""
LONGEST = 40
"""Digits beyond which a number is neither scaled nor divided."""

_CURRENCY = re.escape("".join(c for c in map(chr, range(0x20, 0x10000)) if unicodedata.category(c) == "Sc"))
_MINUS = "-−–﹣－"
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
_THIN_SPACES = "\u00a0\u2009\u202f"
_VULGAR = "".join(c for c in map(chr, (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F), 0x2189)))
_TEX_SEPARATORS = re.compile(r"\{,\}|\\[,;!:]")
_TEX_FRACTION = re.compile(r"(?<=\d)?\\[dt]?frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?")
_WIDE_SEPARATOR = re.compile(r"(?<=[０-９])[，．](?=[０-９])")

# After the digits, but for Swahili, where the word stands before them.
_WORDS: Mapping[int, str] = {
    2: r"hundred|শত|వందలు?|ร้อย",
    3: r"thousand|tausend|mille|mil|тысяч[аи]?|тыс\.|হাজার|వేలు?|వెయ్యి|พัน",
    4: r"หมื่น",
    5: r"lakhs?|লাখ|লক্ষ|లక్ష(?:లు?)?|แสน",
    6: r"millions?|Mio\.|Millionen|millones|millón|миллион(?:а|ов)?|млн|ล้าน|మిలియన్",
    7: r"crores?|কোটি|కోటి|కోట్లు?",
    9: r"billions?|Milliarden|Mrd\.|milliards?|миллиард(?:а|ов)?|млрд",
}
_BEFORE: Mapping[int, str] = {2: "mia", 3: "elfu", 5: "laki", 6: "milioni", 9: "bilioni"}
_CJK_UNITS = {"十": 1, "百": 2, "千": 3, "万": 4, "萬": 4, "億": 8, "亿": 8, "兆": 12}
_CJK_DIGITS = {
    c: n for n, chars in enumerate(("〇零", "一", "二两兩", "三", "四", "五", "六", "七", "八", "九")) for c in chars
}
_MEASURES = "克米瓦卡升"
_UNIT = rf"(?:千(?![{_MEASURES}])|[十百万萬億亿兆])"
_NUMERAL = "[" + "".join(_CJK_DIGITS) + "十百千万萬億亿]"


def _pattern(spaces: str) -> re.Pattern[str]:
    grouped = rf"[1-9]\d{{0,2}}(?:(?P<sep>[.,'’_{spaces}])\d{{3}}(?:(?P=sep)\d{{3}})*|(?:,\d{{2}})+,\d{{3}})(?!\d)"
    after = "|".join(f"(?P<after{power}>{words})" for power, words in _WORDS.items())
    before = "|".join(f"(?P<before{power}>{word})" for power, word in _BEFORE.items())
    return re.compile(
        rf"(?:\b(?:{before}) )?"
        rf"(?:(?:(?<![\w.,)])|(?<=[{_UNSPACED}]))(?P<minus>[{_MINUS}])[{_CURRENCY}]?|(?<!\d))"
        r"(?:"
        rf"(?P<cjk>(?:\d[\d,]*(?:\.\d+)?{_UNIT})+(?:\d[\d,]*)?)"
        rf"|(?:(?P<mixed>\d+) )?(?<![/⁄])(?P<above>\d+)[/⁄](?P<below>[1-9]\d*)(?![/⁄\d])"
        rf"|(?P<units>\d*) ?(?P<vulgar>[{_VULGAR}])"
        r"|(?:"
        rf"(?P<grouped>{grouped})(?:[.,](?P<cents>\d+))?"
        r"|(?P<whole>\d+)(?:[.,](?P<fraction>\d+))?"
        r"|(?<![\w.,])[.,](?P<bare>\d+)"
        r")"
        r"(?:[eE](?P<exponent>[+-]?\d{1,2})(?![\w.])|\s?(?:×|\\times|\*)\s?10\^\{?(?P<power>-?\d{1,2})\}?)?"
        rf"(?:\s?(?:{after})(?:(?<=[\u0e00-\u0e7f])|(?!\w)))?"  # Thai has no spaces between words
        r")"
        rf"|(?<!{_NUMERAL})(?P<numeral>{_NUMERAL}{{2,}})"
    )


_PATTERNS = {True: _pattern(f" {_THIN_SPACES}"), False: _pattern(_THIN_SPACES)}


def number(text: str, language: str | None = None) -> str | None:
    """The last number of `text` in canonical digits (`18`, `-3`, `0.5`, `1/3`), or `None` where it has none.

    `language` is an ISO 639-1 code; it decides only whether an ordinary space groups thousands.
    """
    found = deque(_read(_plain(text), language in SPACE_GROUPED), maxlen=1)
    return found[0] if found else None


def _read(text: str, spaced: bool) -> Iterator[str]:
    for match in _PATTERNS[spaced].finditer(text):
        value = _value(match)
        if value is not None:
            yield value


def _plain(text: str) -> str:
    """ASCII digits for those of any script; Arabic, full-width and TeX separators as `.` and `,`; TeX fractions."""
    text = _TEX_SEPARATORS.sub(",", text.replace("\u066c", ",").replace("\u066b", "."))
    text = _TEX_FRACTION.sub(r" \1/\2", text)
    text = _WIDE_SEPARATOR.sub(lambda match: "," if match[0] == "，" else ".", text)
    # Not NFKC, which would also turn the 2 of m² into a number.
    return "".join(_digit(c) if c > "\x7f" else c for c in text)


def _digit(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.decomposition(character).startswith("<circle>") and character.isdigit():
        return str(unicodedata.digit(character))
    return character


def _value(match: re.Match[str]) -> str | None:
    sign = "-" if match["minus"] else ""
    if match["numeral"] is not None:
        return _numeral(match["numeral"])
    if match["cjk"] is not None:
        return _canonical(sign, _in_units(match["cjk"]))
    if match["below"] is not None:
        whole, above, below = (part or "0" for part in match.group("mixed", "above", "below"))
        if len(whole + above + below) > LONGEST:
            return None
        return _canonical(sign, int(whole) + Fraction(int(above), int(below)))
    if match["vulgar"] is not None:
        part = Fraction(unicodedata.numeric(match["vulgar"])).limit_denominator(100)
        return _canonical(sign, int((match["units"] or "0")[-LONGEST:]) + part)
    whole = re.sub(r"\D", "", match["grouped"] or match["whole"] or "0")
    decimals = match["cents"] or match["fraction"] or match["bare"] or ""
    shift = int(match["exponent"] or match["power"] or 0)
    shift += next((power for power in _WORDS if match[f"after{power}"]), 0)
    shift += next((power for power in _BEFORE if match[f"before{power}"]), 0)
    if shift and len(whole + decimals) <= LONGEST:
        return _canonical(sign, Fraction(int(whole + decimals)) * Fraction(10) ** (shift - len(decimals)))
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    value = f"{whole}.{decimals}" if decimals else whole
    return sign + value if value != "0" else value


def _in_units(text: str) -> Fraction:
    """`3億5,000万`: groups of digits with units that fall; a small unit multiplies within the next large one."""
    total = section = Fraction(0)
    for digits, unit in re.findall(r"(\d[\d,]*(?:\.\d+)?)(\D?)", text):
        section += Fraction(digits.replace(",", "")) * 10 ** (
            _CJK_UNITS.get(unit, 0) if _CJK_UNITS.get(unit, 0) < 4 else 0
        )
        if _CJK_UNITS.get(unit, 0) >= 4:
            total, section = total + section * 10 ** _CJK_UNITS[unit], Fraction(0)
    return total + section


def _numeral(text: str) -> str | None:
    """A number in Chinese numerals, `None` where the characters are none (`一二`, `万一`)."""
    total = section = digit = 0
    last = 99
    for character in text:
        if character in _CJK_DIGITS:
            if digit:
                return None
            digit = _CJK_DIGITS[character]
            continue
        power = _CJK_UNITS[character]
        if power >= 4:
            if not section + digit:
                return None
            total, section, digit, last = total + (section + digit) * 10**power, 0, 0, 99
        else:
            if power >= last or (not digit and power != 1):
                return None
            section, digit, last = section + (digit or 1) * 10**power, 0, power
    value = total + section + digit
    return str(value) if value >= 10 else None


def _canonical(sign: str, value: Fraction | int) -> str:
    fraction = Fraction(value)
    if fraction == 0:
        return "0"
    below = fraction.denominator
    places = 0
    while below % 10 == 0:
        below //= 10
        places += 1
    twos = (below & -below).bit_length() - 1
    fives, rest = 0, below >> twos
    while rest % 5 == 0:
        rest //= 5
        fives += 1
    if rest != 1:
        return f"{sign}{fraction.numerator}/{fraction.denominator}"
    places += max(twos, fives)
    digits = str(fraction.numerator * 10**places // fraction.denominator).rjust(places + 1, "0")
    whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :].rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
