"""What others link to: descriptions of pages, feed, sitemap, badges, citations, the data; hostile names inert."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import board_sample as sample
import pytest
from reading import HOSTILE, pages, read

from fairspec_bench.site import build_site
from fairspec_bench.site.address import Address
from fairspec_bench.site.board import Entry
from fairspec_bench.site.downloads import BoardFile

FEW: dict[str, Any] = {"prompts": 8, "languages": ("en", "ja", "th")}
BASE = "https://host.example/board/"
ATOM = "{http://www.w3.org/2005/Atom}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two plain submissions, one audited, and one of hostile words."""
    out = tmp_path_factory.mktemp("sharing") / "site"
    audited = sample.verified("audited", 1, **FEW)
    bad = {"name": HOSTILE[:80], "authors": [HOSTILE], "description": HOSTILE}
    hostile = sample.verified("hostile", 2, submission=bad, **FEW)
    entries = [
        Entry("plain", sample.verified("plain", 3, **FEW)),
        Entry("audited", audited, (), sample.audit(audited)),
        Entry("hostile", hostile, (), sample.audit(hostile, date=HOSTILE)),
    ]
    build_site([], out, tracks=[sample.track(baseline="plain")], entries=entries, address=Address(BASE))
    return out


def meta(page: Any, name: str) -> str:
    (found,) = (a["content"] for _, a in page.elements if name in (a.get("property"), a.get("name")))
    return str(found)


def test_every_page_has_a_title_a_text_and_an_address_of_its_own(site: Path) -> None:
    found = {name: page for name, page in pages(site).items() if name != "404.html"}
    for name, page in found.items():
        assert meta(page, "og:url") == f"{BASE}{name}"
        assert [a["href"] for _, a in page.elements if a.get("rel") == "canonical"] == [f"{BASE}{name}"]
        assert meta(page, "og:title")
        assert meta(page, "description") == meta(page, "og:description")
    assert len({meta(page, "description") for page in found.values()}) == len(found)
    assert "Japanese" in meta(found["languages/ja.html"], "description")
    assert "rank" in meta(found["submissions/plain.html"], "description")


def test_the_sitemap_lists_every_page_but_the_missing_one(site: Path) -> None:
    urls = [e.text for e in ElementTree.parse(site / "sitemap.xml").iter() if e.tag.endswith("loc")]
    assert urls == sorted(f"{BASE}{name}" for name in pages(site) if name != "404.html")
    assert f"Sitemap: {BASE}sitemap.xml" in (site / "robots.txt").read_text()


def test_the_feed_has_submissions_and_audits_with_days_newest_first(site: Path) -> None:
    feed = ElementTree.parse(site / "feed.xml").getroot()
    entries = feed.findall(f"{ATOM}entry")
    days = [entry.findtext(f"{ATOM}updated") or "" for entry in entries]
    assert len(entries) == 3 + 1  # an audit without a day is left out
    assert days == sorted(days, reverse=True)
    assert all(len(day) == len("2026-11-21T00:00:00Z") for day in days)
    ids = [entry.findtext(f"{ATOM}id") for entry in entries]
    assert len(set(ids)) == len(ids)
    assert any("<script>" in (entry.findtext(f"{ATOM}title") or "") for entry in entries)  # as text
    assert not list(feed.iter("script"))


def test_badges_tell_ranks_and_who_checked_them(site: Path) -> None:
    badge = ElementTree.parse(site / "badges" / "audited.svg").getroot()
    words = [e.text or "" for e in badge.iter() if e.tag.endswith("text")]
    assert words[0] == "fairspec-bench"
    assert words[1].endswith("(drafts audited, unseen prompts audited)")
    assert "rank" in words[1]
    assert "of 3 in embedded_math" in words[1]
    assert "(self-reported)" in (site / "badges" / "plain.svg").read_text(encoding="utf-8")


def test_a_citation_names_the_bytes_and_holds_no_command(site: Path) -> None:
    words = read(site / "submissions" / "hostile.html").words
    start = words.index("@misc{fairspec_hostile")
    cited = words[start : words.index("\n}", start)]
    assert f"{BASE}submissions/hostile.html" in cited
    assert cited.count("{") - 1 == cited.count("}")
    assert "\\" not in cited
    assert "Manifest SHA-256" in cited


def test_the_data_are_described_in_croissant_by_their_very_bytes(site: Path) -> None:
    made = json.loads((site / "croissant.json").read_text())
    (file,) = made["distribution"]
    assert file["sha256"] == hashlib.sha256((site / "board.csv").read_bytes()).hexdigest()
    header = next(csv.reader((site / "board.csv").read_text(encoding="utf-8").splitlines()))
    assert [each["source"]["extract"]["column"] for each in made["recordSet"][0]["field"]] == header


def test_board_json_is_what_its_schema_says(site: Path) -> None:
    raw = (site / "board.json").read_bytes()
    BoardFile.model_validate_json(raw)
    schema = json.loads((site / "schemas" / "board.json").read_text())
    data = json.loads(raw)
    assert set(schema["required"]) == set(data) == set(schema["properties"])
    assert set(schema["$defs"]["EntryFigures"]["required"]) <= set(data["entries"][0])
    assert data["date"].startswith("20")


def test_without_an_address_there_is_no_feed_and_nothing_absolute(tmp_path: Path) -> None:
    entry = Entry("plain", sample.verified("plain", 3, **FEW))
    build_site([], tmp_path / "site", tracks=[sample.track()], entries=[entry])
    assert not (tmp_path / "site" / "feed.xml").exists()
    assert not [a for _, a in read(tmp_path / "site" / "index.html").elements if a.get("rel") == "canonical"]
