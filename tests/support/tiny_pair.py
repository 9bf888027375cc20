"""A pair on disk as a user has one: random weights of a few thousand parameters and a tokenizer trained in a moment."""

from __future__ import annotations

import contextlib
import copy
import io
from pathlib import Path

import torch

from fairspec_bench.suites.embedded import problem
from fairspec_bench.testbed.tokenizer import train_tokenizer
from fairspec_bench.testbed.trainer import Shape, build

POSITIONS = 512
TIMED = ("race.jsonl", "sweep.jsonl")


def save_pair(root: Path, *, vocabulary: int = 300, seed: int = 0) -> tuple[Path, Path]:
    """Save `verifier/` and `drafter/`, a noised copy that often agrees with it; → both folders."""
    told = [problem(language, k) for language in ("en", "te") for k in range(40)]
    tokenizer = train_tokenizer([one.question + one.solution for one in told], vocabulary, POSITIONS)
    verifier = build(Shape(32, 2, 2, 1, 16, 64), len(tokenizer), POSITIONS, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        matrices = [weight for weight in verifier.parameters() if weight.dim() > 1]
        for weight in matrices:
            weight.mul_(5)
        drafter = copy.deepcopy(verifier)
        for weight in drafter.parameters():
            if weight.dim() > 1:
                weight += 0.2 * weight.std() * torch.randn(weight.shape, generator=generator)
    for model, name in ((verifier, "verifier"), (drafter, "drafter")):
        with contextlib.redirect_stderr(io.StringIO()):
            model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root / "verifier", root / "drafter"


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a folder, the lock apart."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(files)}


def lasting(path: Path) -> dict[str, bytes]:
    """What must be the same however often a run was stopped: all but times and which session did what."""
    sessions = ("environments.jsonl", "chunks.jsonl", "report.json")
    found = contents(path)
    return {name: body for name, body in found.items() if name not in sessions and not name.endswith(TIMED)}
