"""Replaces a folder of pages by a new one: whole, or not at all. A folder of anything else is never touched."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from fairspec_bench.schemas.base import FairspecError

ABANDONED_SECONDS = 3_600
MARKER = ".fairspec-site"  # in a folder that this module made and may therefore replace


class SiteError(FairspecError):
    """The site cannot be built: the message says what to do."""


def publish(files: Mapping[str, str], out: Path) -> None:
    """Put `files` where `out` is: written beside it first, then exchanged for it. Raises `SiteError`."""
    target = out.resolve()
    try:
        _recover(target)
        if target.exists() and not _ours(target):
            raise SiteError(f"{out}: holds something other than a site made here. Choose a new or empty folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            _write(files, stage / "new")
            if target.exists():
                os.replace(target, stage / "old")
            try:
                os.replace(stage / "new", target)
            except OSError:
                if (stage / "old").exists():
                    os.replace(stage / "old", target)
                raise
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise SiteError(f"{out}: cannot be written ({error.strerror}). Free space or choose another folder.") from error


def _recover(target: Path) -> None:
    """Put back the site that a kill left beside its place, and remove what older builds that were killed left."""
    for stage in target.parent.glob(f".{target.name}.*"):
        inside = list(stage.iterdir()) if stage.is_dir() else [stage]
        if any(each.name not in ("old", "new") or not (each / MARKER).is_file() for each in inside):
            continue
        abandoned = time.time() - stage.stat().st_mtime > ABANDONED_SECONDS
        if (stage / "old").exists() and not target.exists():
            os.replace(stage / "old", target)
            abandoned = True
        if abandoned:
            shutil.rmtree(stage, ignore_errors=True)


def _ours(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MARKER).is_file() or not any(folder.iterdir()))


def _write(files: Mapping[str, str], folder: Path) -> None:
    for parent in sorted({(folder / name).parent for name in files}):
        parent.mkdir(parents=True, exist_ok=True)
    for name, text in sorted(files.items(), key=lambda each: each[0] != MARKER):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
