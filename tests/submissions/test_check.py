"""`check` on a valid submission, on every hostile one, and on random changes of a valid one."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import REFERENCE, WAYS, Way
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import change_document, change_entry, change_line, small_submission, write_report

from fairspec_bench.engine.drafters.kinds import DRAFTER_KINDS, DrafterKind
from fairspec_bench.schemas.lines import Replay
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.submissions import check as checker
from fairspec_bench.submissions import reading, rules
from fairspec_bench.submissions.check import check, differences
from fairspec_bench.submissions.findings import CODES, Verdict
from fairspec_bench.submissions.pack import pack
from fairspec_bench.submissions.schema import name_fault, skeleton

DOCUMENT = Path(__file__).parents[2] / "docs" / "SUBMITTING.md"
EXAMPLES = int(os.environ.get("FAIRSPEC_MUTATIONS", "40"))


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A valid submission and its tracks; tests change copies of it."""
    return small_submission(tmp_path_factory.mktemp("submit"))


@pytest.fixture(scope="module")
def passed(valid: tuple[Path, Path]) -> Verdict:
    return check(*valid)


@pytest.fixture
def copy(valid: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(valid[0], tmp_path / "copy"))


def codes(verdict: Verdict) -> set[str]:
    return {finding.code for finding in verdict.findings}


def test_a_valid_submission_passes_with_the_report_of_its_lines(valid: tuple[Path, Path], passed: Verdict) -> None:
    assert [str(finding) for finding in passed.findings] == []
    assert passed.verified is not None
    assert passed.verified.report.model_dump_json(indent=1) + "\n" == (valid[0] / "run" / "report.json").read_text()
    assert passed.track == "small"


def test_the_kept_sums_are_those_of_the_lines(valid: tuple[Path, Path], passed: Verdict) -> None:
    run = RunFolder(valid[0] / "run")
    replays = {replay.key: replay for replay in run.lines("replay", Replay)}
    assert passed.verified is not None
    sums = passed.verified.sums
    assert list(sums.keys) == sorted(replays)
    for name, field in {"alpha": "alpha", "kl": "kl", "contexts": "contexts"}.items():
        assert sums.columns[name] == pytest.approx([getattr(replays[key], field) for key in sums.keys], rel=1e-7)
    assert sums.clusters[0] == f"embedded_math/{run.config.clusters[sums.keys[0]]}"


def test_a_gzipped_submission_is_the_same(copy: Path, valid: tuple[Path, Path], passed: Verdict) -> None:
    for path in [each for each in (copy / "run").rglob("*") if each.is_file()]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    pack(copy)
    verdict = check(copy, valid[1])
    assert [str(finding) for finding in verdict.findings] == []
    assert verdict.verified is not None
    assert passed.verified is not None
    assert verdict.verified.report == passed.verified.report
    assert verdict.verified.sums == passed.verified.sums
    assert verdict.manifest_sha256 != passed.manifest_sha256


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_hostile_submission_is_refused_with_its_code(way: Way, copy: Path, valid: tuple[Path, Path]) -> None:
    way.spoil(copy)
    if way.packed:
        pack(copy)
    verdict = check(copy, valid[1])
    assert way.code in codes(verdict), [str(finding) for finding in verdict.findings[:5]]
    assert "X001" not in codes(verdict)
    assert verdict.verified is None
    for finding in verdict.findings:
        line = str(finding)
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 700


def test_departures_from_float32_are_read_and_held_against_their_texts(tmp_path: Path) -> None:
    folder, tracks = small_submission(tmp_path, half=True)
    verdict = check(folder, tracks)
    assert [str(finding) for finding in verdict.findings] == []
    assert verdict.verified is not None
    task = verdict.verified.report.suites[0].tasks[0]
    assert task.measures["diverged_share"].value == pytest.approx(1 / 3)
    file = "dtype_divergence.jsonl"
    spoilt = {
        "T006": lambda copy: change_line(copy, file, 0, lambda record: record.update(first=10_000)),
        "L004": lambda copy: change_line(copy, file, 0, lambda record: record.update(prompt_sha="0" * 64)),
        "P001": lambda copy: change_line(copy, file, 0, lambda record: record.update(gap=0.01)),
        "L001": lambda copy: (copy / "run" / file).unlink(),
        "J007": lambda copy: change_line(copy, file, 0, lambda record: record.update(first=None)),
    }
    for code, spoil in spoilt.items():
        copy = Path(shutil.copytree(folder, tmp_path / f"copy-{code}"))
        spoil(copy)
        pack(copy)
        assert code in codes(check(copy, tracks)), code


