"""`submission.toml`: who submits what drafter to which track. What its fields may hold, and what plain text is."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from fairspec_bench.engine.drafters.kinds import DRAFTER_KINDS
from fairspec_bench.schemas.io import wrong
from fairspec_bench.schemas.submission import Submission
from fairspec_bench.submissions.findings import Findings
from fairspec_bench.submissions.reading import MAX_NESTING, unsafe_name

FILE = "submission.toml"
MAX_BYTES = 16 * 2**10

SHA256 = re.compile(r"[0-9a-f]{64}")
PINNED = re.compile(
    r"([0-9a-f]{40}|(gguf|tables)-sha256:[0-9a-f]{64}|"
    r"weights-sha256:[0-9a-f]{64}(\+config-sha256:[0-9a-f]{64}\+generation-sha256:[0-9a-f]{64})?)"
    r"(\+adapter-sha256:[0-9a-f]{64})?(\+temperatures-sha256:[0-9a-f]{64})?"
)
SPDX = re.compile(r"(LicenseRef-)?[A-Za-z0-9][A-Za-z0-9.+-]*( (AND|OR|WITH) (LicenseRef-)?[A-Za-z0-9][A-Za-z0-9.+-]*)*")
HTTPS = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]{1,5})?(/[A-Za-z0-9._~%/?=&#+-]*)?")
MARKUP = re.compile(r"<[A-Za-z/!?]|&#|(javascript|vbscript|data|file)\s*:", re.IGNORECASE)
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".joblib", ".npy", ".npz", ".tar")
CODE = (".py", ".pyc", ".so", ".sh", ".dll", ".exe", ".js")
MAX_MARKS = 4
RESERVED = re.compile(r"\b(audited|self-reported|baseline|official|verified)\b|[\u2713\u2714\u2705\u2611]")
BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters that show nothing."""
LOOK_ALIKE = {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC"}
TWINS = str.maketrans("аеорсухіѕјԁԛԝһкмтвнαοερτικνυχ0135", "aeopcyxisjdqwhkmtbhaoeptiknuxoles")
"""Letters and digits that look like a Latin letter (after UTS 39)."""
BLANK = "..."
"""What a template leaves to be filled in."""


def read_submission(raw: bytes, findings: Findings) -> Submission | None:
    """The submission, or `None` with findings. What is well-formed but not allowed is found, and read all the same."""
    try:
        text = raw.decode("utf-8")
        plain = tomllib.loads(text)
    except UnicodeDecodeError as error:
        findings.add("J001", FILE, "toml", f"byte {error.start}", "UTF-8")
        return None
    except (ValueError, RecursionError) as error:
        findings.add("S001", FILE, "toml", str(error), "TOML")
        return None
    if too_large(plain):
        findings.add("S001", FILE, "toml", "deep nesting or a huge number", f"at most {MAX_NESTING} levels, 64 bits")
        return None
    lines = text.splitlines()
    check_text(plain, FILE, findings, lines)
    try:
        entry = Submission.model_validate(plain)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False):
            field = ".".join(map(str, each["loc"]))
            findings.add("S002", FILE, field, each.get("input"), wrong(each), line=_line(lines, field))
        return None
    _check_entry(entry, findings, lines)
    return entry


def too_large(value: Any, levels: int = MAX_NESTING) -> bool:
    """Whether a plain value nests too deep, or has a number that no field holds."""
    if isinstance(value, dict | list):
        children = value.values() if isinstance(value, dict) else value
        return not levels or any(too_large(each, levels - 1) for each in children)
    return isinstance(value, int) and value.bit_length() > 64


