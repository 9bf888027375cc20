"""Reading files that someone else wrote: names, sizes, gzip and JSON, each within a stated bound.

Nothing here follows a link,
opens anything but a plain file, or keeps more in memory than the bounds below.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from fairspec_bench.schemas.base import Record, Sha256
from fairspec_bench.schemas.io import wrong
from fairspec_bench.submissions.findings import Findings, show

R = TypeVar("R", bound=Record)

MAX_FILES = 1_000
MAX_DEPTH = 4
MAX_FILE_BYTES = 48 * 2**20
MAX_TOTAL_BYTES = 64 * 2**20
MAX_DOCUMENT_BYTES = 4 * 2**20
MAX_LINE_BYTES = 256 * 2**10
MAX_NESTING = 32
MAX_DIGITS = 16
MAX_BAD_LINES = 10
CHUNK = 2**16

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}


def unsafe_name(name: str) -> bool:
    """Whether a relative path could lead elsewhere, or be another one on another system."""
    return any(not NAME.fullmatch(part) or part.split(".")[0].lower() in DEVICES for part in name.split("/"))


def one_spelling(name: str) -> str:
    """What names that a system may take for one have in common."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


class JsonFault(Exception):
    """Text that is not strict JSON: a code, what was there, what should be."""

    def __init__(self, code: str, got: object, expected: str):
        super().__init__(code)
        self.code, self.got, self.expected = code, got, expected


