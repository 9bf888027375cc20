"""The suites by name, from their group files under `tasks/` alone: reads no data and imports no lm-eval.

A suite is `tasks/<suite>.yaml`, its languages written in the group, or `tasks/<suite>/_group.yaml` with a task file a
language beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from fairspec_bench.schemas.base import Sha256, unknown


@dataclass(frozen=True)
class SuiteInfo:
    """What a suite's group file, `file`, says of it; `languages` are those run by default."""

    name: str
    title: str
    version: str
    licence: str
    home: str
    languages: tuple[str, ...]
    published_sha256: Mapping[str, Sha256]
    file: Path


def tasks_folder() -> Path:
    """The lm-eval task files: inside the installed package, else beside it in a checkout."""
    package = Path(str(files("fairspec_bench")))
    installed = package / "_tasks"
    return installed if installed.is_dir() else package.parent / "tasks"


def list_suites() -> tuple[SuiteInfo, ...]:
    """Every suite by name. No data is read."""
    folder = tasks_folder()
    groups = map(_read, (*folder.glob("*.yaml"), *folder.glob("*/_group.yaml")))
    return tuple(sorted(groups, key=lambda info: info.name))


def suite_info(name: str) -> SuiteInfo:
    """The suite of that name. Raises `FairspecError` if there is none."""
    suites = {info.name: info for info in list_suites()}
    if name not in suites:
        raise unknown("suite", name, suites)
    return suites[name]


def _read(path: Path) -> SuiteInfo:
    # Task files name functions by a tag of lm-eval's, which is not needed here.
    group = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    about, prefix = group["metadata"], f"{group['group']}_"
    tasks = (task if isinstance(task, str) else task["task"] for task in group["task"])
    return SuiteInfo(
        name=group["group"].removeprefix("fairspec_"),
        title=about["title"],
        version=str(about["version"]),
        licence=about["licence"],
        home=about["home"],
        languages=tuple(task.removeprefix(prefix) for task in tasks),
        published_sha256=about.get("data_sha256", {}),
        file=path,
    )


class _Loader(yaml.SafeLoader):
    """Safe YAML that keeps `!function` tags as text."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))
