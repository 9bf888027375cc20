"""A folder of work that can be interrupted: rerun with the same configuration, it resumes.

The configuration is written first, and another one is refused. One process writes at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fairspec_bench.schemas.base import Record, RecordError
from fairspec_bench.schemas.config import revision_difference
from fairspec_bench.schemas.io import read_record, write_record

LOCK = ".lock"
MAX_SHOWN = 60


class FolderError(RecordError):
    """A folder that cannot be written or trusted: names the folder or file, what is wrong and what to do."""


@contextmanager
def resumable(path: Path, file_name: str, config: Record, *, what: str = "run") -> Iterator[None]:
    """Hold the folder `path`, as its only writer, for the work that `config` describes.

    A new folder gets `config` as `file_name` before anything else is written; in one that is resumed it must be equal
    to what is there. Everything else in the folder is the caller's: write it with `write_atomic`, so that a file is
    whole or absent after a kill.

    Args:
        path: made if it does not exist.
        file_name: of the configuration; the file that marks the folder as one of this kind.
        config: everything that decides what the work produces.
        what: the work in a word, for error lines.

    Raises:
        FolderError: another process writes there, the folder holds another configuration or other files, or the disk
            refuses. Nothing was changed.
        RecordError: the configuration in the folder cannot be read.
    """
    with _locked(path):
        if (path / file_name).exists():
            if found := difference(read_record(path / file_name, type(config)), config):
                raise FolderError(
                    f"{path}: holds another {what} ({found}). Choose another --out, or give the options it was started "
                    "with."
                )
        elif any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise FolderError(f"{path}: not empty, and not a {what} folder (no {file_name}). Choose another --out.")
        else:
            write_record(path / file_name, config)
        yield


def difference(there: Record, here: Record, *, of: set[str] | None = None) -> str | None:
    """The first field (`of` these) in which two records differ, with both values; `None` if they are equal."""
    return _difference(there.model_dump(mode="json", include=of), here.model_dump(mode="json", include=of), "")


def unwritable(path: Path, error: OSError) -> FolderError:
    """The error line for a file or folder that the disk refuses to write."""
    return FolderError(
        f"{path}: cannot be written ({error.strerror or error}). Free space or restore access and run the same command "
        "again, which resumes; or choose another --out."
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The operating system holds the lock for this process: it ends with the process, however that dies."""
    lock = FileLock(path / LOCK, timeout=0)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise FolderError(f"{path}: another process is writing here. Wait for it, or choose another --out.") from None
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _difference(there: Any, here: Any, where: str) -> str | None:
    if isinstance(there, dict) and isinstance(here, dict):
        pairs = [(name, there.get(name), here.get(name)) for name in [*there, *(here.keys() - there.keys())]]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [(str(place), *both) for place, both in enumerate(zip(there, here, strict=True))]
    elif there == here:
        return None
    elif where.endswith("revision") and (said := revision_difference(there, here)):
        return f"{where}: {said}: {_short(there)} there, {_short(here)} here"
    else:
        return f"{where}: {_short(there)} there, {_short(here)} here"
    found = (_difference(old, new, f"{where}.{name}".lstrip(".")) for name, old, new in pairs)
    return next((difference for difference in found if difference), None)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
