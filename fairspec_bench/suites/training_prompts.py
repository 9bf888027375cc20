"""Prompts to fine-tune a drafter on: the built-in split `tune` or a user's folder, checked to be in no suite.

A task is a language of a built-in suite, or a file of the folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairspec_bench.schemas.base import FairspecError, Sha256
from fairspec_bench.schemas.prompts import Prompt
from fairspec_bench.suites.listing import list_suites
from fairspec_bench.suites.sources import registry
from fairspec_bench.suites.suite import load_suite

FOLDER_CAP = 256
MAX_FILE_BYTES = 64 * 2**20
LIMIT = 80
"""Prompts of each task by default."""


@dataclass(frozen=True)
class Disjoint:
    """What training prompts were compared with: `checked` suites, and those whose data was not at hand."""

    checked: tuple[str, ...]
    not_at_hand: tuple[str, ...]


def training_prompts(
    sources: Sequence[str],
    *,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    max_new_tokens: int | None = None,
) -> tuple[Prompt, ...]:
    """At most `limit` prompts of each task of each source: a built-in name or a folder.

    A folder holds `<task>.txt`, a prompt a line, or `<task>.jsonl`, an object with a field `prompt` a line. `languages`
    keeps the tasks of these names. Raises `FairspecError` for a source without prompts, or a language without any.
    """
    found: list[Prompt] = []
    built_in = _built_in()
    for source in sources:
        texts = built_in[source] if source in built_in else _folder(Path(source))
        for task, lines in texts.items():
            if languages is None or task in languages:
                found.extend(_prompts(source, task, lines(limit or LIMIT), max_new_tokens))
    for language in languages or ():
        if not any(prompt.language == language for prompt in found):
            raise FairspecError(
                f"no training prompts for {language!r} in {', '.join(sources)}. Add them or leave it out."
            )
    if not found:
        raise FairspecError(
            f"no training prompts in {', '.join(sources)}. Give --prompts NAME or a folder of <task>.txt."
        )
    return tuple(found)


def refuse_suite_prompts(prompts: Sequence[Prompt]) -> Disjoint:
    """Raise `FairspecError` if a prompt is, or holds as a paragraph, a question of any suite whose data is at hand.

    Texts are compared by hash, without regard to case, width and spaces.
    """
    known, absent = _questions()
    for prompt in prompts:
        whole = prompt.text or ""
        for text in (whole, *whole.split("\n\n"), *whole.splitlines()):
            if suite := known.get(_fingerprint(text)):
                raise FairspecError(f"prompt {prompt.key} is a question of suite {suite}. Remove it.")
    return Disjoint(tuple(sorted(set(known.values()))), absent)


# --------------------------------------------------------------------------- where they come from

PromptSource = Mapping[str, Callable[[int], Sequence[str]]]
"""By task: a function from how many to the prompts."""


def _built_in() -> dict[str, PromptSource]:
    """The suites that have a split for tuning."""

    def first(prompt: Callable[[int], str]) -> Callable[[int], Sequence[str]]:
        return lambda count: [prompt(k) for k in range(count)]

    return {
        name: {task: first(prompt) for task, prompt in source.tuning_prompts.items()}
        for name, source in registry.sources().items()
        if source.tuning_prompts
    }


def _folder(folder: Path) -> PromptSource:
    if not folder.is_dir():
        known = ", ".join(_built_in())
        raise FairspecError(f"--prompts {folder}: no such folder. Known names: {known}; or a folder of <task>.txt.")
    files = sorted(path for path in folder.iterdir() if path.suffix in (".txt", ".jsonl") and path.is_file())
    return {path.stem: _reader(path) for path in files}


def _reader(path: Path) -> Callable[[int], Sequence[str]]:
    return lambda count: [text for _, text in zip(range(count), _read(path), strict=False)]


def _read(path: Path) -> Iterator[str]:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise FairspecError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB. Give fewer prompts.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise FairspecError(f"{path}: not UTF-8. Convert it.") from None
    for number, line in enumerate(lines, 1):
        text = line if path.suffix == ".txt" else _field(line, f"{path}:{number}")
        if text.strip():
            yield text


def _field(line: str, where: str) -> str:
    try:
        text = json.loads(line)["prompt"] if line.strip() else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FairspecError(f'{where}: not an object with a field "prompt". Correct the line.') from None
    if not isinstance(text, str):
        raise FairspecError(f"{where}: prompt is not text. Correct the line.")
    return text


def _prompts(source: str, task: str, texts: Sequence[str], max_new_tokens: int | None) -> Iterator[Prompt]:
    name, most = re.sub(r"[^\w.-]+", "-", Path(source).resolve().name), max_new_tokens or FOLDER_CAP
    stops: tuple[str, ...] = ()
    if source in _built_in():
        like = load_suite(source, languages=(task,), limit=1, max_new_tokens=max_new_tokens).prompts[0]
        name, stops, most = source, like.stops, like.max_new_tokens
    for number, text in enumerate(dict.fromkeys(texts)):
        key = f"{name}/{task}/train{number}"
        yield Prompt(key=key, cluster=key, suite=name, language=task, text=text, stops=stops, max_new_tokens=most)


# --------------------------------------------------------------------------- the questions of the suites


def _questions() -> tuple[Mapping[Sha256, str], tuple[str, ...]]:
    """Fingerprints of all questions at hand with their suite, and the suites that are not."""
    found: dict[Sha256, str] = {}
    absent = []
    for info in list_suites():
        try:
            for language in info.languages:
                for item in registry.load(info.name, language).test:
                    found[_fingerprint(item.question)] = info.name
        except FairspecError:
            absent.append(info.name)
    return found, tuple(absent)


def _fingerprint(text: str) -> Sha256:
    normalised = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(normalised.encode()).hexdigest()
