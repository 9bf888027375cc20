"""Aya evaluation suite: open prompts in three subsets, each a suite: `aya`, `aya_edited` and `aya_written`.

Local files are the Parquet files of CohereLabs/aya_evaluation_suite in their folders, or `<subset>.jsonl` of the same
columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from fairspec_bench.models import hub
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.suites.sources.base import DATA_DIR, Data, Item, Source, damaged, from_hub, local_folder, read_text

HUB, HOME = "CohereLabs/aya_evaluation_suite", "huggingface.co/datasets/CohereLabs/aya_evaluation_suite"
SUBSETS = {
    "aya": "dolly_machine_translated",
    "aya_edited": "dolly_human_edited",
    "aya_written": "aya_human_annotated",
}
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


def languages(suite: str) -> tuple[str, ...]:
    """Every language that a suite's subset of Aya at hand has, sorted. Raises `FairspecError` as `load` does."""
    return tuple(sorted(set(_names(_rows(suite)).values())))


def _names(rows: Rows) -> dict[tuple[str, str], str]:
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


def load(suite: str, language: str) -> Data:
    rows, number = _rows(suite), _number_column(suite)
    names = _names(rows)
    found: dict[int, str] = {}
    for place, row in rows:
        if names[row["language"], row["script"]] != language:
            continue
        if row[number] in found:
            raise damaged(place, f"{number} {row[number]} occurs twice in {language}", HOME)
        if not row["inputs"].strip():
            raise damaged(place, "inputs is empty", HOME)
        found[row[number]] = row["inputs"]
    if not found:
        raise FairspecError(f"{suite}: no language {language!r}. Known: {', '.join(languages(suite))}.")
    home = "aya" if number == "source_id" else f"aya/{language}"
    return Data(tuple(Item(k, f"{home}/{name}", found[name], "") for k, name in enumerate(sorted(found))))


def _number_column(suite: str) -> str:
    """The column that tells prompts apart: a translated one is one problem in all its languages, others are not."""
    return "id" if suite == "aya_written" else "source_id"


def _rows(suite: str) -> Rows:
    """The rows of a suite's subset, with text and whole numbers where they must be."""
    subset, folder = SUBSETS[suite], local_folder("aya")
    if folder is None:
        return _rows_from_hub(suite)
    if not (folder / subset).is_dir():
        return _checked(suite, _json_lines(folder / f"{subset}.jsonl"))
    files = sorted((folder / subset).glob("*.parquet"))
    if not files:
        raise FairspecError(f"{folder / subset}: no *.parquet in it. Get them from {HOME}, or unset {DATA_DIR}.")
    return _rows_from_parquet(suite, tuple((path, path.stat().st_mtime_ns) for path in files))


# Each language of a suite asks for all rows again, twice: 119 languages share a file.
@lru_cache(maxsize=4)
def _rows_from_hub(suite: str) -> Rows:
    subset = SUBSETS[suite]
    split = from_hub("aya", HUB, f"{subset}/*.parquet", HOME, subset)["test"]
    return _checked(suite, ((f"{HUB} ({subset}), row {n}", row) for n, row in enumerate(split)))


@lru_cache(maxsize=4)
def _rows_from_parquet(suite: str, files: tuple[tuple[Path, int], ...]) -> Rows:
    rows = (each for path, _ in files for each in _parquet_rows(path))
    return _checked(suite, rows)


def _checked(suite: str, rows: Iterable[tuple[str, Any]]) -> Rows:
    kinds: dict[str, type] = {"inputs": str, "language": str, "script": str, _number_column(suite): int}
    found = []
    for place, row in rows:
        for column, kind in kinds.items():
            if not isinstance(row, Mapping) or not isinstance(row.get(column), kind):
                raise damaged(place, f"no {'text' if kind is str else 'whole number'} in {column}", HOME)
        found.append((place, {column: row[column] for column in kinds}))
    return found


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise damaged(str(path), f"not Parquet ({hub.one_line(error)})", HOME) from None
    yield from ((f"{path}, row {n}", row) for n, row in enumerate(rows))


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(read_text(path, HOME).split("\n"), 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise damaged(f"{path}:{number}", f"not JSON ({hub.one_line(error)})", HOME) from None


SOURCES = {suite: Source(partial(load, suite), partial(languages, suite)) for suite in SUBSETS}
