"""The questions of each suite, from the built-in grammar, a local folder or the Hub, and the hash that names them.

Knows files, columns and where they are had. Knows nothing of prompts (the YAML under `tasks/` renders them), of grading
or of models. Whatever the source, the same questions give the same `Item`s and so the same hash.

Local data: the environment variable `FAIRSPEC_DATA_DIR` names a folder with `mgsm/` (the TSV files and exemplars of
google-research/url-nlp), `multiq/` (the CSV of paul-rottger/multiq) and `aya/` (the Parquet files of
CohereLabs/aya_evaluation_suite in their folders, or `<subset>.jsonl` of the same columns). A suite without a folder
there comes from the Hub.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from fairspec_bench import hub
from fairspec_bench.records import FairspecError, Sha256
from fairspec_bench.suite import embedded

DATA_DIR = "FAIRSPEC_DATA_DIR"
EMBEDDED_ITEMS = 250
MGSM_HUB, MGSM_HOME, MGSM_ITEMS, MGSM_SHOTS = "juletxara/mgsm", "github.com/google-research/url-nlp", 250, 8
MULTIQ_HUB, MULTIQ_HOME = "caro-holt/MultiQ", "github.com/paul-rottger/multiq"
AYA_HUB, AYA_HOME = "CohereLabs/aya_evaluation_suite", "huggingface.co/datasets/CohereLabs/aya_evaluation_suite"
AYA_SUBSETS = {
    "aya": "dolly_machine_translated",
    "aya_edited": "dolly_human_edited",
    "aya_written": "aya_human_annotated",
}
_HEADER = re.compile(r"[^:：]*[:：] ?")


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


def load(suite: str, language: str) -> Data:
    """The data of one language. Raises `FairspecError` in one line: what is missing or damaged, where, what to do."""
    return SOURCES[suite](language)


def data_sha256(items: Iterable[Item]) -> Sha256:
    r"""SHA-256 over `question \x1f answer \x1e` of every item in order: the same from a folder and from the Hub."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.question}\x1f{item.answer}\x1e".encode())
    return digest.hexdigest()


# --------------------------------------------------------------------------- built in


def _embedded_math(language: str) -> Data:
    told = (embedded.problem(language, k) for k in range(EMBEDDED_ITEMS))
    return Data(tuple(Item(k, f"embedded_math/{k}", p.question, str(p.number)) for k, p in enumerate(told)))


def _embedded_story(language: str) -> Data:
    told = (embedded.story(language, k) for k in range(EMBEDDED_ITEMS))
    return Data(tuple(Item(k, f"embedded_story/{k}", s.opening, s.continuation) for k, s in enumerate(told)))


def _embedded_domain(domain: str) -> Data:
    told = (embedded.domain_problem(domain, k) for k in range(EMBEDDED_ITEMS))
    items = (Item(k, f"embedded_domain/{domain}/{k}", p.question, str(p.number)) for k, p in enumerate(told))
    return Data(tuple(items))


# --------------------------------------------------------------------------- MGSM


def _mgsm(language: str) -> Data:
    folder = _folder("mgsm")
    if folder is None:
        return _mgsm_from_hub(language)
    test = _mgsm_test(_mgsm_lines(folder / f"mgsm_{language}.tsv"))
    _expect(len(test), MGSM_ITEMS, f"{folder / f'mgsm_{language}.tsv'}", MGSM_HOME)
    return Data(test, _mgsm_shots(_first(folder, "exemplars.json", "exemplars.py"), language))


def _mgsm_lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """(place, question, answer) of each line `question<TAB>answer`."""
    # Only "\n" ends a line: str.splitlines would also split at separators that a question may hold.
    for number, line in enumerate(_read(path, MGSM_HOME).removesuffix("\n").split("\n"), 1):
        question, tab, answer = line.removesuffix("\r").partition("\t")
        if not tab:
            raise _damaged(f"{path}:{number}", "no tab between question and answer", MGSM_HOME)
        yield f"{path}:{number}", question, answer


