"""What the verifier wrote, token by token, and which tokens the drafter had guessed: the viewer's rows.

Greedy decoding is replayed exactly from the references and the drafts of a submission; no model and no tokenizer is
needed, since a track keeps the bytes of its tokens. A colour is that of a whole grapheme cluster: a letter of Telugu,
Bengali or Thai that several tokens make is never taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

import regex

from fairspec_bench.metrics.acceptance import blocks_from_matches
from fairspec_bench.schemas.keys import PromptKey, Task
from fairspec_bench.site.board import Board, Candidate
from fairspec_bench.submissions.check import read_replays
from fairspec_bench.suites.listing import list_suites
from fairspec_bench.suites.tracks import TrackReference, load_track_pieces, load_track_references

Fate = Literal["prefill", "guessed", "rejected", "free"]
CHOSEN = ("lowest acceptance", "median", "first")
LONGEST = 400  # tokens of a text that is shown


@dataclass(frozen=True)
class Stretch:
    """Grapheme clusters of one fate. `guess` is what the drafter had proposed instead of a rejected one's token."""

    text: str
    fate: Fate
    guess: str = ""


@dataclass(frozen=True)
class Row:
    """One text by one drafter."""

    code: str
    candidate: Candidate
    tokens: int
    calls: int
    stretches: tuple[Stretch, ...]


def fates(ids: Sequence[int], drafts: Sequence[int], gamma: int) -> list[Fate]:
    """What became of each token of a greedy output: its first comes from the prompt's pass, a block's last is free.

    `drafts[i]` is the draft for output position i + 2. A block's last token is "rejected" where a wrong draft stood.
    """
    matches = [draft == token for draft, token in zip(drafts, ids[1:], strict=True)]
    found: list[Fate] = ["prefill"]
    for block in blocks_from_matches(matches, gamma):
        found += ["guessed"] * min(block.accepted, block.emitted)
        if block.emitted > block.accepted:
            found.append("rejected" if not matches[len(found) - 1] else "free")
    return found


def stretches(pieces: Sequence[bytes], known: Sequence[Fate], guesses: Sequence[str]) -> Iterator[Stretch]:
    """The text of these tokens by grapheme cluster; one that several tokens make has the costliest of their fates."""
    text = b"".join(pieces).decode("utf-8", errors="replace")
    owner = [token for token, piece in enumerate(pieces) for _ in piece]
    parts, at = [], 0
    for cluster in regex.findall(r"\X", text):
        size = len(cluster.encode())
        owners = sorted(set(owner[at : at + size])) or [len(pieces) - 1]
        costliest = max(owners, key=lambda token: COST[known[token]])
        parts.append((cluster, known[costliest], guesses[costliest] if known[costliest] == "rejected" else ""))
        at += size
    for (fate, guess), run in groupby(parts, key=lambda part: part[1:]):
        yield Stretch("".join(cluster for cluster, *_ in run), fate, guess)


COST: Mapping[Fate, int] = {"prefill": 0, "guessed": 1, "free": 2, "rejected": 3}


@dataclass(frozen=True)
class Viewer:
    """One problem of one suite in every language, by the baseline and by the best of those fine-tuned from it."""

    board: Board
    suite: str
    number: str
    chosen: str
    rows: tuple[Row, ...]
    licence: str
    home: str

    @property
    def page(self) -> str:
        return f"tokens/{self.board.slug}-{self.suite.replace('_', '-')}-{CHOSEN.index(self.chosen) + 1}.html"


class TrackTexts:
    """The texts of one track and the drafts for them; nothing where the track keeps no pieces or was not greedy."""

    def __init__(self, board: Board) -> None:
        self.board = board
        track = board.track
        usable = track.sampling.greedy and track.reference_sha256 is not None
        self.pieces = load_track_pieces(track) if usable and board.baseline is not None else {}
        self.references: Mapping[str, TrackReference] = load_track_references(track) if self.pieces else {}

    @cached_property
    def licences(self) -> Mapping[str, tuple[str, str]]:
        return {info.name: (info.licence, info.home) for info in list_suites()}

    def viewers(self) -> Iterator[Viewer]:
        if self.pieces:
            for suite in self.board.suites:
                yield from self._viewers(suite)

    def drafters(self, suite: str) -> list[Candidate]:
        """The baseline, and the highest ranked that is not the baseline; both with drafts at hand."""
        base = self.board.baseline
        others = [p.candidate for p in self.board.ranked(suite) if p.candidate is not base]
        tuned = [each for each in others if self.board.parent(each) is base] or others
        return [each for each in (base, *tuned[:1]) if each is not None and each.entry.folder is not None]

    def _viewers(self, suite: str) -> Iterator[Viewer]:
        drafters = self.drafters(suite)
        drafts = {each.slug: self._drafts(each) for each in drafters}
        if not drafters:
            return
        licence, home = self.licences.get(suite, ("", ""))
        for chosen, number in zip(CHOSEN, self._numbers(suite, drafters[0]), strict=False):
            keys = sorted(k for k in self.references if PromptKey(k).suite == suite and PromptKey(k).number == number)
            rows = [
                self._row(key, each, drafts[each.slug][key])
                for key in keys
                for each in drafters
                if key in drafts[each.slug]
            ]
            if rows:
                yield Viewer(self.board, suite, number, chosen, tuple(rows), licence, home)

    def _drafts(self, candidate: Candidate) -> Mapping[str, Sequence[int]]:
        folder = candidate.entry.folder
        return {} if folder is None else {k: r.draft_ids for k, r in read_replays(folder, self.references).items()}

    def _numbers(self, suite: str, base: Candidate) -> list[str]:
        """The problems with the lowest and the median acceptance of the baseline over the languages, and the first."""
        sums = base.verified.sums
        totals: dict[str, tuple[float, float]] = {}
        columns = zip(sums.keys, sums.columns["alpha"], sums.columns["contexts"], strict=True)
        for key, alpha, contexts in columns:
            if PromptKey(key).suite == suite and alpha is not None and contexts:
                a, b = totals.get(PromptKey(key).number, (0.0, 0.0))
                totals[PromptKey(key).number] = (a + alpha / contexts, b + 1)
        order = sorted(totals, key=lambda number: (totals[number][0] / totals[number][1], number))
        return [order[0], order[len(order) // 2], min(order, key=lambda number: (len(number), number))] if order else []

    def _row(self, key: str, candidate: Candidate, drafts: Sequence[int]) -> Row:
        ids = self.references[key].ids
        known = fates(ids, drafts, self.board.track.gamma)
        guesses = ["", *(self._word(draft) for draft in drafts)]
        calls = len(blocks_from_matches([d == t for d, t in zip(drafts, ids[1:], strict=True)], self.board.track.gamma))
        shown = [self.pieces.get(token, b"\xef\xbf\xbd") for token in ids[:LONGEST]]
        parts = tuple(stretches(shown, known, guesses))
        return Row(Task(PromptKey(key).task).language, candidate, len(ids), calls, parts)

    def _word(self, token: int) -> str:
        """A token as text; one that is no whole character by its bytes."""
        piece = self.pieces.get(token)
        if piece is None:
            return f"token {token}"
        try:
            return piece.decode("utf-8") or "end of text"
        except UnicodeDecodeError:
            return f"part of a character ({piece.hex(' ')})"
