"""Shards of a run, made apart by `--shard i/n`, become one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from fairspec_bench.schemas.base import Record
from fairspec_bench.schemas.config import Environment, RunConfig
from fairspec_bench.schemas.resumable import FolderError, difference
from fairspec_bench.schemas.stages import STAGES, Unit
from fairspec_bench.scoring.run_folder import RunFolder, same_machine, writing


def merge(out: Path, shards: Sequence[Path]) -> RunFolder:
    """Join the finished shards of a run into `out`: the bytes of the unsharded run, timings and environments apart.

    Races of a shard do not end early, so the whole has `race_width` 0. Raises `FolderError` for a shard that is
    missing, given twice, unfinished or of another run (by the name of the differing field), and for timings of
    different machines. A merge that was interrupted resumes.
    """
    folders = _in_order([RunFolder(shard) for shard in shards])
    _refuse_mixed_timings(folders)
    lines: dict[Unit, tuple[Record, ...]] = {}
    for folder in folders:
        folder.check()
        for stage in STAGES.values():
            lines.update(folder.read(stage.name, stage.record))
    owner = {unit: place for place, folder in enumerate(folders) for unit in folder.units}
    environments = [environment for folder in folders for environment in folder.environments]
    first = list(accumulate((len(folder.environments) for folder in folders), initial=0))
    with writing(out, _whole(folders[0].config), environments[0], folders[0].dropped()) as writer:
        known = list(writer.folder.environments)
        if known != environments[: len(known)]:
            raise FolderError(f"{out}: holds lines that are not of these shards. Choose another folder.")
        writer.add_environments(environments[len(known) :])
        for unit in writer.left():
            place = owner[unit]
            writer.add(unit, lines[unit], first[place] + folders[place].done[unit].environment)
    return RunFolder(out)


def _whole(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"shard": None})


def _in_order(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """The folders in the order of their shard numbers, if they are all shards of one run and none is missing."""
    found: dict[int, RunFolder] = {}
    count = 0
    for folder in folders:
        if folder.config.shard is None:
            raise FolderError(f"{folder.path}: a whole run, not a shard (made by --shard i/n). Leave it out.")
        number, count = folder.config.shard
        _refuse_other_run(folder, folders[0], count)
        if number in found:
            raise FolderError(
                f"{folder.path}: shard {number}/{count} again, after {found[number].path}. Leave one out."
            )
        if not folder.complete:
            raise FolderError(f"{folder.path}: unfinished ({folder.progress}). Rerun its command, then merge.")
        found[number] = folder
    if not found:
        raise FolderError("merge: no shards given. Name the folders that --shard i/n filled.")
    if lost := sorted(set(range(1, count + 1)) - set(found)):
        raise FolderError(f"merge: shard {lost[0]}/{count} is missing. Run it, or name its folder.")
    return [found[number] for number in sorted(found)]


def _refuse_other_run(folder: RunFolder, model: RunFolder, count: int) -> None:
    if found := difference(_whole(model.config), _whole(folder.config)):
        raise FolderError(f"{folder.path}: a shard of another run than {model.path} ({found}). Leave it out.")
    if model.config.shard is not None and model.config.shard[1] != count:
        raise FolderError(
            f"{folder.path}: one of {count} shards, {model.path} one of {model.config.shard[1]}. Leave it out."
        )


def _refuse_mixed_timings(folders: Sequence[RunFolder]) -> None:
    timed: list[tuple[RunFolder, Environment]] = [
        (folder, folder.environments[mark.environment])
        for folder in folders
        for unit, mark in folder.done.items()
        if STAGES[unit.stage].timed
    ]
    for folder, environment in timed[1:]:
        if found := same_machine(timed[0][1], environment, timed=True):
            raise FolderError(f"{folder.path}: timed on another machine than {timed[0][0].path} ({found}).")
