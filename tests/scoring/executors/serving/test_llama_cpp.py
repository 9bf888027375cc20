"""The embedded pair on llama.cpp's own server, converted to GGUF in float32: `make servers` runs these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp")

from gguf_model import llama_server, write_gguf

import fairspec_bench as fairspec
from fairspec_bench.api.experiments import agreement_page
from fairspec_bench.models.hub import locate
from fairspec_bench.schemas.base import FairspecError

pytestmark = pytest.mark.servers
PAIR = ("embedded:verifier", "embedded:drafter")
GAMMA = 4
ASKED: dict[str, Any] = {
    "languages": ("en", "sw"),
    "limit": 3,
    "gamma": GAMMA,
    "race_prompts": 3,
    "race_rounds": 1,
    "race_width": 0.0,
    "backend": "llamacpp",
}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gguf")
    verifier, drafter = (write_gguf(locate(name).folder, folder / f"{name[9:]}.gguf") for name in PAIR)
    with llama_server(verifier, None, GAMMA) as plain, llama_server(verifier, drafter, GAMMA) as drafted:
        yield {"model_args": {"base_url": plain}, "drafter_args": {"base_url": drafted}}


@pytest.fixture(scope="module")
def scored(addresses: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored") / "run"
    fairspec.run(*PAIR, ["embedded_math"], out, **ASKED, **addresses)
    return out


def test_texts_rounds_and_drafts_are_ours_and_each_missing_accepted_draft_is_an_end_of_text(scored: Path) -> None:
    """llama.cpp leaves out an accepted draft that ends the text before position γ; all else agrees."""
    found = fairspec.agree(scored)
    timed = [json.loads(line) for line in (scored / "race.jsonl").read_text().splitlines()]
    counters = {line["key"]: line["counters"] for line in timed if line["mode"] == "speculative"}
    missing = dict.fromkeys(counters, 0)
    for task in found.tasks:
        assert task.prompts == task.same_text == task.same_text_drafted == 3
        assert (task.served.rounds, task.served.drafts) == (task.live.rounds, task.live.drafts)
        fewer = sum(task.live.accepted_by_position) - sum(task.served.accepted_by_position)
        differing = [each for each in task.differences if each.what == "rounds"]
        assert len(differing) == len(task.differences) == fewer == task.prompts - task.same_rounds
        missing.update({each.key: 1 for each in differing})
    assert missing == {key: int(ended) for key, ended in _ended_by_a_draft(scored).items()}
    assert "llama.cpp and our loop counted other" in agreement_page(found)


def _ended_by_a_draft(scored: Path) -> dict[str, bool]:
    """Whether the last token of each text was an accepted draft before position γ, by our own decode of the pair."""
    ours = scored.parent / "ours"
    fairspec.run(*PAIR, ["embedded_math"], ours, **{**ASKED, "backend": "eager"}, cache=None)
    timed = [json.loads(line) for line in (ours / "race.jsonl").read_text().splitlines()]
    last = {line["key"]: line["blocks"][-1] for line in timed if line["mode"] == "speculative"}
    return {key: block["accepted"] == block["emitted"] < GAMMA for key, block in last.items()}


def test_the_report_has_acceptance_by_its_own_counts(scored: Path) -> None:
    report = fairspec.report(scored)
    assert any(note.startswith("decoded by llama.cpp") for note in report.notes)
    for task in report.suites[0].tasks:
        observed = task.measures["acceptance_observed"]
        assert observed.value is not None
        assert 0 < observed.value < 1
        assert task.measures["speedup"].value is not None
    timed = [json.loads(line) for line in (scored / "race.jsonl").read_text().splitlines()]
    assert all(line.get("diverged_at") is None for line in timed)


def test_servers_in_each_others_place_are_refused(addresses: dict[str, Any], scored: Path, tmp_path: Path) -> None:
    drafted = addresses["drafter_args"]
    with pytest.raises(FairspecError, match="speculates, so it is no baseline"):
        fairspec.run(*PAIR, ["embedded_math"], tmp_path, **ASKED, model_args=drafted, drafter_args=drafted)
