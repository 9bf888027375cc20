"""The data of the suites: the same from every source, hashed, and refused in one line where missing or damaged."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from fairspec_bench.models import hub
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.suites.embedded import LANGUAGES
from fairspec_bench.suites.sources import base, embedded, registry


@pytest.fixture
def copy(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data that a test may damage, in use."""
    for name in ("mgsm", "multiq"):
        shutil.copytree(data_dir / name, tmp_path / name, copy_function=shutil.copyfile)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv(base.DATA_DIR, str(tmp_path))
    return tmp_path


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def refusal(suite: str, language: str) -> str:
    with pytest.raises(FairspecError) as caught:
        registry.load(suite, language)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("language", LANGUAGES)
def test_mgsm_holds_every_problem_with_the_same_answer_in_every_language(data_dir: Path, language: str) -> None:
    found, english = registry.load("mgsm", language), registry.load("mgsm", "en")
    assert [item.answer for item in found.test] == [item.answer for item in english.test]
    assert [item.cluster for item in found.test] == [f"mgsm/{k}" for k in range(250)]
    assert [item.answer for item in found.shots] == ["11", "29", "39", "9", "33", "8", "8", "5"]


def test_hash_is_over_questions_and_answers(data_dir: Path) -> None:
    lines = (data_dir / "mgsm" / "mgsm_en.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines]
    text = "".join(f"{question}\x1f{int(answer.replace(',', ''))}\x1e" for question, answer in pairs)
    assert base.data_sha256(registry.load("mgsm", "en").test) == hashlib.sha256(text.encode()).hexdigest()


def test_multiq_has_the_same_ids_in_the_same_order_in_every_language(data_dir: Path) -> None:
    assert set(registry.every_language("multiq")) == {*LANGUAGES, "zh-CN", "zh-TW"}
    clusters = [item.cluster for item in registry.load("multiq", "en").test]
    assert clusters == [f"multiq/gpt-{n}" for n in range(1, 101)] + clusters[100:]
    for language in registry.every_language("multiq"):
        assert [item.cluster for item in registry.load("multiq", language).test] == clusters


def test_multiq_order_does_not_depend_on_the_file(copy: Path) -> None:
    before = registry.load("multiq", "ja")
    edit(copy / "multiq/multiq.csv", lambda raw: b"\n".join([(lines := raw.split(b"\n"))[0], *lines[:0:-1]]))
    assert registry.load("multiq", "ja") == before


def test_files_as_their_homes_name_them(copy: Path) -> None:
    """`exemplars.py` and `MultiQ.csv` as downloaded; the Python file is read as data and never run."""
    before = registry.load("mgsm", "te"), registry.load("multiq", "te")
    known = json.loads((copy / "mgsm/exemplars.json").read_text(encoding="utf-8"))
    (copy / "mgsm/exemplars.json").unlink()
    source = f"EXEMPLAR_NUMBER_ANSWERS = {known['number_answers']}\nMGSM_EXEMPLARS = {known['exemplars']!r}\n"
    path = copy / "mgsm/exemplars.py"
    path.write_text(source + "raise SystemExit('executed')\n", encoding="utf-8")
    (copy / "multiq/multiq.csv").rename(copy / "multiq/MultiQ.csv")
    assert (registry.load("mgsm", "te"), registry.load("multiq", "te")) == before
    path.write_text(source[:-30], encoding="utf-8")
    assert f"{path}:" in refusal("mgsm", "te")
    path.write_text("MGSM_EXEMPLARS = {}", encoding="utf-8")
    assert "missing" in refusal("mgsm", "te")
    path.unlink()
    assert f"{path}: missing" in refusal("mgsm", "te")


def test_embedded_problem_k_is_one_problem() -> None:
    for suite in ("embedded_math", "embedded_story"):
        found = {language: registry.load(suite, language).test for language in LANGUAGES}
        assert {len(items) for items in found.values()} == {embedded.ITEMS}
        assert len({tuple(item.cluster for item in items) for items in found.values()}) == 1
    answers = {tuple(item.answer for item in registry.load("embedded_math", lang).test) for lang in LANGUAGES}
    assert len(answers) == 1


# --------------------------------------------------------------------------- the Hub


def hub_mgsm(folder: Path, language: str) -> dict[str, datasets.Dataset]:
    """MGSM in the columns of its Hub version."""
    shots = json.loads((folder / "mgsm/exemplars.json").read_text(encoding="utf-8"))
    lines = (folder / f"mgsm/mgsm_{language}.tsv").read_text(encoding="utf-8").split("\n")[:-1]
    test = [line.split("\t") for line in lines]
    train = zip(shots["exemplars"][language].values(), shots["number_answers"], strict=True)
    columns = {
        "train": [{"question": shot["q"], "answer": shot["a"], "answer_number": n} for shot, n in train],
        "test": [{"question": q, "answer": None, "answer_number": int(n.replace(",", ""))} for q, n in test],
    }
    return {split: datasets.Dataset.from_list(rows) for split, rows in columns.items()}


@pytest.mark.parametrize("language", ["en", "ja", "ru", "te"])
def test_hub_and_folder_give_the_same_items(data_dir: Path, monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    local = registry.load("mgsm", language)
    monkeypatch.delenv(base.DATA_DIR)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: hub_mgsm(data_dir, config))
    assert registry.load("mgsm", language) == local


def test_multiq_from_the_hub_is_the_same(data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    local = registry.load("multiq", "sw")
    rows = datasets.Dataset.from_csv(str(data_dir / "multiq/multiq.csv"), cache_dir=str(tmp_path))
    monkeypatch.delenv(base.DATA_DIR)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"train": rows})
    assert registry.load("multiq", "sw") == local


