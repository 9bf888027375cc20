"""A full run rehearsed on a CPU: all of MGSM, a vocabulary of real size, models too small to matter.

    python tests/bench/rehearsal.py [--limit N] [--max_new_tokens 24] [--work DIR] [--out docs/results]

Makes a pair of random weights with the embedded pair's tokenizer (so that prompts are real ids) and an embedding of
151,936 rows, as Qwen2.5 has (so that logits are of real size), then plans, runs, reports and checks as a submission,
each in a process of its own whose peak resident memory is read when it ends. Writes `rehearsal.json` and
`rehearsal.md`. Stopped, the same command with `--work` goes on; times are then of the last part, and the page says so.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VOCABULARY = 151_936
POSITIONS = 8192
HIDDEN, LAYERS, HEADS, KV_HEADS = 32, 2, 2, 1
NOISE = 0.1
SUITE, SHOTS = "mgsm", 8
MIB = 2**20


def main() -> None:
    """Rehearse and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="only the first N prompts of each language")
    parser.add_argument("--max_new_tokens", type=int, default=24, help="most output tokens")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder to work in, kept; default: a temporary one")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--submission", type=Path, help=argparse.SUPPRESS)  # the child that checks
    asked = parser.parse_args()
    if asked.submission:
        check(asked.submission)
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.work:
        found = rehearse(asked.work.resolve(), asked)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = rehearse(Path(folder), asked)
    (asked.out / "rehearsal.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (asked.out / "rehearsal.md").write_text(page(found), encoding="utf-8")


def rehearse(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All steps in `work`; → what each took and what came of them."""
    from fairspec_bench.scoring.environment import describe

    resumed = (work / "run").exists()
    if not (work / "verifier").exists():
        save_pair(work)
    options = [
        "--suite",
        SUITE,
        "--num_fewshot",
        str(SHOTS),
        "--max_new_tokens",
        str(asked.max_new_tokens),
        "--race_rounds",
        "0",
    ]
    options += ["--batch_size", str(asked.batch_size)] + (["--limit", str(asked.limit)] if asked.limit else [])
    pair = ["verifier", "drafter", *options]
    fairspec = [sys.executable, "-m", "fairspec_bench"]
    steps = {}
    steps["plan"] = measured([*fairspec, "plan", *pair], work, asked.threads)
    steps["run"] = measured([*fairspec, "run", *pair, "--out", "run"], work, asked.threads)
    shutil.rmtree(work / "submissions", ignore_errors=True)
    shutil.rmtree(work / "tracks", ignore_errors=True)
    script = [sys.executable, str(Path(__file__).resolve())]
    steps["report"] = measured([*fairspec, "report", "run", "--format", "json"], work, asked.threads)
    report = json.loads(steps["report"].pop("said"))
    steps["track, pack, check"] = measured([*script, "--submission", str(work)], work, asked.threads)
    said = steps["plan"].pop("said").splitlines()
    return {
        "command": f"fairspec run {' '.join(pair)}",
        "resumed": resumed,
        "machine": describe("cpu").model_dump(),
        "threads": asked.threads,
        "models": {"vocabulary": VOCABULARY, "hidden": HIDDEN, "layers": LAYERS, "dtype": "float32"},
        "planned": [line.strip() for line in said if line.lstrip().startswith(("memory:", "disk:", "hours:"))],
        "steps": {name: {key: value for key, value in step.items() if key != "said"} for name, step in steps.items()},
        "checked": steps["track, pack, check"]["said"].strip(),
        "disk_bytes": disk(work / "run"),
        "submission_bytes": disk(work / "submissions" / "rehearsal"),
        "languages": languages(report, work / "run"),
    }


def save_pair(root: Path) -> None:
    """`verifier/` and `drafter/`, a noised copy that often agrees with it, with the embedded pair's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from fairspec_bench.models.hub import locate

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=POSITIONS,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    verifier = LlamaForCausalLM(config)
    drafter = copy.deepcopy(verifier)
    with torch.no_grad():
        for weight in drafter.parameters():
            if weight.dim() > 1:
                weight += NOISE * weight.std() * torch.randn_like(weight)
    source = locate("embedded:verifier").folder
    for model, name in ((verifier, "verifier"), (drafter, "drafter")):
        model.save_pretrained(root / name)
        for file in source.glob("tokenizer*.json"):
            shutil.copy(file, root / name)


def measured(command: Sequence[str], work: Path, threads: int) -> dict[str, Any]:
    """Run a command in `work`; → its output, seconds, and peak resident bytes, of the process alone."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    environment["FAIRSPEC_CACHE_DIR"] = str(work / "cache")
    started = time.monotonic()
    with (work / "said.txt").open("w+b") as out:
        child = subprocess.Popen(command, cwd=work, env=environment, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - started
        out.seek(0)
        said = out.read().decode()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {child.returncode}")
    return {
        "seconds": round(took, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
        "said": said,
    }


def check(work: Path) -> None:
    """The run as a track of its own and a submission to it, packed and checked. Exit status 1 for a refusal."""
    import fairspec_bench as fb

    tracks, folder = work / "tracks", work / "submissions" / "rehearsal"
    tracks.mkdir()
    fb.new_track(work / "run", "rehearsal", title="Rehearsal", about="Of a full run.", folder=tracks)
    description: dict[str, Any] = {
        "name": "Rehearsal",
        "description": "Random weights.",
        "authors": ("nobody",),
        "contact": "nobody@example.org",
        "licence": "Apache-2.0",
        "url": "https://example.org",
        "training_data": "none",
        "repo": "drafter",
        "files": {path.name: path for path in (work / "drafter").iterdir()},
    }
    fb.submit_new(folder, "rehearsal", run=work / "run", tracks=tracks, **description)
    fb.submit_pack(folder)
    verdict = fb.submit_check(folder, keep=False, tracks=tracks)
    print(*map(str, verdict.findings[:5]), "accepted" if verdict.ok else "refused", sep="\n")
    raise SystemExit(0 if verdict.ok else 1)


def disk(folder: Path) -> dict[str, int]:
    """Bytes under a folder by name of file, all languages together."""
    found: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            found[path.name] = found.get(path.name, 0) + path.stat().st_size
    return {**found, "total": sum(found.values())}


def languages(report: dict[str, Any], run: Path) -> list[dict[str, Any]]:
    """What was run of each language."""
    return [
        {
            "language": task["language"],
            "prompts": task["prompts"],
            "output_tokens": task["tokens"],
            "acceptance": task["measures"]["acceptance"],
            "disk_bytes": disk(run / task["task"])["total"],
        }
        for suite in report["suites"]
        for task in suite["tasks"]
    ]


def page(found: dict[str, Any]) -> str:
    """The summary as Markdown."""
    machine, models = found["machine"], found["models"]
    prompts = sum(each["prompts"] for each in found["languages"])
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        "# A full run, rehearsed on a CPU",
        "",
        f"{prompts:,} MGSM prompts in {len(found['languages'])} languages, {SHOTS} exemplars each; a Llama-like pair",
        f"of random weights: {models['vocabulary']:,} ids, hidden size {models['hidden']}, {models['layers']} layers.",
        "Logits, lines and folders have the size of a real run; the models do not. No figure here is about a drafter.",
        "Made by `python tests/bench/rehearsal.py`; the run itself was",
        "",
        "```console",
        found["command"],
        "```",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {found['threads']} thread(s), {machine['platform']}; "
        f"Python {machine['python']}, {versions}. Commit {machine['commit']}.",
        *(["The run was stopped and went on: its time is of the last part."] if found["resumed"] else []),
        "",
        "| step | hours | processor hours | peak resident memory, MiB |",
        "| --- | --- | --- | --- |",
    ]
    for name, step in found["steps"].items():
        hours = f"{step['seconds'] / 3600:.3f} | {step['processor_seconds'] / 3600:.3f}"
        lines.append(f"| {name} | {hours} | {step['peak_bytes'] / MIB:,.0f} |")
    lines += ["", "Planned beforehand: " + "; ".join(found["planned"]) + ".", ""]
    sizes = found["disk_bytes"]
    lines.append(
        f"On disk: {sizes['total'] / MIB:,.1f} MiB ("
        + ", ".join(f"{name} {size / MIB:,.1f}" for name, size in sizes.items() if name != "total" and size > 50_000)
        + f"); packed as a submission {found['submission_bytes']['total'] / MIB:,.1f} MiB, "
        f"{found['checked'].splitlines()[-1]} by the check."
    )
    lines += [
        "",
        "| language | prompts | output tokens | acceptance | disk, KiB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in found["languages"]:
        figure = each["acceptance"]
        shown = f"{figure['value']:.3f}"
        if figure["low"] is not None:
            shown += f" [{figure['low']:.3f}, {figure['high']:.3f}]"
        row = (each["language"], f"{each['prompts']}", f"{each['output_tokens']:,}", shown)
        lines.append(f"| {' | '.join(row)} | {each['disk_bytes'] / 1024:,.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
