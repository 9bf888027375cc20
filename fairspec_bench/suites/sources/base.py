"""What every source of questions shares: the records, local files, the Hub, and the hash that names a data set.

A suite's questions come from a module beside this one, one file a data set (see `registry`). Whatever the source, the
same questions give the same `Item`s and so the same hash.

The environment variable `FAIRSPEC_DATA_DIR` names a folder with one folder a data set. A data set without a folder
there comes from the Hub.
"""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairspec_bench.models import hub
from fairspec_bench.schemas.base import FairspecError, Sha256

DATA_DIR = "FAIRSPEC_DATA_DIR"
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Item:
    """One question. `number` counts from 0 within its language; `cluster` is shared with the same problem elsewhere.

    `answer` is the target as text: canonical digits, a reference continuation, or empty where a suite has none.
    `reasoning` is an exemplar's worked answer without its header, empty for test questions.
    """

    number: int
    cluster: str
    question: str
    answer: str
    reasoning: str = ""


@dataclass(frozen=True)
class Data:
    """The test questions of one language of a suite and its exemplars in their fixed order."""

    test: tuple[Item, ...]
    shots: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where the questions of a suite come from.

    Attributes:
        load: The data of one language. Raises `FairspecError` where it is missing or damaged: what, where, what to do.
        languages: Every language that the data at hand has, where these may be more than the suite's group file lists.
        tuning_prompts: By task, prompt `k` of the split `tune`, which the suite never uses. Built-in suites only.
        fresh_questions: Questions of one task under a seed, numbered, none of them the suite's. Built-in suites only.
    """

    load: Callable[[str], Data]
    languages: Callable[[], tuple[str, ...]] | None = None
    tuning_prompts: Mapping[str, Callable[[int], str]] | None = None
    fresh_questions: Callable[[str, int], Iterator[tuple[int, str]]] | None = None


def data_sha256(items: Iterable[Item]) -> Sha256:
    r"""SHA-256 over `question \x1f answer \x1e` of every item in order: the same from a folder and from the Hub."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.question}\x1f{item.answer}\x1e".encode())
    return digest.hexdigest()


# --------------------------------------------------------------------------- files and the Hub


def local_folder(name: str) -> Path | None:
    """The data set's folder in `FAIRSPEC_DATA_DIR`, or `None` where it must come from the Hub."""
    value = os.environ.get(DATA_DIR)
    if not value:
        return None
    if not Path(value).is_dir():
        raise FairspecError(f"{DATA_DIR}={value}: no such folder. Correct it, or unset it to use the Hub.")
    folder = Path(value) / name
    return folder if folder.is_dir() else None


def first_existing(folder: Path, *names: str) -> Path:
    """The first of some files that exists, else the last: the name under which it is published."""
    return next((folder / name for name in names if (folder / name).exists()), folder / names[-1])


def read_text(path: Path, home: str) -> str:
    """A text file, UTF-8 or UTF-16 with a byte order mark; `home` is where to get it. Raises `FairspecError`."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise FairspecError(f"{path}: missing. Get it from {home}, or unset {DATA_DIR} to use the Hub.") from None
    except OSError as error:
        raise FairspecError(f"{path}: cannot be read ({error.strerror}).") from error
    # A byte order mark says for certain how a spreadsheet exported the file; without one it must be UTF-8.
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise damaged(f"{path}:{line}", "not UTF-8", home) from None
    return text if "\n" in text else text.replace("\r", "\n")


def damaged(place: str, what: str, home: str) -> FairspecError:
    """The error for data that is not as published: where (file and line), what is wrong, where to get it again."""
    return FairspecError(f"{place}: {what}. Get the file again from {home}.")


def expect_count(count: int, expected: int, place: str, home: str, what: str = "problems") -> None:
    """Raise `FairspecError` unless a file holds as many as were published."""
    if count != expected:
        raise damaged(place, f"holds {count} {what}, not {expected}", home)


def from_hub(suite: str, name: str, files: str, home: str, *config: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """A data set of the Hub by split. Fails within two seconds where the Hub cannot be reached."""
    advice = f"Put {files} from {home} into a folder {suite}/ and let {DATA_DIR} name the folder above it"
    if not hub.offline() and not hub.reachable():
        raise FairspecError(
            f"{suite}: no data: {DATA_DIR} has no {suite}/ and the Hub cannot be reached. "
            f"{advice}; or set HF_HUB_OFFLINE=1 if {name} is cached."
        )
    import datasets

    try:
        found: Mapping[str, Sequence[Mapping[str, Any]]] = datasets.load_dataset(name, *config)
    except Exception as error:  # the client raises many kinds, none of them documented
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "script" in reason:
            reason = "the cached copy is an old one with a loading script, which is never run: fetch the data set again"
        raise FairspecError(
            f"{suite}: no data: {name} could not be fetched from the Hub ({reason}). {advice}."
        ) from error
    return found
