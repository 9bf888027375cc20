"""MGSM: grade-school problems with worked exemplars, the TSV files of google-research/url-nlp or the Hub's copy."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fairspec_bench.suites.sources.base import (
    Data,
    Item,
    Source,
    damaged,
    expect_count,
    first_existing,
    from_hub,
    local_folder,
    read_text,
)

HUB, HOME, ITEMS, SHOTS = "juletxara/mgsm", "github.com/google-research/url-nlp", 250, 8
_HEADER = re.compile(r"[^:：]*[:：] ?")
_HEADINGS = {"question", "answer", "answer_number"}
_WHOLE = re.compile(r"-?\d+")


def load(language: str) -> Data:
    folder = local_folder("mgsm")
    if folder is None:
        return _load_from_hub(language)
    test = _questions(_lines(folder / f"mgsm_{language}.tsv"))
    expect_count(len(test), ITEMS, f"{folder / f'mgsm_{language}.tsv'}", HOME)
    return Data(test, _exemplars(first_existing(folder, "exemplars.json", "exemplars.py"), language))


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """(place, question, answer) of each line `question<TAB>answer`.

    What a spreadsheet makes of the file is undone where its meaning is certain: a line of headings, columns exchanged,
    quoted fields, whole numbers with decimals, empty lines at the end.
    """
    # Only "\n" ends a line: str.splitlines would also split at separators that a question may hold.
    lines = read_text(path, HOME).rstrip("\r\n").split("\n")
    for number, line in enumerate(lines, 1):
        question, tab, answer = line.removesuffix("\r").partition("\t")
        if not tab:
            raise damaged(f"{path}:{number}", "no tab between question and answer", HOME)
        if number == 1 and {question.strip().lower(), answer.strip().lower()} <= _HEADINGS:
            continue
        if _whole(question) and not _whole(answer):
            question, answer = answer, question
        yield f"{path}:{number}", _unquoted(question), _whole(answer) or answer


def _whole(text: str) -> str | None:
    """The digits of a whole number as files write it (`70000`, `70,000`, `70000.0`), `None` for anything else."""
    digits = re.sub(r"\.0+$", "", _unquoted(text).strip()).replace(",", "")
    return digits if _WHOLE.fullmatch(digits) else None


def _unquoted(field: str) -> str:
    """A field as written where a spreadsheet quoted it: quotation marks around it, and each one in it doubled."""
    inner = field[1:-1]
    if len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return field


def _questions(rows: Iterable[tuple[str, str, str]]) -> tuple[Item, ...]:
    items: list[Item] = []
    seen: dict[str, str] = {}
    for number, (place, question, answer) in enumerate(rows):
        digits = _whole(answer)
        if not question.strip():
            raise damaged(place, "the question is empty", HOME)
        if digits is None:
            raise damaged(place, f"the answer {answer[:20]!r} is not a whole number", HOME)
        if question in seen:
            raise damaged(place, f"the same question as {seen[question]}", HOME)
        seen[question] = place
        items.append(Item(number, f"mgsm/{number}", question, str(int(digits))))
    return tuple(items)


def _exemplars(path: Path, language: str) -> tuple[Item, ...]:
    text = read_text(path, HOME)
    try:
        known = json.loads(text) if path.suffix == ".json" else _published_exemplars(text)
        shots = known["exemplars"][language]
        rows = [(shots[str(n)]["q"], shots[str(n)]["a"]) for n in range(1, SHOTS + 1)]
        return _shots(rows, known["number_answers"], f"{path} ({language})")
    except (json.JSONDecodeError, SyntaxError) as error:
        raise damaged(f"{path}:{error.lineno}", f"cannot be parsed ({error.msg})", HOME) from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise damaged(f"{path} ({language})", f"an exemplar or field is missing ({error})", HOME) from None


def _published_exemplars(source: str) -> dict[str, Any]:
    """The two tables of the published `exemplars.py`, read as data: nothing in it is executed."""
    names = {"MGSM_EXEMPLARS": "exemplars", "EXEMPLAR_NUMBER_ANSWERS": "number_answers"}
    found: dict[str, Any] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in names:
                found[names[name]] = ast.literal_eval(value)
    return found


def _shots(rows: Iterable[tuple[str, str]], answers: Iterable[int], place: str) -> tuple[Item, ...]:
    """Exemplars without the headers that the published files write into them (`Question: `, `Step-by-Step Answer: `).

    Some mirrors leave the headers out. A header is what all exemplars begin with, up to a colon.
    """
    pairs = list(zip(rows, answers, strict=False))
    expect_count(len(pairs), SHOTS, place, HOME, "exemplars")
    questions = _without_header([question for (question, _), _ in pairs], place)
    worked = _without_header([text for (_, text), _ in pairs], place)
    return tuple(
        Item(number, f"mgsm/shot-{number}", questions[number], str(answer), worked[number])
        for number, (_, answer) in enumerate(pairs)
    )


def _without_header(texts: Sequence[str], place: str) -> list[str]:
    found = [match[0] if (match := _HEADER.match(text)) else "" for text in texts]
    most, times = Counter(found).most_common(1)[0]
    if times == len(texts):
        return [text.removeprefix(most) for text in texts]
    if times > 1 and most:
        lacking = next(number for number, header in enumerate(found, 1) if header != most)
        raise damaged(place, f"exemplar {lacking} lacks the header {most.strip()!r} of the others", HOME)
    return list(texts)


def _load_from_hub(language: str) -> Data:
    found = from_hub("mgsm", HUB, "mgsm_<language>.tsv and exemplars.py", HOME, language)
    place = f"{HUB} ({language})"
    rows = ((f"{place}, row {n}", row["question"], str(row["answer_number"])) for n, row in enumerate(found["test"]))
    test = _questions(rows)
    expect_count(len(test), ITEMS, place, HOME)
    train = list(found["train"])
    shots = _shots(((r["question"], r["answer"]) for r in train), (r["answer_number"] for r in train), place)
    return Data(test, shots)


SOURCES = {"mgsm": Source(load)}