def _mgsm_test(rows: Iterable[tuple[str, str, str]]) -> tuple[Item, ...]:
    items = []
    for number, (place, question, answer) in enumerate(rows):
        digits = answer.replace(",", "")
        if not question.strip():
            raise _damaged(place, "the question is empty", MGSM_HOME)
        if not re.fullmatch(r"-?\d+", digits):
            raise _damaged(place, f"the answer {answer[:20]!r} is not a whole number", MGSM_HOME)
        items.append(Item(number, f"mgsm/{number}", question, str(int(digits))))
    return tuple(items)


def _mgsm_shots(path: Path, language: str) -> tuple[Item, ...]:
    text = _read(path, MGSM_HOME)
    try:
        known = json.loads(text) if path.suffix == ".json" else _published_exemplars(text)
        shots = known["exemplars"][language]
        rows = [(shots[str(n)]["q"], shots[str(n)]["a"]) for n in range(1, MGSM_SHOTS + 1)]
        return _shots(rows, known["number_answers"], f"{path} ({language})")
    except (json.JSONDecodeError, SyntaxError) as error:
        raise _damaged(f"{path}:{error.lineno}", f"cannot be parsed ({error.msg})", MGSM_HOME) from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(f"{path} ({language})", f"an exemplar or field is missing ({error})", MGSM_HOME) from None


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
    """Exemplars without the headers that both sources write into them (`Question: `, `Step-by-Step Answer: `)."""
    items = []
    for number, ((question, worked), answer) in enumerate(zip(rows, answers, strict=False)):
        bare = [_HEADER.sub("", text, count=1) for text in (question, worked)]
        if bare[0] == question or bare[1] == worked:
            raise _damaged(place, f"exemplar {number + 1} lacks its header", MGSM_HOME)
        items.append(Item(number, f"mgsm/shot-{number}", bare[0], str(answer), bare[1]))
    _expect(len(items), MGSM_SHOTS, place, MGSM_HOME, "exemplars")
    return tuple(items)


def _mgsm_from_hub(language: str) -> Data:
    found = _hub("mgsm", MGSM_HUB, "mgsm_<language>.tsv and exemplars.py", MGSM_HOME, language)
    place = f"{MGSM_HUB} ({language})"
    rows = ((f"{place}, row {n}", row["question"], str(row["answer_number"])) for n, row in enumerate(found["test"]))
    test = _mgsm_test(rows)
    _expect(len(test), MGSM_ITEMS, place, MGSM_HOME)
    train = list(found["train"])
    shots = _shots(((r["question"], r["answer"]) for r in train), (r["answer_number"] for r in train), place)
    return Data(test, shots)


# --------------------------------------------------------------------------- MultiQ


def multiq_languages() -> tuple[str, ...]:
    """Every language that the MultiQ at hand has, sorted. Raises `FairspecError` as `load` does."""
    return tuple(sorted({row["language"] for _, row in _multiq_rows()}))


def _multiq(language: str) -> Data:
    found: dict[str, str] = {}
    for place, row in _multiq_rows():
        if row["language"] != language:
            continue
        if row["id"] in found:
            raise _damaged(place, f"{row['id']} occurs twice in {language}", MULTIQ_HOME)
        if not row["prompt"].strip():
            raise _damaged(place, "the prompt is empty", MULTIQ_HOME)
        found[row["id"]] = row["prompt"]
    if not found:
        raise FairspecError(f"multiq: no language {language!r}. Known: {', '.join(multiq_languages())}.")
    # One order for all languages, so that the first n of each are the same questions.
    ordered = sorted(found, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)])
    return Data(tuple(Item(k, f"multiq/{name}", found[name], "") for k, name in enumerate(ordered)))


def _multiq_rows() -> Iterator[tuple[str, Mapping[str, str]]]:
    """(place, row) with at least the columns id, language and prompt."""
    folder = _folder("multiq")
    if folder is None:
        split = _hub("multiq", MULTIQ_HUB, "MultiQ.csv", MULTIQ_HOME)["train"]
        yield from ((f"{MULTIQ_HUB}, row {n}", row) for n, row in enumerate(split))
        return
    path = _first(folder, "multiq.csv", "MultiQ.csv")
    reader = csv.DictReader(io.StringIO(_read(path, MULTIQ_HOME), newline=""), strict=True)
    if not {"id", "language", "prompt"} <= set(reader.fieldnames or ()):
        raise _damaged(f"{path}:1", "the columns id, language and prompt are not all there", MULTIQ_HOME)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise _damaged(f"{path}:{reader.line_num}", "the line has too few or too many fields", MULTIQ_HOME)
            yield f"{path}:{reader.line_num}", row
    except csv.Error as error:
        raise _damaged(f"{path}:{reader.line_num}", f"not CSV ({error})", MULTIQ_HOME) from None