def test_offline_and_not_cached_says_what_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(base.DATA_DIR, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = refusal("mgsm", "ja")
    assert "juletxara/mgsm" in message
    assert "mgsm_<language>.tsv" in message
    assert base.DATA_DIR in message


def test_no_network_is_said_without_asking_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(base.DATA_DIR, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("the client retries for 23 s"))
    for suite in ("mgsm", "multiq"):
        assert "cannot be reached" in refusal(suite, "ja")


def test_a_network_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    never = threading.Event()
    monkeypatch.setattr(hub, "_answers", lambda *_: never.wait())
    assert not hub.reachable(timeout=0.05)
    monkeypatch.setattr(hub, "_answers", lambda *_: True)
    assert hub.reachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not hub.reachable()


# --------------------------------------------------------------------------- damage

MGSM: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no tab": (lambda raw: raw.replace(b"\t", b" ", 1), ":1: no tab"),
    "no answer": (lambda raw: raw.replace(b"\t3\n", b"\t\n", 1), ":2: the answer '' is not a whole number"),
    "a word": (lambda raw: raw.replace(b"\t3\n", b"\tthree\n", 1), ":2: the answer 'three' is not a whole number"),
    "no question": (lambda raw: b"x\t1\n \t3\n" + raw, ":2: the question is empty"),
    "not UTF-8": (lambda raw: raw.replace(b"\t3\n", b"\xff\t3\n", 1), ":2: not UTF-8"),
    "torn": (lambda raw: raw[: len(raw) // 2].rpartition(b"\n")[0] + b"\n", ": holds "),
    "torn in a line": (lambda raw: raw[:-8], ":250: "),
    "empty": (lambda raw: b"", ":1: no tab"),
}


@pytest.mark.parametrize("damage", MGSM)
def test_damaged_mgsm_names_file_and_line(copy: Path, damage: str) -> None:
    change, expected = MGSM[damage]
    path = copy / "mgsm/mgsm_de.tsv"
    edit(path, change)
    assert f"{path}{expected}" in refusal("mgsm", "de")
    assert registry.load("mgsm", "en").test


EXEMPLARS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "not JSON": (lambda raw: raw[:-20], "cannot be parsed"),
    "no language": (lambda raw: raw.replace(b'"de"', b'"xx"'), "missing"),
    "a header less": (lambda raw: raw.replace("Schritt-für-Schritt-Antwort: ".encode(), b"", 1), "exemplar 1 lacks"),
    "another shape": (lambda raw: b"[]", "missing"),
}


@pytest.mark.parametrize("damage", EXEMPLARS)
def test_damaged_exemplars_name_the_file(copy: Path, damage: str) -> None:
    change, expected = EXEMPLARS[damage]
    edit(copy / "mgsm/exemplars.json", change)
    message = refusal("mgsm", "de")
    assert str(copy / "mgsm/exemplars.json") in message
    assert expected in message


def bare(raw: bytes) -> bytes:
    """As a mirror publishes them: exemplars without their headers."""
    known = json.loads(raw)
    for shots in known["exemplars"].values():
        for shot in shots.values():
            shot["q"], shot["a"] = (re.sub(r"^[^:：]*[:：] ?", "", shot[part], count=1) for part in ("q", "a"))
    return json.dumps(known).encode()


def test_exemplars_without_headers_are_the_same_exemplars(copy: Path) -> None:
    whole = {language: registry.load("mgsm", language) for language in LANGUAGES}
    edit(copy / "mgsm/exemplars.json", bare)
    assert {language: registry.load("mgsm", language) for language in LANGUAGES} == whole


def quoted(raw: bytes) -> bytes:
    rows = (line.partition("\t") for line in raw.decode().removesuffix("\n").split("\n"))
    return "".join('"{}"\t{}\n'.format(q.replace('"', '""'), a) for q, _, a in rows).encode()


def exchanged(raw: bytes) -> bytes:
    rows = (line.partition("\t") for line in raw.decode().removesuffix("\n").split("\n"))
    return "".join(f"{a}\t{q}\n" for q, _, a in rows).encode()


EXPORTED: dict[str, Callable[[bytes], bytes]] = {
    "byte order mark": lambda raw: codecs.BOM_UTF8 + raw,
    "UTF-16": lambda raw: raw.decode().encode("utf-16"),
    "Windows line ends": lambda raw: raw.replace(b"\n", b"\r\n"),
    "old Macintosh line ends": lambda raw: raw.replace(b"\n", b"\r"),
    "headings": lambda raw: b"question\tanswer\n" + raw,
    "quoted": quoted,
    "columns exchanged": exchanged,
    "decimals": lambda raw: re.sub(rb"\t(\d+)\n", rb"\t\1.0\n", raw),
    "empty lines at the end": lambda raw: raw + b"\n\n",
}


@pytest.mark.parametrize("way", EXPORTED)
def test_what_a_spreadsheet_makes_of_the_file_is_undone(copy: Path, way: str) -> None:
    whole = registry.load("mgsm", "de")
    edit(copy / "mgsm/mgsm_de.tsv", EXPORTED[way])
    assert registry.load("mgsm", "de") == whole


def test_a_question_that_stands_twice_is_refused(copy: Path) -> None:
    edit(copy / "mgsm/mgsm_de.tsv", lambda raw: b"".join([*(lines := raw.splitlines(True))[:-1], lines[0]]))
    assert re.search(r"mgsm_de\.tsv:250: the same question as .*mgsm_de\.tsv:1\.", refusal("mgsm", "de"))


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_of_spreadsheets_are_read(copy: Path, delimiter: str) -> None:
    whole = registry.load("multiq", "de")

    def written(raw: bytes) -> bytes:
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=delimiter).writerows(csv.reader(io.StringIO(raw.decode(), newline="")))
        return codecs.BOM_UTF8 + out.getvalue().encode()

    edit(copy / "multiq/multiq.csv", written)
    assert registry.load("multiq", "de") == whole


