"""MultiQ: open questions in 137 languages, the CSV of paul-rottger/multiq or the Hub's copy."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.suites.sources.base import (
    Data,
    Item,
    Source,
    damaged,
    first_existing,
    from_hub,
    local_folder,
    read_text,
)

HUB, HOME = "caro-holt/MultiQ", "github.com/paul-rottger/multiq"


def languages() -> tuple[str, ...]:
    """Every language that the MultiQ at hand has, sorted. Raises `FairspecError` as `load` does."""
    return tuple(sorted({row["language"] for _, row in _rows()}))


def load(language: str) -> Data:
    found: dict[str, str] = {}
    for place, row in _rows():
        if row["language"] != language:
            continue
        if row["id"] in found:
            raise damaged(place, f"{row['id']} occurs twice in {language}", HOME)
        if not row["prompt"].strip():
            raise damaged(place, "the prompt is empty", HOME)
        found[row["id"]] = row["prompt"]
    if not found:
        raise FairspecError(f"multiq: no language {language!r}. Known: {', '.join(languages())}.")
    # One order for all languages, so that the first n of each are the same questions.
    ordered = sorted(found, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)])
    return Data(tuple(Item(k, f"multiq/{name}", found[name], "") for k, name in enumerate(ordered)))


def _rows() -> Iterator[tuple[str, Mapping[str, str]]]:
    """(place, row) with at least the columns id, language and prompt."""
    folder = local_folder("multiq")
    if folder is None:
        split = from_hub("multiq", HUB, "MultiQ.csv", HOME)["train"]
        yield from ((f"{HUB}, row {n}", row) for n, row in enumerate(split))
        return
    path = first_existing(folder, "multiq.csv", "MultiQ.csv")
    text = read_text(path, HOME)
    heading = text.partition("\n")[0]
    # Spreadsheets of many countries write semicolons, some tabs; the line of headings tells which.
    delimiter = max(",;\t", key=heading.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    if not {"id", "language", "prompt"} <= set(reader.fieldnames or ()):
        raise damaged(f"{path}:1", "the columns id, language and prompt are not all there", HOME)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise damaged(f"{path}:{reader.line_num}", "the line has too few or too many fields", HOME)
            yield f"{path}:{reader.line_num}", row
    except csv.Error as error:
        raise damaged(f"{path}:{reader.line_num}", f"not CSV ({error})", HOME) from None


SOURCES = {"multiq": Source(load, languages)}