def test_departures_that_nobody_asked_for_are_refused(copy: Path, valid: tuple[Path, Path]) -> None:
    (copy / "run/dtype_divergence.jsonl").write_text('{"anything": 1}\n')
    pack(copy)
    assert {"J007", "L005"} & codes(check(copy, valid[1]))


def test_a_new_kind_of_drafter_with_a_proper_q_passes(
    copy: Path, valid: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One entry in the table of kinds is all that the checker needs."""
    change_document(copy, "run.json", lambda record: record["drafter"].update(kind="mixture"))
    change_entry(copy, 'kind = "model"', 'kind = "mixture"')
    write_report(copy / "run")
    pack(copy)
    assert codes(check(copy, valid[1])) == {"S002"}
    monkeypatch.setitem(DRAFTER_KINDS, "mixture", DrafterKind("mixture", "mixture", "none", proper=True, answers=True))
    assert [str(finding) for finding in check(copy, valid[1]).findings] == []
    monkeypatch.setitem(DRAFTER_KINDS, "mixture", DrafterKind("mixture", "mixture", "none", answers=True))
    assert "S010" in codes(check(copy, valid[1]))


def test_all_faults_are_found_at_once(copy: Path, valid: tuple[Path, Path]) -> None:
    wanted = {"S003", "C001", "T003", "R003", "B005", "F005"}
    names = ("a script", "another gamma", "an altered reference", "more alpha", "negative time", "a foreign file")
    ways = {way.name: way for way in WAYS}
    for name in names:
        ways[name].spoil(copy)
    pack(copy)
    assert wanted <= codes(check(copy, valid[1]))


def test_a_finding_names_file_line_and_field(copy: Path, valid: tuple[Path, Path]) -> None:
    change_line(copy, REFERENCE, 1, lambda record: record["ids"].__setitem__(2, 7))
    pack(copy)
    found = [finding for finding in check(copy, valid[1]).findings if finding.code == "T003"]
    assert [(each.file, each.line, each.field, each.got) for each in found] == [(f"run/{REFERENCE}", 2, "ids.2", "7")]
    assert str(found[0]).startswith(f"T003 run/{REFERENCE}:2 ids.2: got 7, expected ")


def test_a_fault_of_the_checker_is_a_refusal(valid: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(checker, "build_report", broken)
    verdict = check(*valid)
    assert codes(verdict) == {"X001"}
    assert not verdict.ok


def test_alpha_is_recomputed_not_believed(
    copy: Path, valid: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: a checker that believes alpha lets a raised one through the rules."""
    way = next(way for way in WAYS if way.name == "more alpha")
    way.spoil(copy)
    pack(copy)
    monkeypatch.setattr(rules, "_check_alpha", lambda *_: None)
    assert "R003" not in codes(check(copy, valid[1]))
    monkeypatch.undo()
    assert "R003" in codes(check(copy, valid[1]))


def test_every_code_has_a_fixture_and_a_line_in_the_document() -> None:
    assert set(CODES) - {way.code for way in WAYS} == {"X001"}  # that one has the test above
    text = DOCUMENT.read_text(encoding="utf-8")
    missing = [code for code, (what, fix) in CODES.items() if f"| `{code}` | {what} | {fix} |" not in text]
    assert missing == []
    assert len({way.name for way in WAYS}) == len(WAYS) >= 40


def test_checking_loads_no_model_library() -> None:
    program = (
        "import sys; import fairspec_bench.submissions.check, fairspec_bench.submissions.pack; "
        "print({'torch', 'transformers', 'lm_eval', 'datasets', 'tokenizers'}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --------------------------------------------------------------------------- random changes

ODD: tuple[Any, ...] = (None, True, -1, 0, 1, 2**40, 0.5, -1e300, "", "x", "\u202e", "<b>", [], [[]], {}, {"a": 1})


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a plain value."""
    if way:
        yield way
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from _places(each, (*way, key))


def _mutated(plain: Any, dice: random.Random) -> Any:
    """A plain value with one place changed: set to something odd, nudged, removed, doubled or swapped."""
    places = list(_places(plain))
    way = dice.choice(places)
    holder = plain
    for step in way[:-1]:
        holder = holder[step]
    last, value = way[-1], holder[way[-1]]
    kind = dice.choice(("odd", "nudge", "remove", "double", "swap"))
    if kind == "nudge" and isinstance(value, int | float) and not isinstance(value, bool):
        holder[last] = value + dice.choice((-1, 1))
    elif kind == "remove":
        del holder[last]
    elif kind == "double" and isinstance(holder, list):
        holder.insert(last, value)
    elif kind == "swap" and isinstance(holder, list) and len(holder) > 1:
        other = dice.randrange(len(holder))
        holder[last], holder[other] = holder[other], holder[last]
    else:
        holder[last] = dice.choice(ODD)
    return plain


def _mutate(folder: Path, dice: random.Random) -> None:
    """One random change of one random file: a value in it if it is JSON, else its lines or bytes."""
    path = dice.choice(sorted(each for each in folder.rglob("*") if each.is_file()))
    raw = path.read_bytes()
    lines = raw.splitlines(keepends=True)
    kind = dice.choice(("bytes", "lines", "value", "value", "value"))
    if kind == "value" and path.suffix == ".jsonl" and lines:
        number = dice.randrange(len(lines))
        lines[number] = _changed_json(lines[number], dice).strip() + b"\n"
        raw = b"".join(lines)
    elif kind == "value" and path.suffix == ".json":
        raw = _changed_json(raw, dice)
    elif kind == "lines" and lines:
        dice.shuffle(lines) if dice.random() < 0.3 else lines.pop(dice.randrange(len(lines)))
        raw = b"".join(lines)
    else:
        raw = _changed_bytes(raw, dice)
    path.write_bytes(raw)


def _changed_json(raw: bytes, dice: random.Random) -> bytes:
    try:
        plain = json.loads(raw)
    except ValueError:  # an earlier change broke it
        return _changed_bytes(raw, dice)
    return json.dumps(_mutated(plain, dice)).encode() if plain and isinstance(plain, dict) else b"{}"


def _changed_bytes(raw: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(raw) + 1)
    return raw[:place] + dice.randbytes(dice.randrange(4)) + raw[place + dice.randrange(4) :]


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(seed=st.integers(0, 2**63), changes=st.integers(1, 3), packed=st.booleans())
def test_a_random_change_is_refused_or_harmless(
    valid: tuple[Path, Path], passed: Verdict, seed: int, changes: int, packed: bool
) -> None:
    """Either a finding, or a pass whose recomputed report is the valid one's but for a last digit."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(shutil.copytree(valid[0], Path(base) / "copy"))
        for _ in range(changes):
            _mutate(folder, dice)
        if packed and (folder / "submission.toml").exists():
            pack(folder)
        verdict = check(folder, valid[1])
    assert "X001" not in codes(verdict), [str(finding) for finding in verdict.findings]
    if not verdict.findings:
        assert verdict.verified is not None
        assert passed.verified is not None
        assert list(differences(verdict.verified.report.model_dump(), passed.verified.report.model_dump(), "")) == []


# --------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        "Plain",
        "s-CDF, 3 epochs",
        "日本語の下書き",
        "বাংলা",
        "N-grams (5)",
        "Ähnlich",
        "Дистилляция",
        "GRU α=.5",
        "می\u200cخواهم",
    ],
)
def test_names_in_any_script_are_names(name: str) -> None:
    assert name_fault(name) is None