# --------------------------------------------------------------------------- Aya

# Two letters where ISO 639-1 has them, as in the other suites; the data names languages by three, most of them NLLB's.
_TWO_LETTERS = dict(
    re.findall(
        r"(\w+):(\w+)",
        """
    afr:af als:sq amh:am ara:ar arb:ar aze:az azj:az bel:be ben:bn bul:bg cat:ca ces:cs cym:cy dan:da deu:de
    ekk:et ell:el eng:en epo:eo est:et eus:eu fin:fi fra:fr gla:gd gle:ga glg:gl guj:gu hat:ht hau:ha heb:he
    hin:hi hun:hu hye:hy ibo:ig ind:id isl:is ita:it jav:jv jpn:ja kan:kn kas:ks kat:ka kaz:kk khk:mn khm:km
    kir:ky kmr:ku kor:ko kur:ku lao:lo lav:lv lit:lt ltz:lb lvs:lv mal:ml mar:mr mkd:mk mlg:mg mlt:mt mon:mn
    mri:mi msa:ms mya:my nep:ne nld:nl nno:nn nob:nb nor:no npi:ne pbt:ps pes:fa plt:mg pol:pl por:pt pus:ps
    ron:ro rus:ru sin:si slk:sk slv:sl smo:sm sna:sn snd:sd som:so sot:st spa:es sqi:sq srp:sr sun:su swa:sw
    swe:sv swh:sw tam:ta tel:te tgk:tg tha:th tur:tr ukr:uk urd:ur uzb:uz uzn:uz vie:vi xho:xh ydd:yi yid:yi
    yor:yo zho:zh zsm:ms zul:zu
        """,
    )
)
_MAIN_SCRIPTS = {"ace": "Latn", "ar": "Arab", "bjn": "Latn", "ks": "Arab", "min": "Latn", "zh": "Hans"}

Rows = Sequence[tuple[str, Mapping[str, Any]]]
"""Where each row stands, and the row."""


def aya_languages(suite: str) -> tuple[str, ...]:
    """Every language that a suite's subset of Aya at hand has, sorted. Raises `FairspecError` as `load` does."""
    return tuple(sorted(set(_aya_names(_aya_rows(suite)).values())))


def _aya_names(rows: Rows) -> dict[tuple[str, str], str]:
    """What each (language, script) of the data is called here: of several scripts, all but the main one are named."""
    scripts: dict[str, set[str]] = {}
    for _, row in rows:
        scripts.setdefault(row["language"], set()).add(row["script"])
    names: dict[tuple[str, str], str] = {}
    for code, written in scripts.items():
        name = _TWO_LETTERS.get(code, code)
        main = _MAIN_SCRIPTS.get(name)
        main = main if main in written else min(written)
        names |= {(code, script): name if script == main else f"{name}-{script}" for script in written}
    return names


def _aya(suite: str, language: str) -> Data:
    rows, number = _aya_rows(suite), _aya_number(suite)
    names = _aya_names(rows)
    found: dict[int, str] = {}
    for place, row in rows:
        if names[row["language"], row["script"]] != language:
            continue
        if row[number] in found:
            raise _damaged(place, f"{number} {row[number]} occurs twice in {language}", AYA_HOME)
        if not row["inputs"].strip():
            raise _damaged(place, "inputs is empty", AYA_HOME)
        found[row[number]] = row["inputs"]
    if not found:
        raise FairspecError(f"{suite}: no language {language!r}. Known: {', '.join(aya_languages(suite))}.")
    home = "aya" if number == "source_id" else f"aya/{language}"
    return Data(tuple(Item(k, f"{home}/{name}", found[name], "") for k, name in enumerate(sorted(found))))


def _aya_number(suite: str) -> str:
    """The column that tells prompts apart: a translated one is one problem in all its languages, others are not."""
    return "id" if suite == "aya_written" else "source_id"


