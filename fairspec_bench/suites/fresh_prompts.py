"""Questions that are in no suite: the built-in suites under a new seed, or a maintainer's private folder.

Whether a submitter has seen them depends on when the seed is drawn and who has the folder.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.prompts import Prompt
from fairspec_bench.suites.sources import registry
from fairspec_bench.suites.sources.base import Item
from fairspec_bench.suites.training_prompts import MAX_FILE_BYTES, refuse_suite_prompts


def can_be_fresh(suite: str, private: Path | None) -> bool:
    """Whether a new seed gives new questions of the suite, or there is a private folder."""
    return _fresh_questions(suite) is not None or private is not None


def fresh_items(
    suite: str, languages: Sequence[str], count: int, seed: int, private: Path | None = None
) -> dict[str, tuple[Item, ...]]:
    """`count` questions of each language in the style of the suite but not in it; without answers.

    For a built-in suite they come from its split `test` under the seed; else from lines of
    `private/<suite>/<language>.txt` (without such a folder: `private/<language>.txt`), sampled by the seed.
    Those of one number are one problem. Raises `FairspecError` if there are fewer.
    """
    questions = _fresh_questions(suite)
    if questions is None:
        return _private(suite, languages, count, seed, private)
    found = {each: tuple(islice(_items(suite, questions(each, seed)), count)) for each in languages}
    for language, items in found.items():
        if len(items) < count:
            raise FairspecError(f"{suite}/{language}: has {len(items)} fresh questions, not {count}. Use fewer.")
    return found


def _fresh_questions(suite: str) -> Callable[[str, int], Iterator[tuple[int, str]]] | None:
    source = registry.sources().get(suite)
    return source.fresh_questions if source else None


def _items(suite: str, questions: Iterable[tuple[int, str]]) -> Iterator[Item]:
    return (Item(k, f"{suite}/fresh-{k}", question, "") for k, question in questions)


# --------------------------------------------------------------------------- a private folder


def _private(
    suite: str, languages: Sequence[str], count: int, seed: int, private: Path | None
) -> dict[str, tuple[Item, ...]]:
    if private is None or not private.is_dir():
        where = f"{private}: no such folder" if private else f"{suite}: no fresh questions"
        raise FairspecError(f"{where}. Give a private folder of <language>.txt, a question a line.")
    folder = private / suite if (private / suite).is_dir() else private
    found = {each: _drawn(folder / f"{each}.txt", count, f"private/{suite}/{seed}") for each in languages}
    refuse_suite_prompts(
        [
            Prompt(
                key=f"{folder / each}.txt:{k + 1}",
                cluster=f"{k}",
                suite=suite,
                language=each,
                text=line,
                max_new_tokens=1,
            )
            for each, lines in found.items()
            for k, line in lines.items()
        ]
    )
    return {each: tuple(_items(suite, lines.items())) for each, lines in found.items()}


def _drawn(path: Path, count: int, seed: str) -> dict[int, str]:
    """Sampled lines of a file by number; files of equal length, as of translations, give the same numbers."""
    lines = {k: line for k, line in enumerate(_read(path)) if line.strip()}
    if len(set(lines.values())) < len(lines):
        raise FairspecError(f"{path}: a question occurs twice. Remove one.")
    if len(lines) < count:
        raise FairspecError(f"{path}: holds {len(lines)} questions, not {count}. Add some, or use fewer.")
    return {k: lines[k] for k in sorted(random.Random(seed).sample(sorted(lines), count))}


def _read(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FairspecError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB. Give fewer questions.")
        # Only "\n" ends a line: str.splitlines would also split at separators that a question may hold.
        return [line.removesuffix("\r") for line in path.read_text(encoding="utf-8").split("\n")]
    except OSError as error:
        raise FairspecError(f"{path}: cannot be read ({error.strerror}). Put a question a line there.") from None
    except UnicodeDecodeError:
        raise FairspecError(f"{path}: not UTF-8. Convert it.") from None