@given(st.sampled_from(["Best drafter", "NTREX, s-CDF", "plain"]), st.data())
def test_a_name_that_looks_like_another_has_its_skeleton(name: str, data: st.DataObject) -> None:
    """Whatever is changed that a reader does not see: case, blanks, marks, widths, letters of other alphabets."""
    twins = {
        "a": "\u0430",
        "e": "\u0435",
        "p": "\u0440",
        "s": "\u0455",
        "i": "\uff49",
        "r": "R",
        " ": "  ",
        "t": "t\u0301",
    }
    other = "".join(data.draw(st.sampled_from([each, twins.get(each, each)])) for each in name)
    assert skeleton(other) == skeleton(name)
    assert skeleton(f"{name} 2") != skeleton(name)


@pytest.mark.parametrize("count", [0, 1, 2, 5_000, 40_000])
def test_double_keys_are_found_in_linear_time(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """28,000 keys of one line took 17 s: every key was counted among all. Comparisons are counted, not seconds."""
    compared = 0

    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)  # type: ignore[arg-type]

    pairs: list[tuple[str, Any]] = [(Key(number), 0) for number in range(count)]
    assert len(reading._object(pairs)) == count
    with pytest.raises(reading.JsonFault, match="J004"):
        reading._object([*pairs, (Key("x"), 0), (Key("x"), 1)])
    assert compared <= 8 * (count + 10)