def _aya_rows(suite: str) -> Rows:
    """The rows of a suite's subset, with text and whole numbers where they must be."""
    subset, folder = AYA_SUBSETS[suite], _folder("aya")
    if folder is None:
        return _aya_from_hub(suite)
    if not (folder / subset).is_dir():
        return _aya_checked(suite, _json_lines(folder / f"{subset}.jsonl"))
    files = sorted((folder / subset).glob("*.parquet"))
    if not files:
        raise FairspecError(f"{folder / subset}: no *.parquet in it. Get them from {AYA_HOME}, or unset {DATA_DIR}.")
    return _aya_from_parquet(suite, tuple((path, path.stat().st_mtime_ns) for path in files))


# Each language of a suite asks for all rows again, twice: 119 languages share a file.
@lru_cache(maxsize=4)
def _aya_from_hub(suite: str) -> Rows:
    subset = AYA_SUBSETS[suite]
    split = _hub("aya", AYA_HUB, f"{subset}/*.parquet", AYA_HOME, subset)["test"]
    return _aya_checked(suite, ((f"{AYA_HUB} ({subset}), row {n}", row) for n, row in enumerate(split)))


@lru_cache(maxsize=4)
def _aya_from_parquet(suite: str, files: tuple[tuple[Path, int], ...]) -> Rows:
    rows = (each for path, _ in files for each in _parquet_rows(path))
    return _aya_checked(suite, rows)


def _aya_checked(suite: str, rows: Iterable[tuple[str, Any]]) -> Rows:
    kinds: dict[str, type] = {"inputs": str, "language": str, "script": str, _aya_number(suite): int}
    found = []
    for place, row in rows:
        for column, kind in kinds.items():
            if not isinstance(row, Mapping) or not isinstance(row.get(column), kind):
                raise _damaged(place, f"no {'text' if kind is str else 'whole number'} in {column}", AYA_HOME)
        found.append((place, {column: row[column] for column in kinds}))
    return found


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise _damaged(str(path), f"not Parquet ({hub.one_line(error)})", AYA_HOME) from None
    yield from ((f"{path}, row {n}", row) for n, row in enumerate(rows))


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_read(path, AYA_HOME).split("\n"), 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _damaged(f"{path}:{number}", f"not JSON ({hub.one_line(error)})", AYA_HOME) from None


# --------------------------------------------------------------------------- shared

SOURCES: Mapping[str, Callable[[str], Data]] = {
    "embedded_math": _embedded_math,
    "embedded_story": _embedded_story,
    "embedded_domain": _embedded_domain,
    "mgsm": _mgsm,
    "multiq": _multiq,
    **{suite: partial(_aya, suite) for suite in AYA_SUBSETS},
}


def every_language(suite: str) -> tuple[str, ...] | None:
    """All languages of a suite that may have more than it runs by default; `None` for one that has not."""
    if suite in AYA_SUBSETS:
        return aya_languages(suite)
    return multiq_languages() if suite == "multiq" else None


def _folder(name: str) -> Path | None:
    """The suite's local folder, or `None` where it must come from the Hub."""
    value = os.environ.get(DATA_DIR)
    if not value:
        return None
    if not Path(value).is_dir():
        raise FairspecError(f"{DATA_DIR}={value}: no such folder. Correct it, or unset it to use the Hub.")
    folder = Path(value) / name
    return folder if folder.is_dir() else None


def _first(folder: Path, *names: str) -> Path:
    """The first of some files that exists, else the last: the name that its home gives it."""
    return next((folder / name for name in names if (folder / name).exists()), folder / names[-1])


def _read(path: Path, home: str) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise FairspecError(f"{path}: missing. Get it from {home}, or unset {DATA_DIR} to use the Hub.") from None
    except OSError as error:
        raise FairspecError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _damaged(f"{path}:{line}", "not UTF-8", home) from None


def _damaged(place: str, what: str, home: str) -> FairspecError:
    return FairspecError(f"{place}: {what}. Get the file again from {home}.")


def _expect(count: int, expected: int, place: str, home: str, what: str = "problems") -> None:
    if count != expected:
        raise _damaged(place, f"holds {count} {what}, not {expected}", home)


def _hub(suite: str, name: str, files: str, home: str, *config: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
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
        raise FairspecError(f"{suite}: no data: {name} could not be had from the Hub ({reason}). {advice}.") from error
    return found
