"""The token viewer: what became of each token, letters that are never taken apart, hostile guesses as text."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import board_sample as sample
import pytest
import regex
from reading import assert_all_inert, assert_links_hold, assert_well_made, read

from fairspec_bench.metrics.acceptance import blocks_from_matches
from fairspec_bench.site import build_site
from fairspec_bench.site.board import Entry
from fairspec_bench.site.tokens import Stretch, fates, stretches

ROOT = Path(__file__).parents[2]
FEW: dict[str, Any] = {"prompts": 6, "languages": ("en", "te", "th")}


def test_each_token_has_the_fate_that_its_block_gives_it() -> None:
    ids = [9, 1, 2, 3, 4, 5, 6, 7]
    assert fates(ids, [1, 2, 3, 4, 0, 6, 7], 4) == ["prefill", *["guessed"] * 4, "rejected", "guessed", "guessed"]
    assert fates(ids, [1, 2, 3, 4, 5, 6, 7], 2) == ["prefill", *["guessed", "guessed", "free"] * 2, "guessed"]
    assert fates(ids, [0] * 7, 4) == ["prefill", *["rejected"] * 7]
    assert fates([9], [], 4) == ["prefill"]


@pytest.mark.parametrize("gamma", [1, 2, 4, 7])
def test_calls_are_the_tokens_that_no_guess_gave(gamma: int) -> None:
    """Every block but one cut by the end of the text ends in a token of the verifier's own."""
    ids = list(range(50))
    drafts = [token if token % 3 or token % 5 else 99 for token in ids[1:]]
    known = fates(ids, drafts, gamma)
    blocks = blocks_from_matches([d == t for d, t in zip(drafts, ids[1:], strict=True)], gamma)
    assert len(known) == len(ids)
    assert len(blocks) - sum(fate in ("rejected", "free") for fate in known) in (0, 1)


@pytest.mark.parametrize("word", ["చల్లని", "ক্ষমতা", "ที่นี่", "語", "é", "👩‍👩‍👧"])
def test_a_letter_of_several_tokens_is_never_taken_apart(word: str) -> None:
    """A token a byte: the harshest cut there is."""
    pieces = [bytes([byte]) for byte in word.encode()]
    known = ["guessed"] * len(pieces)
    known[len(pieces) // 2] = "rejected"
    found = list(stretches(pieces, known, ["x"] * len(pieces)))  # type: ignore[arg-type]
    assert "".join(part.text for part in found) == word
    clusters = regex.findall(r"\X", word)
    ends = set(accumulate(map(len, clusters)))
    assert set(accumulate(len(part.text) for part in found)) <= ends
    assert [part.guess for part in found if part.fate == "rejected"] == ["x"]
    assert all(part.guess == "" for part in found if part.fate != "rejected")


def test_the_costliest_fate_colours_a_letter_that_tokens_share() -> None:
    pieces = ["ల".encode(), "్ల".encode(), b"a", b""]
    found = list(stretches(pieces, ["guessed", "free", "guessed", "rejected"], ["", "", "", "y"]))
    assert found == [Stretch("ల్ల", "free"), Stretch("a", "guessed")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline and one tuned from it, whose drafts are those of two committed submissions."""
    out = tmp_path_factory.mktemp("tokens") / "site"
    tuned = {"fine_tuned_from": "plain", "method": "s-cdf"}
    entries = [
        Entry("plain", sample.verified("plain", 1, **FEW), folder=ROOT / "submissions" / "plain"),
        Entry("s-cdf", sample.verified("s-cdf", 2, drafter=tuned, **FEW), folder=ROOT / "submissions" / "s-cdf"),
        Entry("bare", sample.verified("bare", 3, **FEW)),
    ]
    build_site([], out, tracks=[sample.track(baseline="plain")], entries=entries)
    return out


def test_every_language_stands_beside_the_others_before_and_after(site: Path) -> None:
    found = sorted((site / "tokens").glob("*.html"))
    assert len(found) == 6  # two suites, three problems
    for path in found:
        page = read(path)
        assert_well_made(path.name, page)
        codes = [attrs["lang"] for tag, attrs in page.elements if attrs.get("class") == "tokens"]
        assert len(codes) == 22
        assert codes[::2] == codes[1::2]
    words = " ".join(read(site / "tokens" / "embedded-embedded-story-3.html").words.split())
    assert "tokens in" in words
    assert "licence" in words
    assert_all_inert(site)
    assert_links_hold(site)


def test_a_rejected_token_tells_its_guess_to_pointer_and_keyboard(site: Path) -> None:
    page = read(site / "tokens" / "embedded-embedded-math-1.html")
    rejected = [attrs for _, attrs in page.elements if attrs.get("class") == "rejected" and "tabindex" in attrs]
    assert len(rejected) > 50
    assert all(attrs["tabindex"] == "0" and attrs["data-guess"] for attrs in rejected)


def test_the_text_is_that_of_the_tokenizer(site: Path) -> None:
    from fairspec_bench.models.codec import Codec
    from fairspec_bench.suites.tracks import load_track, load_track_pieces, load_track_references

    track = load_track("embedded")
    pieces, codec = load_track_pieces(track), Codec(track.verifier)
    for reference in list(load_track_references(track).values())[::50]:
        assert b"".join(pieces[token] for token in reference.ids).decode() == codec.decode(reference.ids)


def test_without_drafts_or_pieces_there_is_no_viewer(tmp_path: Path) -> None:
    bare = Entry("plain", sample.verified("plain", 1, **FEW))
    build_site([], tmp_path / "site", tracks=[sample.track(baseline="plain")], entries=[bare])
    assert not (tmp_path / "site" / "tokens").exists()
