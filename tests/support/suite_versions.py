"""What each version of a suite asks, as hashes in `tasks/versions.json`: a changed prompt is a new version.

`python tests/support/suite_versions.py` writes down the hashes of versions that have none yet; it changes no other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

from fairspec_bench.schemas.io import write_atomic
from fairspec_bench.schemas.prompts import Prompt
from fairspec_bench.suites.listing import SuiteInfo, list_suites, tasks_folder
from fairspec_bench.suites.sources import registry
from fairspec_bench.suites.sources.base import Data, Item
from fairspec_bench.suites.suite import load_suite

LEDGER = Path(__file__).resolve().parents[2] / "tasks" / "versions.json"
MADE_UP = Data(
    test=tuple(Item(k, f"made-up/{k}", f"Question {k}?", str(k)) for k in range(2)),
    shots=tuple(Item(k, f"made-up/shot-{k}", f"Shot {k}?", str(k), f"Reasoning {k}.") for k in range(8)),
)
"""Stands for data from elsewhere, whose own hash is in the group file: templates are hashed without having it."""

Versions = Mapping[str, Mapping[str, Mapping[str, str]]]


def asked(info: SuiteInfo) -> dict[str, str]:
    """By language, a hash of all that decides what a suite asks: text, chat, stop strings, max_new_tokens and data."""
    filed = (path.stem.removeprefix(f"fairspec_{info.name}_") for path in _files(info))
    names = sorted({*filed, *info.languages})
    ours = info.home.startswith("in the package")
    load = registry.load if ours else lambda suite, language: MADE_UP
    with patch.object(registry, "load", load), patch.object(registry, "every_language", lambda suite: names):
        languages = None if set(names) == set(info.languages) else names
        plain, chat = (load_suite(info.name, languages=languages, apply_chat_template=turns) for turns in (False, True))
    found = {}
    for language in plain.languages:
        prompts = [each for suite in (plain, chat) for each in suite.prompts if each.language == language]
        pinned = plain.data_sha256[language] if ours else info.published_sha256.get(language, "")
        found[language] = hashlib.sha256("\x1e".join([*map(_text, prompts), pinned]).encode()).hexdigest()
    return found


def _files(info: SuiteInfo) -> list[Path]:
    return list((tasks_folder() / info.name).glob(f"fairspec_{info.name}_*.yaml"))


def _text(prompt: Prompt) -> str:
    turns = [(turn.role, turn.content) for turn in prompt.messages or ()]
    return json.dumps([prompt.text, turns, prompt.stops, prompt.max_new_tokens])


def read_ledger() -> Versions:
    return json.loads(LEDGER.read_text(encoding="utf-8")) if LEDGER.exists() else {}


def fault(info: SuiteInfo, found: Mapping[str, str], ledger: Versions) -> str | None:
    """What is wrong with a suite that asks `found`, in one line; None if its version says so."""
    known = ledger.get(info.name, {}).get(info.version)
    write = "run python tests/support/suite_versions.py"
    if known is None:
        return f"{info.name} {info.version} is not in tasks/versions.json: {write}."
    differing = sorted(name for name in {*known, *found} if known.get(name) != found.get(name))
    if not differing:
        return None
    folder = f"tasks/{info.name}"
    where = f"{folder}.yaml" if info.file.stem == info.name else f"{folder}.base and {folder}/_group.yaml"
    later = f"{int(float(info.version)) + 1}.0"
    return (
        f"prompts of {info.name} changed ({', '.join(differing)}): raise its version from {info.version} to {later} in "
        f"{where}, then {write}."
    )


def main() -> None:
    ledger = {name: dict(versions) for name, versions in read_ledger().items()}
    for info in list_suites():
        known = ledger.setdefault(info.name, {})
        if info.version not in known:
            known[info.version] = asked(info)
    write_atomic(LEDGER, json.dumps(ledger, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