def _check_entry(entry: Submission, findings: Findings, lines: list[str]) -> None:
    def add(code: str, field: str, got: object, expected: str) -> None:
        findings.add(code, FILE, field, got, expected, line=_line(lines, field))

    for field in ("name", "description", "contact", "drafter.training_data"):
        owner = entry.drafter if field.startswith("drafter.") else entry
        if getattr(owner, field.rpartition(".")[2]) == BLANK:
            add("S002", field, BLANK, "the blank filled in")
    if BLANK in entry.authors:
        add("S002", "authors", entry.authors, "the blank filled in")
    for field, text in {
        "name": entry.name,
        "contact": entry.contact,
        "drafter.repo": entry.drafter.repo,
        "drafter.method": entry.drafter.method or "a",
        **{f"authors.{place}": author for place, author in enumerate(entry.authors)},
    }.items():
        if text != BLANK and (fault := name_fault(text)):
            add("S012", field, text, f"a name without {fault}")
    if said := RESERVED.search(entry.name.casefold()):
        add("S012", "name", entry.name, f"a name without {said[0]!r}, which the board says")
    if not HTTPS.fullmatch(entry.url):
        add("S004", "url", entry.url, "https://...")
    if not SPDX.fullmatch(entry.licence):
        add("S005", "licence", entry.licence, "an SPDX identifier")
    drafter = entry.drafter
    kind = DRAFTER_KINDS.get(drafter.kind)
    if kind is None:
        add("S002", "drafter.kind", drafter.kind, f"one of {', '.join(DRAFTER_KINDS)}")
    elif kind.needs_files:
        if not PINNED.fullmatch(drafter.revision or ""):
            add(
                "S009", "drafter.revision", drafter.revision, "40 hex digits, or weights-sha256: or gguf-sha256: and 64"
            )
        if not any(name.endswith(".safetensors") for name in drafter.files):
            add("S009", "drafter.files", list(drafter.files), "at least its *.safetensors")
    for name, digest in drafter.files.items():
        if not SHA256.fullmatch(digest):
            add("S009", f"drafter.files.{name}", digest, "64 hex digits")
        if unsafe_name(name):
            add("F003", f"drafter.files.{name}", name, "a safe relative name")
        if name.lower().endswith(PICKLED):
            add("W001", f"drafter.files.{name}", name, "*.safetensors")
        if name.lower().endswith(CODE):
            add("W002", f"drafter.files.{name}", name, "no program")


def _line(lines: list[str], field: str) -> int | None:
    """The line that sets a field, as far as its last name tells."""
    name = re.escape(field.rpartition("drafter.files.")[2] if "files." in field else field.rpartition(".")[2])
    setting = re.compile(rf'\s*"?{name}"?\s*=')
    return next((number for number, line in enumerate(lines, 1) if setting.match(line)), None)


# --------------------------------------------------------------------------- text


def text_fault(text: str) -> str | None:
    """Why a text is not plain, `None` if it is. Joiners inside words are letters' business and allowed."""
    if MARKUP.search(text):
        return "markup, or an address that runs"
    if not unicodedata.is_normalized("NFC", text):
        return "text not in NFC"
    marks = 0
    for each in text:
        category = unicodedata.category(each)
        if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and each not in "\n\u200c\u200d":
            return f"U+{ord(each):04X}"
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > MAX_MARKS:
            return f"more than {MAX_MARKS} marks on one letter"
    return None


def name_fault(text: str) -> str | None:
    """What makes a name look like none, or like another one; `None` if it is sound.

    Names stand on one line, have a letter, and no word mixes alphabets whose letters look alike.
    """
    if "\n" in text:
        return "a line break"
    if any(each in BLANKS or (each != " " and unicodedata.category(each) == "Zs") for each in text):
        return "a blank that is no space"
    if text != text.strip():
        return "a space at an end"
    if not any(unicodedata.category(each)[0] in "LN" for each in text):
        return "nothing but marks"
    for word in re.split(r"[\W\d_]+", text):
        scripts = {name for each in word if (name := _script(each)) in LOOK_ALIKE}
        if len(scripts) > 1:
            return f"letters of {' and '.join(sorted(scripts)).title()} in one word"
    if re.search("[a-zA-Z\u0370-\u058f][\u200c\u200d]|[\u200c\u200d][a-zA-Z\u0370-\u058f]", text):
        return "a joiner between letters that do not join"
    return None


def skeleton(name: str) -> str:
    """What names that look alike have in common: letters and digits, without case, marks, widths and look-alikes."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    return "".join(each for each in plain if each.isalnum()).translate(TWINS)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0]


def check_text(value: Any, file: str, findings: Findings, lines: list[str] | None = None) -> None:
    """Find every text in a plain value, keys included, that is not plain."""
    for field, text in _texts(value, ""):
        if fault := text_fault(text):
            line = None if lines is None else _line(lines, field)
            findings.add("S003", file, field or "(whole)", fault, "plain text", line=line)


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield f"{where}.{key}".lstrip("."), str(key)
            yield from _texts(each, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _texts(each, f"{where}.{place}".lstrip("."))
