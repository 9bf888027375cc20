"""Ways to spoil a valid submission, each with the code it must be refused with.

Knows the small submission of `small`. A way that is `packed` has its manifest written anew, so that the fault itself is
what is found, not a wrong hash.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from small import change_document, change_entry, change_line, change_lines

EN = "embedded_math/en"
REFERENCE, ANSWER, REPLAY, TIMING = (f"{stage}.jsonl" for stage in ("reference", "answer", "replay", "race"))
DRAFTER_ANSWER = "drafter_answer.jsonl"
SPECULATIVE = 1


@dataclass(frozen=True)
class Way:
    """One way to spoil a folder, and the code that must be among the findings."""

    name: str
    code: str
    spoil: Callable[[Path], object]
    packed: bool = True


def line(name: str, change: Callable[[dict[str, Any]], object], number: int = 0) -> Callable[[Path], None]:
    return lambda folder: change_line(folder, name, number, change)


def document(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: change_document(folder, name, change)


def lines(name: str, change: Callable[[list[bytes]], Iterable[bytes]]) -> Callable[[Path], None]:
    return lambda folder: change_lines(folder, name, change)


def raw(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / name
        text = path.read_bytes()
        assert old in text
        path.write_bytes(text.replace(old, new, 1))

    return spoil


def entry(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: change_entry(folder, old, new)


def put(name: str, content: bytes) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return spoil


def instead(name: str, content: bytes) -> Callable[[Path], object]:
    """The gzipped form in place of a file of the run."""

    def spoil(folder: Path) -> None:
        (folder / "run" / name).unlink()
        (folder / "run" / f"{name}.gz").write_bytes(content)

    return spoil


def linked(name: str, target: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(target)

    return spoil


def sized(name: str, size: int) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(size)

    return spoil


def all_of(*ways: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for way in ways:
            way(folder)

    return spoil


def reset(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record.update(values)


def step_times(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record["step_times"].update(values)


def in_config(path: str, value: Any) -> Callable[[Path], None]:
    """Set a value of run.json; `path` is dotted."""

    def change(record: dict[str, Any]) -> None:
        *way, last = path.split(".")
        here: Any = record
        for step in way:
            here = here[int(step)] if isinstance(here, list) else here[step]
        here[last] = value

    return document("run.json", change)


def swap(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for name in names:
            record[name][0], record[name][1] = record[name][1], record[name][0]

    return change


def without_task(folder: Path) -> None:
    for path in (folder / "run").glob("*.jsonl"):
        if path.name not in ("chunks.jsonl", "environments.jsonl"):
            change_lines(folder, path.name, lambda text: [each for each in text if b'"embedded_story/ja/' not in each])


def copied_reference(folder: Path) -> None:
    """Another prompt's text under this prompt's key."""
    other = json.loads((folder / "run" / REFERENCE).read_text().splitlines()[1])
    change_line(folder, REFERENCE, 0, reset(ids=other["ids"], finish=other["finish"]))


def swapped_keys(folder: Path) -> None:
    first, second = (json.loads(each)["key"] for each in (folder / "run" / REFERENCE).read_text().splitlines()[:2])
    change_line(folder, REFERENCE, 0, reset(key=second))
    change_line(folder, REFERENCE, 1, reset(key=first))


def better_drafts(folder: Path) -> None:
    """Every draft is the text's token, and alpha says so: only the race and the sums remember the real ones."""
    ids = json.loads((folder / "run" / REFERENCE).read_text().splitlines()[0])["ids"]
    change_line(folder, REPLAY, 0, reset(draft_ids=ids[1:], alpha=float(len(ids) - 1)))


def lowered_alpha(record: dict[str, Any]) -> None:
    record["alpha"] -= 1


def spread(record: dict[str, Any]) -> None:
    record["blocks"][0]["emitted"] += 1


COUNTS = {"rounds": 1, "drafts": 4, "accepted": 1, "accepted_by_position": [1, 0, 0, 0]}
SINGLE = {"accepted": 0, "emitted": 1, "raw_accepted": 0}


def overfull(record: dict[str, Any]) -> None:
    record["blocks"][0] = {"accepted": 9, "emitted": 10, "raw_accepted": 9}


def repeated(text: list[bytes]) -> list[bytes]:
    """The second round's baseline is the first round's again."""
    return [*text[:3], text[0].replace(b'"round":0', b'"round":1'), *text[4:]]