MULTIQ: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no column": (lambda raw: raw.replace(b"prompt", b"text", 1), ":1: the columns"),
    "few fields": (lambda raw: raw.replace(b"\n", b"\ngpt-1\n", 1), ":2: the line has too few"),
    "many fields": (lambda raw: raw.replace(b"\n", b"\ngpt-1,de,a,b,c\n", 1), ":2: the line has too few or too many"),
    "twice": (lambda raw: raw + b"gpt-1,de,Was?,none\n", ":2602: gpt-1 occurs twice"),
    "empty prompt": (lambda raw: raw.replace(b"\n", b"\ngpt-900,de,,none\n", 1), ":2: the prompt is empty"),
    "open quote": (lambda raw: raw + b'gpt-1,de,"Was?,none\n', "not CSV"),
}


@pytest.mark.parametrize("damage", MULTIQ)
def test_damaged_multiq_names_file_and_line(copy: Path, damage: str) -> None:
    change, expected = MULTIQ[damage]
    path = copy / "multiq/multiq.csv"
    edit(path, change)
    message = refusal("multiq", "de")
    assert str(path) in message
    assert expected in message


def test_missing_things_are_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "mgsm/mgsm_fr.tsv").unlink()
    assert f"{copy / 'mgsm/mgsm_fr.tsv'}: missing" in refusal("mgsm", "fr")
    assert "no language 'xx'. Known: bn, de" in refusal("multiq", "xx")
    monkeypatch.setenv(base.DATA_DIR, str(copy / "nowhere"))
    assert f"{copy / 'nowhere'}: no such folder" in refusal("mgsm", "en")
