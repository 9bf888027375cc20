"""Questions that no suite asks: the built-in suites under a new seed, or a maintainer's private folder.

Knows where such questions come from and which the suites ask already. That a submitter has not seen them is a matter of
when the seed is drawn and who holds the folder. Knows no tokens and no drafters.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from fairspec_bench.records import FairspecError, Prompt
from fairspec_bench.suite import embedded
from fairspec_bench.suite.data import EMBEDDED_ITEMS, Item
from fairspec_bench.suite.training import MAX_FILE_BYTES, refuse_suite_prompts


def can_be_fresh(suite: str, private: Path | None) -> bool:
    """Whether the suite is one that a new seed gives new questions of, or there is a private folder."""
    return suite in _BUILT_IN or private is not None


def fresh_items(
    suite: str, languages: Sequence[str], count: int, seed: int, private: Path | None = None
) -> dict[str, tuple[Item, ...]]:
    """`count` questions of each language as the suite's own would be, none of which it asks; without answers.

    Of a built-in suite those of its split `test` under the seed, less those it asks; else lines of
    `private/<suite>/<language>.txt`, or where there is no such folder of `private/<language>.txt`, drawn by the seed.
    Those of one number are taken to be one problem. Raises `FairspecError` if there are not so many.
    """
    if suite not in _BUILT_IN:
        return _private(suite, languages, count, seed, private)
    found = {each: tuple(islice(_items(suite, _BUILT_IN[suite](each, seed)), count)) for each in languages}
    for language, items in found.items():
        if len(items) < count:
            raise FairspecError(f"{suite}/{language}: has {len(items)} fresh questions, not {count}. Ask for fewer.")
    return found


def _items(suite: str, questions: Iterable[tuple[int, str]]) -> Iterator[Item]:
    return (Item(k, f"{suite}/fresh-{k}", question, "") for k, question in questions)


# --------------------------------------------------------------------------- built in

Wanted = Callable[[embedded.Plot], bool]
Numbered = Iterator[tuple[int, str]]


def _problems(tongue: str, wanted: Wanted, seed: int) -> Numbered:
    def signature(plot: embedded.Plot) -> str:
        return embedded.signature(plot.start, plot.events)

    asked = set(map(signature, islice(filter(wanted, embedded.plots("test")), EMBEDDED_ITEMS)))
    fresh = (plot for plot in embedded.plots("test", seed) if wanted(plot) and signature(plot) not in asked)
    return ((k, embedded.tell(tongue, plot).question) for k, plot in enumerate(fresh))


def _math(language: str, seed: int) -> Numbered:
    return _problems(language, lambda plot: True, seed)


def _domain(domain: str, seed: int) -> Numbered:
    return _problems("en", partial(embedded.of_domain, domain=domain), seed)


def _story(language: str, seed: int) -> Numbered:
    scenes = list(range(EMBEDDED_ITEMS, embedded.story_count("test")))
    random.Random(f"fresh stories/{seed}").shuffle(scenes)
    return ((k, embedded.story(language, scene, "test", seed).opening) for k, scene in enumerate(scenes))


_BUILT_IN: Mapping[str, Callable[[str, int], Numbered]] = {
    "embedded_math": _math,
    "embedded_story": _story,
    "embedded_domain": _domain,
}


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
            Prompt(key=f"{folder / each}.txt:{k + 1}", cluster=f"{k}", suite=suite, language=each, text=line, cap=1)
            for each, lines in found.items()
            for k, line in lines.items()
        ]
    )
    return {each: tuple(_items(suite, lines.items())) for each, lines in found.items()}


def _drawn(path: Path, count: int, seed: str) -> dict[int, str]:
    """Lines of a file by number: files of equal length, as translations are, give the same ones."""
    lines = {k: line for k, line in enumerate(_read(path)) if line.strip()}
    if len(set(lines.values())) < len(lines):
        raise FairspecError(f"{path}: a question comes twice. Take one out.")
    if len(lines) < count:
        raise FairspecError(f"{path}: holds {len(lines)} questions, not {count}. Add some, or ask for fewer.")
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
