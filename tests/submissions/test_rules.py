"""The rules of a line on real races, with sampling, and its bounds against distributions drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.lines import Answer, Block, Reference, Replay, Timing
from fairspec_bench.scoring.reference_packs import references_of
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.submissions.findings import Findings
from fairspec_bench.submissions.rules import (
    Place,
    check_divergences,
    check_race,
    check_replay,
    check_timing,
    matches,
    most_distance,
)
from fairspec_bench.suites.tracks import Divergence, Track, TrackReference, load_track

RACED = Path(__file__).parents[2] / "docs" / "results" / "ntrex-mgsm"


@pytest.fixture(scope="module")
def folder() -> RunFolder:
    return RunFolder(RACED)


@pytest.fixture(scope="module")
def track(folder: RunFolder) -> Track:
    """A track of the raced pair, as far as the algebra asks."""
    changes = {"gamma": folder.config.gamma, "sampling": folder.config.sampling, "vocabulary": 10**6}
    return load_track("embedded").model_copy(update=changes)


def test_a_real_race_on_a_real_pair_is_sound(folder: RunFolder, track: Track) -> None:
    references = {reference.key: reference for reference in folder.lines("reference", Reference)}
    replays = {replay.key: replay for replay in folder.lines("replay", Replay)}
    track_references = {track_reference.key: track_reference for track_reference in references_of(RACED)}
    findings = Findings()
    for key, replay in replays.items():
        check_replay(replay, references[key], track_references[key], track, Place(findings, key, 1))
    raced: dict[str, list[Timing]] = {}
    for timing in folder.lines("race", Timing):
        check_timing(
            timing,
            references[timing.key],
            replays[timing.key],
            track,
            drafts_each=True,
            at=Place(findings, timing.key, 1),
        )
        raced.setdefault(timing.key, []).append(timing)
    for key, timings in raced.items():
        check_race(timings, folder.config.race_rounds, folder.config.seed, key, Place(findings, key, 1))
    assert len(raced) > 10
    assert [str(finding) for finding in findings.kept[:5]] == []


def _codes(replay: Replay, reference: Reference, track: Track) -> set[str]:
    findings = Findings()
    track_reference = TrackReference(
        key=reference.key,
        cluster="c",
        prompt_sha=reference.prompt_sha,
        ids=reference.ids,
        finish=reference.finish,
        verifier_entropy=replay.verifier_entropy,
        answer=Answer(key=reference.key, correct=None, language=None, looping=False, chars=0, bytes=0),
    )
    check_replay(replay, reference, track_reference, track, Place(findings, "replay.jsonl", 1))
    return {finding.code for finding in findings.kept}


def test_a_sampled_replay_needs_a_beta_for_every_context(folder: RunFolder, track: Track) -> None:
    sampled = track.model_copy(update={"sampling": SamplingParams(temperature=1.0)})
    reference = folder.lines("reference", Reference)[0]
    replay = next(each for each in folder.lines("replay", Replay) if each.key == reference.key)
    contexts = len(reference.ids) - 1
    sound = replay.model_copy(update={"alpha": 0.4 * contexts, "beta": (0.5,) * contexts})
    assert _codes(sound, reference, sampled) == set()
    assert _codes(sound.model_copy(update={"beta": None}), reference, sampled) == {"R008"}
    assert _codes(sound.model_copy(update={"beta": (0.5,) * (contexts - 1)}), reference, sampled) == {"R008"}
    assert _codes(sound.model_copy(update={"beta": (1.5, *sound.beta[1:])}), reference, sampled) == {"R008"}
    assert _codes(sound.model_copy(update={"alpha": 1.1 * contexts}), reference, sampled) == {"R003"}


@pytest.mark.parametrize(
    ("gaps", "found"),
    [
        ((0.0, 0.0, 0.0, 0.0), 0),
        ((0.01, 0.0, 0.0, 0.0), 0),  # one near-tie in four prompts is allowed
        ((0.01, 0.01, 0.0, 0.0), 1),  # two are not
        ((0.2, 0.0, 0.0, 0.0), 1),  # nor one that is no near-tie
        ((None, 0.0, 0.0, 0.0), 1),
    ],
)
def test_the_verifier_may_depart_by_rounding_only(
    gaps: tuple[float | None, ...], found: int, folder: RunFolder
) -> None:
    findings, replay = Findings(), folder.lines("replay", Replay)[0]
    lines = [
        replay.model_copy(update={"divergences": None if gap is None else int(gap > 0), "largest_gap": gap})
        for gap in gaps
    ]
    placed = [(line, Place(findings, "replay.jsonl", number)) for number, line in enumerate(lines, 1)]
    check_divergences(placed, Divergence(gap=0.05, share=0.25), SamplingParams())
    assert [finding.code for finding in findings.kept] == ["T005"] * found
    check_divergences(placed, None, SamplingParams())
    check_divergences(placed, Divergence(gap=0.0, share=0.0), SamplingParams(temperature=1.0))
    assert len(findings.kept) == found


def test_a_drafter_without_a_proper_q_is_checked_by_its_drafts_alone(folder: RunFolder, track: Track) -> None:
    reference = folder.lines("reference", Reference)[0]
    replay = next(each for each in folder.lines("replay", Replay) if each.key == reference.key)
    bare = replay.model_copy(update={"overlap": None, "kl": None, "cross_entropy": None})
    assert _codes(bare, reference, track) == set()
    assert _codes(bare.model_copy(update={"alpha": replay.alpha + 1}), reference, track) == {"R003"}


@pytest.mark.parametrize(
    ("last", "codes"),
    [
        (Block(accepted=1, emitted=1, raw_accepted=4), set()),  # cut by the end of the text: raw verdicts go on
        (Block(accepted=0, emitted=1, raw_accepted=0), set()),
        (Block(accepted=0, emitted=1, raw_accepted=2), {"B003"}),
        (Block(accepted=1, emitted=1, raw_accepted=5), {"B003"}),
    ],
)
def test_only_the_last_block_may_be_cut(last: Block, codes: set[str], folder: RunFolder, track: Track) -> None:
    raced = [each for each in folder.lines("race", Timing) if each.mode == "speculative"]
    timing = next(each for each in raced if each.blocks[0].emitted == each.blocks[-1].emitted == 1)
    reference = next(each for each in folder.lines("reference", Reference) if each.key == timing.key)
    for place, wanted in ((-1, codes), (0, {"B003"} if last.raw_accepted else set())):
        blocks = list(timing.blocks)
        blocks[place] = last
        findings = Findings()
        changed = timing.model_copy(update={"blocks": tuple(blocks)})
        check_timing(changed, reference, None, track, drafts_each=True, at=Place(findings, "race.jsonl", 1))
        assert {finding.code for finding in findings.kept} == wanted


def test_matches_are_of_output_positions_two_on(folder: RunFolder) -> None:
    reference = Reference(key="k", prompt_sha="0", ids=(5, 6, 7, 1), finish="eos", chunk="s")
    replay = folder.lines("replay", Replay)[0].model_copy(update={"draft_ids": (6, 6, 1)})
    assert matches(replay, reference) == [True, False, True]


def test_no_pair_of_distributions_is_further_apart_than_its_kl_allows() -> None:
    """And the bound is met within 2 % somewhere, so that one twice as wide would fail."""
    dice, tightest = np.random.default_rng(0), 9.0
    for _ in range(2_000):
        p, q = dice.dirichlet(np.full(2, 5.0), size=(2, 3)).clip(1e-9)
        distance = float(np.abs(p - q).sum() / 2)
        bound = most_distance(float((p * np.log(p / q)).sum()), 3)
        assert distance <= bound + 1e-9
        tightest = min(tightest, bound / max(distance, 1e-9))
    assert tightest < 1.02