def parse_json(raw: bytes) -> Any:
    """Strict JSON: UTF-8, no double key, no NaN, no infinity, numbers of at most 16 digits. Raises `JsonFault`."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonFault("J001", f"byte {error.start}", "UTF-8") from None
    if text.startswith("\ufeff"):
        raise JsonFault("J001", "a byte order mark", "plain UTF-8")
    try:
        value = _DECODER.decode(text)
        too_deep = _deeper(value, MAX_NESTING)
    except RecursionError:
        too_deep = True
    except ValueError as error:
        raise JsonFault("J002", str(error), "JSON") from None
    if too_deep:
        raise JsonFault("J003", "deep nesting", f"at most {MAX_NESTING} levels")
    return value


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return not levels or any(_deeper(each, levels - 1) for each in children if isinstance(each, dict | list))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonFault("J004", key, "each key once")
            seen.add(key)
    return found


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise JsonFault("J006", text, f"at most {MAX_DIGITS} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise JsonFault("J006", text, "a finite number")
    return value


def _constant(text: str) -> NoReturn:
    raise JsonFault("J006", text, "a finite number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole, parse_float=_real, parse_constant=_constant)


class Tree:
    """The plain files under a folder, by relative name, and the bounded ways to read them."""

    def __init__(self, root: Path, findings: Findings):
        self.root, self.findings = root, findings
        self.files: dict[str, int] = {}
        self.left = MAX_TOTAL_BYTES
        self._survey()

    def _survey(self) -> None:
        seen: dict[str, str] = {}
        pending, count = [""], 0
        while pending:
            folder = pending.pop()
            try:
                entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
            except OSError as error:
                self.findings.add("F001", folder or ".", "folder", error.strerror or "an error", "a readable folder")
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}".lstrip("/")
                count += 1
                if count > MAX_FILES:
                    self.findings.add("F007", ".", "files", f"more than {MAX_FILES}", f"at most {MAX_FILES}")
                    return
                twin = seen.setdefault(one_spelling(name), name)
                if twin != name:
                    self.findings.add("F004", name, "name", f"beside {show(twin)}", "one of the two")
                if self._admit(entry, name):
                    pending.append(name)

    def _admit(self, entry: os.DirEntry[str], name: str) -> bool:
        """Note an entry; → whether it is a folder to look into."""
        if unsafe_name(name):
            self.findings.add("F003", name, "name", name, "a safe name")
            return False
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            if name.count("/") + 1 >= MAX_DEPTH:
                self.findings.add("F007", name, "depth", f"more than {MAX_DEPTH}", f"at most {MAX_DEPTH}")
                return False
            return True
        if not stat.S_ISREG(status.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a special file"
            self.findings.add("F002", name, "type", kind, "a plain file")
        elif status.st_size > MAX_FILE_BYTES:
            self.findings.add("F007", name, "size", f"{status.st_size} bytes", f"at most {MAX_FILE_BYTES} bytes")
        elif sum(self.files.values()) + status.st_size > MAX_TOTAL_BYTES:
            self.findings.add("F007", name, "size", "too much in all", f"at most {MAX_TOTAL_BYTES} bytes")
        else:
            self.files[name] = status.st_size
        return False

    def stored(self, name: str) -> str | None:
        """Under which name a file lies there, plain or gzipped."""
        return next((each for each in (name, f"{name}.gz") if each in self.files), None)

    def sha256(self, name: str) -> Sha256 | None:
        """The hash of a file's bytes as they lie there."""
        raw = self._raw(name)
        return None if raw is None else hashlib.sha256(raw).hexdigest()

    def read(self, name: str, limit: int = MAX_FILE_BYTES) -> bytes | None:
        """A file's content, unzipped where it is gzipped; `None` if it is missing or has more than `limit` bytes."""
        stored = self.stored(name)
        raw = None if stored is None else self._raw(stored)
        if stored is None or raw is None:
            return None
        limit = min(limit, self.left)
        if stored.endswith(".gz"):
            raw = self._inflated(stored, raw, limit)
        elif len(raw) > limit:
            self.findings.add("F007", stored, "size", f"{len(raw)} bytes", f"at most {limit} bytes")
            return None
        self.left -= len(raw or b"")
        return raw

    def _raw(self, name: str) -> bytes | None:
        try:
            handle = os.open(self.root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(handle, "rb") as file:
                return file.read(MAX_FILE_BYTES)
        except OSError as error:
            self.findings.add("F001", name, "file", error.strerror or "an error", "a readable file")
            return None

    def _inflated(self, name: str, raw: bytes, limit: int) -> bytes | None:
        """One gzip member, at most `limit` bytes of content."""
        machine = zlib.decompressobj(wbits=31)
        try:
            text = machine.decompress(raw, limit + 1)
        except zlib.error as error:
            self.findings.add("F008", name, "gzip", str(error), "a whole gzip file")
            return None
        if len(text) > limit:
            self.findings.add("F008", name, "gzip", f"more than {limit} bytes of content", f"at most {limit} bytes")
        elif not machine.eof:
            self.findings.add("F008", name, "gzip", "an early end", "a whole gzip file")
        elif machine.unused_data:
            self.findings.add("F008", name, "gzip", "bytes after its end", "one gzip member")
        else:
            return text
        return None

    def document(self, name: str, kind: type[R]) -> tuple[R, Any] | None:
        """A file of one JSON record: the record, and the same as plain values."""
        raw = self.read(name, MAX_DOCUMENT_BYTES)
        return None if raw is None else self._record(raw, kind, name, None)

    def lines(self, name: str, kind: type[R], most: int) -> list[tuple[int, R]]:
        """The records of a JSON-lines file with their line numbers; wrong lines are noted and left out.

        After ten wrong lines, or twice the `most` that there should be, the rest of the file is not read.
        """
        found, bad = list[tuple[int, R]](), 0
        for number, raw in self._split(name):
            if number > 2 * most + MAX_BAD_LINES:
                self.findings.add("L005", self.stored(name) or name, "lines", "far too many", f"{most}", line=number)
                break
            made = self._record(raw, kind, name, number)
            if made is not None:
                found.append((number, made[0]))
                continue
            bad += 1
            if bad == MAX_BAD_LINES:
                break
        return found

    def _split(self, name: str) -> Iterator[tuple[int, bytes]]:
        text, start, number = self.read(name) or b"", 0, 0
        while start < len(text):
            number += 1
            end = text.find(b"\n", start, start + MAX_LINE_BYTES)
            if end < 0:
                got = "no end of line" if len(text) - start < MAX_LINE_BYTES else f"more than {MAX_LINE_BYTES} bytes"
                self.findings.add("J005", self.stored(name) or name, "line", got, "a whole line", line=number)
                return
            yield number, text[start:end]
            start = end + 1

    def _record(self, raw: bytes, kind: type[R], name: str, line: int | None) -> tuple[R, Any] | None:
        file = self.stored(name) or name
        try:
            plain = parse_json(raw)
            return kind.model_validate_json(raw), plain
        except JsonFault as fault:
            self.findings.add(fault.code, file, "json", fault.got, fault.expected, line=line)
        except ValidationError as error:
            for each in error.errors(include_url=False, include_context=False)[:5]:
                field = ".".join(map(str, each["loc"])) or "(whole)"
                code = "J002" if each["type"] == "json_invalid" else "J007"
                self.findings.add(code, file, field, each.get("input"), wrong(each), line=line)
        return None
