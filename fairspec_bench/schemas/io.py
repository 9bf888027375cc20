"""Files of records: written atomically, read strictly, every error with file, line and field."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fairspec_bench.schemas.base import R, Record, RecordError, Sha256

GZIP = ".gz"
CACHE_DIR = "FAIRSPEC_CACHE_DIR"
MAX_LINE_BYTES = 8 * 2**20


def cache_folder(kind: str) -> Path:
    """Where what can be made again is kept for other runs: `FAIRSPEC_CACHE_DIR`, else the user's cache, by `kind`."""
    from platformdirs import user_cache_path

    root = os.environ.get(CACHE_DIR)
    return (Path(root) if root else user_cache_path("fairspec-bench")) / kind


def ids_sha256(ids: Iterable[int]) -> Sha256:
    """SHA-256 of the ids in decimal, joined by commas."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content`: `path` holds the old bytes or the new ones, never a part. Raises `RecordError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written ({error.strerror}). Free space or choose another --out."
        ) from error


def write_record(path: Path, record: Record) -> None:
    """Write one record as indented JSON, atomically."""
    write_atomic(path, record.model_dump_json(indent=1) + "\n")


def read_record(path: Path, kind: type[R]) -> R:
    """Read one record, gzipped or not. Raises `RecordError` naming the file and the first wrong field."""
    path = stored_at(path) or path
    try:
        with opened(path) as file:
            return kind.model_validate_json(file.read())
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file. Is this a run folder?") from None
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    except ValidationError as error:
        raise RecordError(f"{path} {_first(error)}") from None


def lines_text(records: Sequence[Record]) -> str:
    """Records as JSON lines, fields in the order of their class."""
    return "".join(record.model_dump_json(exclude_none=False) + "\n" for record in records)


def read_lines(path: Path, kind: type[R], *, torn_ok: bool = True) -> Iterator[R]:
    """The records of a JSON-lines file, or of the same gzipped (`path` with `.gz`); a missing file has none.

    A torn last line (no newline) is dropped if `torn_ok`. Anything else wrong raises `RecordError` with file and line.
    """
    stored = stored_at(path)
    if stored is None:
        return
    path, number = stored, 0
    try:
        with opened(path) as file:
            while raw := file.readline(MAX_LINE_BYTES):
                number += 1
                if not raw.endswith(b"\n"):
                    if len(raw) == MAX_LINE_BYTES:
                        raise RecordError(f"{path}:{number}: line longer than {MAX_LINE_BYTES} bytes.")
                    if torn_ok:
                        return
                yield kind.model_validate_json(raw)
    except ValidationError as error:
        raise RecordError(
            f"{path}:{number} {_first(error)} Restore the file, or delete it and run again: only it is redone."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def stored_at(path: Path) -> Path | None:
    """Where a file lies, as it is or gzipped; `None` if it does not."""
    return next((each for each in (path, path.with_name(path.name + GZIP)) if each.exists()), None)


def wrong(error: ErrorDetails) -> str:
    """What is wrong with a field of a record, in words; of a file of another version, what to do."""
    if error["loc"] == ("schema_version",):
        made = "made by 0.1; score again with this version" if error.get("input") == 1 else "of another version"
        return f"{error['msg']} ({made})"
    return error["msg"]


def opened(path: Path) -> BinaryIO:
    """A file for reading, unzipped where it is gzipped."""
    return gzip.open(path) if path.suffix == GZIP else path.open("rb")  # type: ignore[return-value]


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"])) or "(whole)"
    got = json.dumps(first.get("input"), default=str)[:60]
    return f"{where}: {wrong(first)}, got {got}."
