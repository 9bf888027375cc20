"""A valid submission to a small track, made from the committed run of the built-in pair.

Knows how a run folder is cut down to a few prompts and raced on paper, and how a record in it is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fairspec_bench.metrics.acceptance import blocks_from_matches
from fairspec_bench.metrics.report import build_report
from fairspec_bench.schemas.config import ChunkDone, RunConfig
from fairspec_bench.schemas.io import lines_text, write_atomic, write_record
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Answer, DtypeDivergence, Reference, Replay, StepTimes, Timing
from fairspec_bench.schemas.stages import mode_order, race_keys, units
from fairspec_bench.scoring.reference_packs import write_track
from fairspec_bench.scoring.report import lines_of
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.submissions.pack import new, pack

RUN = Path(__file__).parents[2] / "docs" / "results" / "embedded-pair"
SUITES, LANGUAGES, PROMPTS, ROUNDS, REPLICATES = ("embedded_math", "embedded_story"), ("en", "ja"), 3, 2, 20


def small_run(out: Path, *, half: bool = False, recorded: bool = False) -> RunConfig:
    """The first prompts of some tasks of the committed run as a run of its own, with a race.

    `half`: as if its texts had been made in bfloat16, the first of each task leaving float32's at token 2.
    `recorded`: as if blocks had been recorded as a whole, their steps timed in another decode.
    """
    whole = RunFolder(RUN)
    keys = [f"{suite}/{language}/{n}" for suite in SUITES for language in LANGUAGES for n in range(PROMPTS)]
    suites = tuple(
        suite.model_copy(
            update={
                "languages": LANGUAGES,
                "limit": PROMPTS,
                "data_sha256": {language: suite.data_sha256[language] for language in LANGUAGES},
                "prompts_sha256": {language: suite.prompts_sha256[language] for language in LANGUAGES},
            }
        )
        for suite in whole.config.suites
    )
    tasks = sorted({PromptKey(key).task for key in keys})
    config = whole.config.model_copy(
        update={
            "suites": suites,
            "chunks": {f"{task}/000": tuple(key for key in keys if key.startswith(f"{task}/")) for task in tasks},
            "clusters": {key: whole.config.clusters[key] for key in keys},
            "race_prompts": 2,
            "race_rounds": ROUNDS,
            **({"dtype": "bfloat16", "float32_check": True} if half else {}),
            **({"backend": "graph"} if recorded else {}),
        }
    )
    found: dict[str, dict[str, Any]] = {
        stage: {line.key: line for line in whole.lines(stage, kind) if line.key in config.clusters}
        for stage, kind in {
            "reference": Reference,
            "answer": Answer,
            "replay": Replay,
            "drafter_answer": Answer,
        }.items()
    }
    still = {"divergences": 0, "largest_gap": 0.0}  # the committed lines are older than these fields
    found["replay"] = {key: replay.model_copy(update=still) for key, replay in found["replay"].items()}
    found["dtype_divergence"] = {key: _departed(reference) for key, reference in found["reference"].items()}
    timings = {
        key: _raced(found["reference"][key], found["replay"][key], config.gamma)
        for raced in race_keys(config).values()
        for key in raced
    }
    if recorded:
        timings = {
            key: [
                line.model_copy(update={"separate_steps": True, "decode_ns": line.decode_ns * 3 // 4}) for line in lines
            ]
            for key, lines in timings.items()
        }
    marks, files = list[ChunkDone](), dict[str, str]()
    for unit in units(config):
        asked = config.chunks[unit.chunk]
        if unit.stage == "race":
            lines = [each for key in asked for each in timings.get(key, [])]
        else:
            lines = [found[unit.stage][key] for key in asked if key in found[unit.stage]]
        files[unit.file] = files.get(unit.file, "") + lines_text(lines)
        marks.append(ChunkDone(chunk=unit.chunk, stage=unit.stage, lines=len(lines), environment=0))
    for name, text in files.items():
        write_atomic(out / name, text)
    write_record(out / "run.json", config)
    write_atomic(out / "environments.jsonl", lines_text(whole.environments))
    write_atomic(out / "chunks.jsonl", lines_text(marks))
    write_report(out)
    return config


def write_report(run: Path) -> None:
    """The report of a run's lines, with few replicates."""
    folder = RunFolder(run)
    lines = lines_of(folder)
    write_record(run / "report.json", build_report(folder.config, folder.environments, lines, replicates=REPLICATES))