def scaled(factor: float, *modes: str) -> Callable[[Path], None]:
    """Every time of these modes by a factor, its parts with it."""

    def change(text: list[bytes]) -> list[bytes]:
        records = [json.loads(each) for each in text]
        for record in (each for each in records if each["mode"] in modes):
            steps = record["step_times"]
            steps.update({name: int(value * factor) for name, value in steps.items() if name.endswith("_ns")})
            record["decode_ns"] = sum(value for name, value in steps.items() if name.endswith("_ns"))
        return [json.dumps(record).encode() + b"\n" for record in records]

    return lines(TIMING, change)


def cheap_verifying(text: list[bytes]) -> list[bytes]:
    """The speculative decodes keep their times, but say that little of them was spent in the verifier."""
    records = [json.loads(each) for each in text]
    for steps in (each["step_times"] for each in records if each["mode"] == "speculative"):
        steps["rest_ns"] += steps["verify_ns"] // 2
        steps["verify_ns"] -= steps["verify_ns"] // 2
    return [json.dumps(record).encode() + b"\n" for record in records]


def speculative_last(text: list[bytes]) -> list[bytes]:
    """As if every round had ended with the drafter, on warm caches."""
    order = {"autoregressive": 0, "control": 1, "speculative": 2}
    records = [json.loads(each) for each in text]
    return [json.dumps(each | {"order": order[each["mode"]]}).encode() + b"\n" for each in records]


def better_report(record: dict[str, Any]) -> None:
    record["suites"][0]["tasks"][0]["measures"]["acceptance"]["value"] = 0.99


def many(count: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "many").mkdir()
        for number in range(count):
            (folder / "many" / f"{number}").touch()

    return spoil


