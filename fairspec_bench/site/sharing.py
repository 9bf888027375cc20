"""What others link to, embed, cite and follow: badges, citations, the feed, and the description of the data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fairspec_bench.reporting.escape import inert
from fairspec_bench.reporting.svg import element, join
from fairspec_bench.site.address import Address
from fairspec_bench.site.board import Board, Candidate
from fairspec_bench.site.downloads import COLUMNS
from fairspec_bench.site.labels import span
from fairspec_bench.site.stories import DAY

LETTER = 7  # pixels of a letter of a badge, at most
NUMBERS = ("gamma", "value", "low", "high")  # columns of board.csv


# --------------------------------------------------------------------------- badges and citations


def badge_words(board: Board, candidate: Candidate) -> str:
    """The ranks of a submission in each suite, `rank 1–2 of 7 in mgsm`; empty where it has none."""
    found = []
    for suite in board.suites:
        placed = board.places(suite).get(candidate.slug)
        if placed is not None:
            ranks = span(placed.standing.low, placed.standing.high)
            found.append(f"rank {ranks} of {len(board.ranked(suite))} in {suite}")
    return "; ".join(found)


def badges(boards: Sequence[Board]) -> dict[str, str]:
    """A picture of its ranks for each ranked submission, to embed elsewhere."""
    return {
        f"badges/{each.slug}.svg": _badge(words + (" (audited)" if each.audited else " (self-reported)"))
        for board in boards
        for each in board.candidates
        if (words := badge_words(board, each))
    }


def _badge(words: str) -> str:
    left, right = LETTER * len("fairspec-bench") + 12, LETTER * len(words) + 12
    parts = [
        element("title", f"fairspec-bench: {words}"),
        element("rect", width=left + right, height=20, rx=3, fill="#17191e"),
        element("rect", x=left, width=right, height=20, rx=3, fill="#005c94"),
        element("text", "fairspec-bench", x=6, y=14),
        element("text", words, x=left + 6, y=14),
    ]
    frame = f'width="{left + right}" height="20" role="img" fill="#fff" font-family="Verdana,sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>{join(parts)}</svg>\n'


def bibtex(board: Board, candidate: Candidate, address: Address) -> tuple[str, ...]:
    """The lines of one submission's entry for a bibliography: who, which track, which bytes, where."""
    entry = candidate.verified.entry
    fields = {
        "title": f"{entry.name}: a drafter on the track {board.track.name} of fairspec-bench",
        "author": " and ".join(f"{{{_plain(author)}}}" for author in entry.authors),
        "note": f"Manifest SHA-256 {candidate.verified.manifest_sha256}",
        "url": f"{address.base_url}{candidate.page}" if address.base_url else entry.url,
    }
    lines = (f"  {name:6} = {{{text if name == 'author' else _plain(text)}}}," for name, text in fields.items())
    key = re.sub("[^a-z0-9]", "_", candidate.slug)
    return (f"@misc{{fairspec_{key},", *lines, "}")


def _plain(text: str) -> str:
    """Text without what TeX reads as a command."""
    return re.sub(r"[\\\\{}$%#&~^]", " ", inert(text))


# --------------------------------------------------------------------------- the feed


@dataclass(frozen=True)
class FeedEntry:
    """A submission measured, or audited, on a day."""

    title: str
    page: str
    day: str
    author: str
    kind: str


def events(boards: Sequence[Board]) -> list[FeedEntry]:
    """Submissions by the day of their last run, and audits; the newest first. What has no day is left out."""
    return sorted(_events(boards), key=lambda event: (event.day, event.page, event.kind), reverse=True)


def _events(boards: Sequence[Board]) -> Iterator[FeedEntry]:
    for board in boards:
        for each in board.candidates:
            entry, audit = each.verified.entry, each.entry.audit
            day = max((machine.started[:10] for machine in each.run.report.environments), default="")
            if DAY.fullmatch(day):
                title = f"{entry.name} on {board.track.title}"
                yield FeedEntry(title, each.page, day, ", ".join(entry.authors), "submission")
            if audit is not None and DAY.fullmatch(audit.date):
                verdict = "audited" if each.audited else f"audit differs: {each.reason}"
                yield FeedEntry(f"{entry.name}: {verdict}", each.page, audit.date, audit.auditor, "audit")


# --------------------------------------------------------------------------- the data


def croissant(csv: str, day: str, address: Address) -> str:
    """board.csv described in Croissant (JSON-LD), the format in which data sets are found and loaded."""
    field = [
        {
            "@type": "cr:Field",
            "@id": f"figures/{name}",
            "name": name,
            "dataType": "sc:Float" if name in NUMBERS else "sc:Text",
            "source": {"fileObject": {"@id": "board.csv"}, "extract": {"column": name}},
        }
        for name in COLUMNS
    ]
    made: dict[str, Any] = {
        "@context": {
            "@vocab": "https://schema.org/",
            "@language": "en",
            "sc": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "conformsTo": "http://purl.org/dc/terms/conformsTo",
            "recordSet": "cr:recordSet",
            "field": "cr:field",
            "source": "cr:source",
            "extract": "cr:extract",
            "column": "cr:column",
            "fileObject": "cr:fileObject",
            "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        },
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "fairspec-bench-board",
        "description": "Acceptance, speed and fairness of speculative decoding by language, with 95 % intervals.",
        "license": "https://spdx.org/licenses/Apache-2.0.html",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "board.csv",
                "name": "board.csv",
                "contentUrl": f"{address.base_url}board.csv",
                "encodingFormat": "text/csv",
                "sha256": hashlib.sha256(csv.encode()).hexdigest(),
            }
        ],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "figures", "name": "figures", "field": field}],
    }
    made |= {"datePublished": day} if day else {}
    made |= {"url": address.base_url} if address.base_url else {}
    return json.dumps(made, indent=1) + "\n"