def _departed(reference: Reference) -> DtypeDivergence:
    first, gap = (2, 0.03) if reference.key.endswith("/0") else (None, None)
    return DtypeDivergence(
        key=reference.key, prompt_sha=reference.prompt_sha, first=first, gap=gap, chunk=reference.chunk
    )


def _raced(reference: Reference, replay: Replay, gamma: int) -> list[Timing]:
    hits = [draft == token for draft, token in zip(replay.draft_ids, reference.ids[1:], strict=True)]
    timings = []
    for number in range(ROUNDS):
        drawn = mode_order(0, reference.key, number)
        for mode in ("autoregressive", "speculative", "control"):
            order = drawn.index(mode)
            blocks = blocks_from_matches(hits, gamma) if mode == "speculative" else ()
            calls, odd = len(blocks) or len(hits), 7 * number + order
            step_times = StepTimes(verify_ns=calls * 1_000_000 + odd, verify=calls, rest_ns=calls * 10_000)
            if blocks:
                drafts = {"draft_first_ns": calls * 100_000, "draft_first": calls}
                drafts |= {"draft_next_ns": calls * 300_000, "draft_next": calls * (gamma - 1)}
                step_times = step_times.model_copy(update=drafts)
            total = step_times.draft_first_ns + step_times.draft_next_ns + step_times.verify_ns + step_times.rest_ns
            timings.append(
                Timing(
                    key=reference.key,
                    prompt_sha=reference.prompt_sha,
                    mode=mode,
                    round=number,
                    order=order,
                    context=40,
                    tokens=len(reference.ids),
                    prefill_ns=2_000_000 + odd,
                    drafter_prefill_ns=500_000 if blocks else 0,
                    decode_ns=total,
                    step_times=step_times,
                    blocks=blocks,
                    chunk=f"{PromptKey(reference.key).task}/000",
                )
            )
    return timings


def small_track(tracks: Path, run: Path, config: RunConfig) -> None:
    """The track `small`, fixed by that run; and `unpinned`, the same without its verifier's revision."""
    stops = {suite.name: () for suite in config.suites}
    made = write_track(
        run,
        tracks,
        "small",
        title="Small",
        about="A test",
        vocabulary=2048,
        eos_ids=[1],
        stops=stops,
        replicates=REPLICATES,
    )
    text = made.read_text(encoding="utf-8").replace('name = "small"', 'name = "unpinned"')
    unpinned = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("verifier_revision"))
    (tracks / "unpinned.toml").write_text(unpinned, encoding="utf-8")


def small_submission(base: Path, **changes: bool) -> tuple[Path, Path]:
    """A valid submission under `base` and the folder of its track."""
    config = small_run(base / "run", **changes)
    small_track(base / "tracks", base / "run", config)
    weights = base / "model.safetensors"
    weights.write_bytes(b"weights")
    folder = base / "good"
    new(
        folder,
        "small",
        base / "run",
        name="Plain drafter",
        description="The drafter that travels in the package. ไทย, বাংলা, 日本語.",
        authors=("A. Nother",),
        contact="a@example.org",
        licence="Apache-2.0",
        url="https://example.org/drafter",
        files={weights.name: weights},
        training_data="The embedded corpus",
        tracks=base / "tracks",
    )
    pack(folder)
    return folder, base / "tracks"


# --------------------------------------------------------------------------- ways to spoil one


def change_line(folder: Path, name: str, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Change one record of a JSON-lines file of the run."""
    path = folder / "run" / name
    lines = path.read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[number])
    change(record)
    lines[number] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def change_document(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a document of the run."""
    path = folder / "run" / name
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")


def change_lines(folder: Path, name: str, change: Callable[[list[bytes]], Iterable[bytes]]) -> None:
    """Change the lines of a file of the run, ends of lines included."""
    path = folder / "run" / name
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def change_entry(folder: Path, old: str, new_text: str) -> None:
    """Replace some text of submission.toml, which must be there."""
    path = folder / "submission.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new_text, 1), encoding="utf-8")