def manifest(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "MANIFEST.sha256"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return spoil


def both(folder: Path) -> None:
    path = folder / "run" / REFERENCE
    path.with_name("reference.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))


DEEP = b"[" * 100_000 + b"]" * 100_000
BOMB = gzip.compress(bytes(200 * 2**20), 9)

WAYS: tuple[Way, ...] = (
    Way("no folder", "F001", shutil.rmtree, packed=False),
    Way("a linked report", "F002", linked("run/report.json", "/etc/passwd")),
    Way("a linked folder", "F002", linked("drafter", "/"), packed=False),
    Way("a pipe", "F002", lambda folder: os.mkfifo(folder / "run" / "report"), packed=False),
    Way("a name with a space", "F003", put("read me.txt", b"")),
    Way("a name that runs backwards", "F003", put("run/\u202egpj.exe", b"")),
    Way("a device of another system", "F003", put("run/con.jsonl", b"")),
    Way("a drafter's file above", "F003", entry('"model.safetensors"', '"../../model.safetensors"')),
    Way("a drafter's file at the root", "F003", entry('"model.safetensors"', '"/model.safetensors"')),
    Way("case twins", "F004", all_of(put("README.md", b""), put("readme.md", b""))),
    Way("Unicode twins", "F004", all_of(put("\u00e5", b""), put("a\u030a", b""))),
    Way("a foreign file", "F005", put("run/notes.txt", b"")),
    Way("a file of a task", "F005", put("run/embedded_math/en/reference.jsonl", b"")),
    Way("no report", "F006", lambda folder: (folder / "run" / "report.json").unlink()),
    Way("no submission.toml", "F006", lambda folder: (folder / "submission.toml").unlink(), packed=False),
    Way("no manifest", "F006", lambda folder: (folder / "MANIFEST.sha256").unlink(), packed=False),
    Way("a huge file", "F007", sized(f"run/{REFERENCE}", 2**34), packed=False),
    Way("a huge document", "F007", sized("run/run.json", 5 * 2**20)),
    Way("too much in all", "F007", all_of(*(sized(f"run/{n}", 15 * 2**20) for n in range(5))), packed=False),
    Way("too many files", "F007", many(1_200), packed=False),
    Way("too deep", "F007", put("run/a/b/c/d/e/f", b"")),
    Way("a gzip bomb", "F008", instead(REFERENCE, BOMB)),
    Way("a bomb for a document", "F008", instead("run.json", BOMB)),
    Way("half a gzip", "F008", instead(REFERENCE, gzip.compress(bytes(range(256)) * 9)[:-12])),
    Way("two gzip members", "F008", instead(REFERENCE, gzip.compress(b"") * 50_000)),
    Way("no gzip at all", "F008", instead(REFERENCE, b"{}")),
    Way("plain and gzipped", "F009", both),
    Way("a manifest of prose", "M001", manifest(lambda text: ["hello\n", *text]), packed=False),
    Way("a file the manifest hides", "M002", put("README.md", b"Hello"), packed=False),
    Way("a manifest that leads up", "M003", manifest(lambda text: [*text, f"{'0' * 64}  ../secret\n"]), packed=False),
    Way("a manifest that leads away", "M003", manifest(lambda t: [*t, f"{'0' * 64}  /etc/hosts\n"]), packed=False),
    Way("a manifest that lies", "M004", line(ANSWER, reset(correct=None)), packed=False),
    Way("a manifest of twins", "M005", manifest(lambda text: [*text, text[0]]), packed=False),
    Way("no UTF-8", "J001", raw(f"run/{REFERENCE}", b'"key"', b'"k\xffy"')),
    Way("a byte order mark", "J001", lines(REFERENCE, lambda text: [b"\xef\xbb\xbf", *text])),
    Way("a submission in UTF-16", "J001", put("submission.toml", 'name = "x"'.encode("utf-16"))),
    Way("no JSON", "J002", lines(REFERENCE, lambda text: [b"{'key': 1}\n", *text])),
    Way("empty lines", "J002", lines(REFERENCE, lambda text: [b"\n" * 1_000_000, *text])),
    Way("deep JSON", "J003", lines(REPLAY, lambda text: [DEEP + b"\n", *text])),
    Way("a deep document", "J003", put("run/run.json", DEEP)),
    Way("deep JSON below Python's limit", "J003", put("drafter/config.json", b"[" * 900 + b"]" * 900)),
    Way("a key twice", "J004", raw(f"run/{REPLAY}", b'"alpha":', b'"alpha":99.0,"alpha":')),
    Way("an endless line", "J005", lines(REFERENCE, lambda text: [b"[" + b"1," * 2**20 + b"1]\n", *text])),
    Way("a torn last line", "J005", lines(REFERENCE, lambda text: [*text[:-1], text[-1][:-1]])),
    Way("NaN", "J006", line(REPLAY, reset(kl=float("nan")))),
    Way("infinity", "J006", line(REPLAY, reset(kl=float("inf")))),
    Way("1e999", "J006", raw(f"run/{REPLAY}", b'"kl":', b'"kl":1e999,"k":')),
    Way("ten thousand digits", "J006", raw(f"run/{TIMING}", b'"round":0', b'"round":' + b"9" * 10_000)),
    Way("a boolean as a number", "J007", line(REFERENCE, lambda record: record["ids"].__setitem__(0, True))),
    Way("a boolean as a count", "J007", line(REPLAY, reset(contexts=True))),
    Way("a number as text", "J007", line(TIMING, reset(decode_ns="1"))),
    Way("an unknown field", "J007", line(REFERENCE, reset(__proto__=1))),
    Way("a missing field", "J007", line(REPLAY, lambda record: record.pop("alpha"))),
    Way("half a character", "J002", raw(f"run/{REFERENCE}", b'"finish":"eos"', b'"finish":"\\ud800"')),
    Way("no TOML", "S001", put("submission.toml", b"name = \n")),
    Way("deep TOML", "S001", put("submission.toml", b"a = " + b"[" * 7_000 + b"]" * 7_000)),
    Way("dotted TOML", "S001", put("submission.toml", b".".join([b"a"] * 4_000) + b" = 1")),
    Way("a number without end", "S001", put("submission.toml", b"x = 0x" + b"f" * 9_000)),
    Way("a table that is not pinned", "S009", all_of(entry('kind = "model"', 'kind = "ngram"'),
        entry('revision = "weights-sha256:', 'revision = "latest:'))),
    Way("a key twice in TOML", "S001", entry("contact =", 'name = "x"\ncontact =')),
    Way("a missing author", "S002", entry('    "A. Nother",\n', "")),
    Way("a blank left", "S002", entry("The embedded corpus", "...")),
    Way("text for truth", "S002", entry("trained_on_suite_data = false", 'trained_on_suite_data = "no"')),
    Way("an unknown kind", "S002", entry('kind = "model"', 'kind = "magic"')),
    Way("a long name", "S002", entry("Plain drafter", "x" * 81)),
    Way("a script", "S003", entry("Plain drafter", "<script>alert(1)</script>")),
    Way("an image", "S003", entry("The drafter that", "<img src=x onerror=alert(1)>")),
    Way("javascript: as contact", "S003", entry("a@example.org", "JavaScript:alert(1)")),
    Way("text that runs backwards", "S003", entry("Plain drafter", "Plain \u202eretfard")),
    Way("a control character", "S003", entry("Plain drafter", "Plain \\u0007drafter")),
    Way("a tower of marks", "S003", entry("Plain drafter", "P" + "\u0335" * 40)),
    Way("markup in the machine's name", "S003", line("environments.jsonl", reset(processor="<b>fast</b>"))),
    Way("markup in the drafter's name", "S003", in_config("drafter.name", "<svg/onload=alert(1)>")),
    Way("javascript: as address", "S004", entry("https://example.org/drafter", "javascript:alert(1)")),
    Way("http as address", "S004", entry("https://example.org/drafter", "http://example.org/drafter")),
    Way("an address with a quote", "S004", entry("https://example.org/drafter", "https://example.org/' onclick='")),
    Way("a licence in words", "S005", entry("Apache-2.0", "free for friends")),
    Way("an unknown track", "S006", entry('track = "small"', 'track = "large"')),
    Way("an unpinned track", "S007", entry('track = "small"', 'track = "unpinned"')),
    Way("a floating revision", "S009", entry('revision = "weights-sha256:', 'revision = "main:')),
    Way("no weights named", "S009", entry("model.safetensors", "config.json")),
    Way("no hash of the weights", "S009", entry('"model.safetensors" = "', '"model.safetensors" = "x')),
    Way("another drafter", "S010", entry("parameters = 463232", "parameters = 463231")),
    Way("a run without a drafter", "S010", in_config("drafter", None)),
    Way("pickled weights", "W001", entry("[drafter.files]", f'[drafter.files]\n"pytorch_model.bin" = "{"0" * 64}"')),
    Way("a pickle in the folder", "W001", put("run/weights.pkl", b"\x80\x04.")),
    Way("a program among them", "W002", entry("[drafter.files]", f'[drafter.files]\n"modeling.py" = "{"0" * 64}"')),
    Way("auto_map", "W002", put("drafter/config.json", b'{"auto_map": {"AutoModel": "evil--model.Model"}}')),
    Way("trust_remote_code", "W002", in_config("drafter.options", {"trust_remote_code": True})),
    Way("another gamma", "C001", in_config("gamma", 5)),
    Way("another rule", "C001", in_config("sampling.temperature", 1.0)),
    Way("another verifier", "C001", in_config("verifier.revision", "weights-sha256:" + "0" * 64)),
    Way("another max_new_tokens", "C001", in_config("suites.0.max_new_tokens", 16)),
    Way("another suite's hash", "C002", in_config("suites.0.data_sha256.en", "0" * 64)),
    Way("other prompts", "C002", in_config("suites.0.prompts_sha256.ja", "0" * 64)),
    Way("a missing language", "C002", in_config("suites.1.languages", ["en"])),
    Way("a missing suite", "C002", document("run.json", lambda record: record["suites"].pop())),
    Way("a part of a run", "C003", in_config("shard", [1, 2])),
    Way("a prompt less", "C003", document("run.json", lambda record: record["chunks"][f"{EN}/000"].pop())),
    Way("a prompt twice", "C003", document("run.json", lambda r: r["chunks"][f"{EN}/000"].append(f"{EN}/0"))),
    Way("a foreign prompt", "C003", document("run.json", lambda r: r["chunks"][f"{EN}/000"].append("x/y/0"))),
    Way("markup as a chunk's name", "C003", document("run.json", lambda r: r["chunks"].update({f"{EN}/<b>": []}))),
    Way("another cluster", "C004", document("run.json", lambda r: r["clusters"].update({f"{EN}/0": "mine"}))),
    Way("a drafter whose q is said not to be proper", "S010", in_config("drafter.proper", False)),
    Way("a step less", "C005", lines("chunks.jsonl", lambda text: text[1:])),
    Way("a step twice", "C005", lines("chunks.jsonl", lambda text: [*text, text[0]])),
    Way("no such environment", "C005", line("chunks.jsonl", reset(environment=7))),
    Way("a missing line", "L001", lines(REFERENCE, lambda text: text[1:])),
    Way("a task left out", "L001", without_task),
    Way("a dropped prompt", "L001", put("run/dropped.jsonl", f'{{"key":"{EN}/0","reason":"hard"}}\n'.encode())),
    Way("a line twice", "L002", lines(REPLAY, lambda text: [*text, text[0]])),
    Way("a line of another task", "L003", line(REPLAY, reset(key="embedded_math/ja/0"))),
    Way("a line of another shard", "L003", line(REFERENCE, reset(chunk=f"{EN}/001"))),
    Way("another prompt's reference", "L004", line(REFERENCE, reset(prompt_sha="0" * 64))),
    Way("another prompt's replay", "L004", line(REPLAY, reset(prompt_sha="0" * 64))),
    Way("another prompt's timing", "L004", line(TIMING, reset(prompt_sha="0" * 64))),
    Way("a flood of lines", "L005", lines(REFERENCE, lambda text: text * 20_000)),
    Way("counts that lie", "L005", line("chunks.jsonl", reset(lines=2))),
    Way("an id beyond", "T001", line(REFERENCE, lambda record: record["ids"].__setitem__(0, 2048))),
    Way("an id below", "T001", line(REFERENCE, lambda record: record["ids"].__setitem__(0, -1))),
    Way("a wrong end", "T002", line(REFERENCE, reset(finish="length"))),
    Way("an end inside", "T002", line(REFERENCE, lambda record: record["ids"].__setitem__(3, 1))),
    Way("an altered reference", "T003", line(REFERENCE, lambda record: record["ids"].__setitem__(2, 7))),
    Way("a shortened reference", "T003", line(REFERENCE, lambda record: record["ids"].pop(1))),
    Way("swapped ids", "T003", line(REFERENCE, swap("ids"))),
    Way("swapped references", "T003", swapped_keys),
    Way("a copied reference", "T003", copied_reference),
    Way("a better grade", "T004", line(ANSWER, lambda record: record.update(correct=not record["correct"]))),
    Way("more bytes", "T004", line(ANSWER, reset(bytes=1_000))),
    Way("another drafter's configuration", "S011", put("drafter/config.json", b'{"model_type": "gpt2"}')),
    Way("a verifier that would say something else", "T005", line(REPLAY, reset(divergences=1, largest_gap=9.0))),
    Way("float32 held against float32", "T006", document("run.json", reset(float32_check=True))),
    Way("no divergences", "T005", line(REPLAY, reset(divergences=None, largest_gap=None))),
    Way("texts submitted", "T004", line(DRAFTER_ANSWER, reset(text="hello"))),
    Way("fewer contexts", "R001", line(REPLAY, reset(contexts=3))),
    Way("fewer drafts", "R001", line(REPLAY, lambda record: record["draft_ids"].pop())),
    Way("a draft beyond", "R002", line(REPLAY, lambda record: record["draft_ids"].__setitem__(0, 99_999))),
    Way("more alpha", "R003", line(REPLAY, lambda record: record.update(alpha=record["alpha"] + 1))),
    Way("less alpha", "R003", line(REPLAY, lowered_alpha)),
    Way("overlap above one", "R004", line(REPLAY, reset(overlap=1e6))),
    Way("negative KL", "R004", line(REPLAY, reset(kl=-50.0))),
    Way("a cross-entropy that does not add up", "R004", line(REPLAY, reset(cross_entropy=0.0))),
    Way("impossible answer length", "R004", line(DRAFTER_ANSWER, reset(bytes=10_000))),
    Way("overlap too low for its KL", "R005", line(REPLAY, reset(overlap=0.0, kl=0.0))),
    Way("another verifier's entropy", "R006", line(REPLAY, reset(verifier_entropy=50.0))),
    Way("no KL on one line", "R007", line(REPLAY, reset(kl=None, cross_entropy=None, overlap=None))),
    Way("beta in greedy decoding", "R008", line(REPLAY, reset(beta=[1.0]))),
    Way("no distance where drafts miss", "R009", line(REPLAY, lambda r: r.update(
        kl=0.0, overlap=float(r["contexts"]), cross_entropy=r["verifier_entropy"]))),
    Way("a hair's distance where drafts miss", "R009", line(REPLAY, lambda r: r.update(
        kl=1e-9, overlap=float(r["contexts"]), cross_entropy=r["verifier_entropy"]))),
    Way("a larger verifier", "C001", in_config("verifier.parameters", 8 * 10**9)),
    Way("a verifier in four bits", "C001", in_config("verifier.options", {"load_in_4bit": True})),
    Way("a quantized verifier", "C001", in_config("verifier.options", {"quantization": "bnb-4bit"})),
    Way("another device than the environment's", "B006", in_config("device", "cuda:0")),
    Way("an endless batch", "C001", in_config("batch_size", 10**15)),
    Way("another drafter's place", "S010", entry('repo = "embedded:drafter"', 'repo = "google/gemma"')),
    Way("a name of a blank", "S012", entry('name = "Plain drafter"', 'name = "\u3164"')),
    Way("a name of one space", "S012", entry('name = "Plain drafter"', 'name = " "')),
    Way("a name with a no-break space", "S012", entry("Plain drafter", "Plain\u00a0drafter")),
    Way("a name on two lines", "S012", entry('"Plain drafter"', '"Plain\\ndrafter"')),
    Way("a name with a Cyrillic letter", "S012", entry("Plain drafter", "Pl\u0430in drafter")),
    Way("a name with a joiner", "S012", entry("Plain drafter", "P\u200dlain drafter")),
    Way("a name that says audited", "S012", entry("Plain drafter", "Plain drafter, AUDITED")),
    Way("a name with a tick", "S012", entry("Plain drafter", "Plain drafter \u2714")),
    Way("an empty author", "S012", entry('"A. Nother"', '""')),
    Way("a race cut short", "B001", lines(TIMING, lambda text: text[:-1])),
    Way("a race with two firsts", "B001", line(TIMING, reset(order=2))),
    Way("a round too many", "B001", line(TIMING, reset(round=5))),
    Way("a race without end", "B001", in_config("race_rounds", 10**15)),
    Way("fewer tokens raced", "B002", line(TIMING, reset(tokens=3))),
    Way("two lengths of one prompt", "B002", line(TIMING, reset(context=41))),
    Way("blocks that emit too much", "B002", line(TIMING, spread, SPECULATIVE)),
    Way("more accepted than drafted", "B003", line(TIMING, overfull, SPECULATIVE)),
    Way("blocks without a drafter", "B003", line(TIMING, reset(blocks=[SINGLE]))),
    Way("better drafts than were raced", "B004", better_drafts),
    Way("blocks in another order", "B004", line(TIMING, lambda r: r["blocks"].reverse(), SPECULATIVE)),
    Way("a time that is no sum", "B005", line(TIMING, reset(decode_ns=1), SPECULATIVE)),
    Way("no time", "B005", line(TIMING, lambda r: (r.update(decode_ns=0), step_times(verify_ns=0, rest_ns=0)(r)))),
    Way("negative time", "B005", line(TIMING, step_times(rest_ns=-5))),
    Way("fewer verifier calls", "B005", line(TIMING, step_times(verify=1))),
    Way("drafts in the baseline", "B005", line(TIMING, step_times(draft_first=1))),
    Way("a copied reading", "B005", lines(TIMING, repeated)),
    Way("another machine", "B006", line("environments.jsonl", reset(device="cuda", device_name="Fast"))),
    Way("steps of another decode", "B005", line(TIMING, reset(separate_steps=True))),
    Way("a serving engine's counts", "B003", line(TIMING, reset(counters=COUNTS), SPECULATIVE)),
    Way("times by 40", "B007", scaled(1 / 40, "speculative")),
    Way("a slow baseline", "B007", scaled(40, "autoregressive", "control")),
    Way("a slow baseline, but for its own control", "B005", line(TIMING, reset(decode_ns=10**9))),
    Way("a verifier that reads five tokens faster than one", "B007", lines(TIMING, cheap_verifying)),
    Way("a machine faster than any", "B007", scaled(1 / 500, "autoregressive", "control", "speculative")),
    Way("the drafter always last", "B001", lines(TIMING, speculative_last)),
    Way("fewer prompts raced", "B001", in_config("race_prompts", 1)),
    Way("fewer rounds", "B001", in_config("race_rounds", 1)),
    Way("a race of any width", "B001", in_config("race_width", 1.0)),
    Way("a race of no budget", "B001", in_config("race_budget", 0.001)),
    Way("the faster prompts first", "C003", document("run.json", lambda r: r["chunks"][f"{EN}/000"].reverse())),
    Way("another processor", "B006", line("environments.jsonl", reset(processor="Faster"))),
    Way("more threads", "B006", line("environments.jsonl", reset(threads=64))),
    Way("another backend", "B006", document("run.json", lambda r: r.update(backend="graph"))),
    Way("a spread verifier", "B006", in_config("verifier.options", {"device_map": "auto"})),
    Way("a better report", "P001", document("report.json", better_report)),
    Way("a luckier seed", "P001", document("report.json", reset(bootstrap_seed=7))),
    Way("a better drafter's own answers", "P001", line(DRAFTER_ANSWER, lambda r: r.update(correct=not r["correct"]))),
    Way("a report of another run", "P001", document("report.json", lambda r: r["config"].update(gamma=5))),
)  # fmt: skip
