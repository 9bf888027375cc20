"""Boards of checked submissions: who stands where and why not, page by page; hostile names inert; the same bytes."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import board_sample as sample
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from reading import (
    HOSTILE,
    Page,
    assert_all_inert,
    assert_links_hold,
    assert_well_made,
    pages,
    read,
    tree,
)
from site_sample import report, run_folder

from fairspec_bench.metrics.comparison import compare_sheets
from fairspec_bench.metrics.prompt_sums import sheets_of
from fairspec_bench.metrics.ranking import standings
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.report import Estimate
from fairspec_bench.site import build, build_site, findings, stories
from fairspec_bench.site.address import Address
from fairspec_bench.site.board import LOOPS, Board, Entry, disjoint_ranks, unsurpassed
from fairspec_bench.site.labels import Labels, name_list, unique_slugs

LANGUAGES = ("en", "ja", "th")
FEW: dict[str, Any] = {"prompts": 8, "languages": LANGUAGES}


def small(slug: str, number: int = 0, **options: Any) -> Entry:
    return sample.entry(slug, number, **(FEW | options))


def board_of(*entries: Entry, **track: Any) -> Board:
    """The board of these entries, without a site."""
    (made,), _ = build.make_boards([sample.track(**track)], entries, Labels({}, {}))
    return made


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    """Forty drafters, one audited, one changed since, one that saw the suites, two refused."""
    found = sample.many(40, **FEW)
    audited = sample.verified("audited", 901, raced=True, **FEW)
    changed = sample.verified("changed", 902, **FEW)
    return [
        *found,
        Entry("audited", audited, (), sample.audit(audited)),
        Entry("changed", changed, (), sample.audit(changed, manifest_sha256="0" * 64)),
        small("leak", 903, drafter={"trained_on_suite_data": True}),
        Entry("broken", None, ("L001 run/x.jsonl:3 key: got nothing", "P001 run/report.json")),
        Entry("Not A Slug!", None, ("its folder's name is no slug",)),
    ]


@pytest.fixture(scope="module")
def tracks() -> list[Any]:
    old = sample.track(name="old", title="An older track", archived="Its prompts changed.", baseline=None)
    return [sample.track(baseline="baseline"), old]


@pytest.fixture(scope="module")
def site(entries: list[Entry], tracks: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("boards") / "site"
    assert build_site([], out, tracks=tracks, entries=entries) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def track_page(site: Path) -> Page:
    return read(site / "tracks" / "embedded.html")


# --------------------------------------------------------------------------- every page


def test_every_page_is_well_made_and_inert(site: Path) -> None:
    found = pages(site)
    assert len([name for name in found if name.startswith("submissions/")]) == 45
    assert {f"languages/{code}.html" for code in LANGUAGES} <= set(found)
    assert {"compare.html", "languages.html", "archive.html", "tracks/embedded.html", "tracks/old.html"} <= set(found)
    for name, page in found.items():
        assert_well_made(name, page)
    assert_all_inert(site)


def test_every_link_and_fragment_holds(site: Path) -> None:
    assert assert_links_hold(site) > 3_000


def test_every_page_can_be_reached_from_the_first(site: Path) -> None:
    found, reached, left = pages(site), set[str](), ["index.html"]
    while left:
        name = left.pop()
        if name in reached or not name.endswith(".html"):
            continue
        reached.add(name)
        for href in found[name].values("href"):
            if not href.startswith(("data:", "https:")) and (path := href.partition("#")[0]):
                left.append(os.path.normpath(os.path.join(os.path.dirname(name), path)))
    assert reached == set(found) - {"404.html"}


def test_no_two_pages_have_one_title(site: Path) -> None:
    titles = [re.search("<title>(.*?)</title>", page.html, re.S)[1] for page in pages(site).values()]  # type: ignore[index]
    assert len(titles) == len(set(titles)), sorted(titles)


def test_submissions_of_one_name_and_runs_of_one_name_have_titles_of_their_own(tmp_path: Path) -> None:
    runs = [
        run_folder(tmp_path / part, "run", report(suites=("s",), languages=("en", "ja"), empty="")) for part in "ab"
    ]
    entries = [small(slug, n, submission={"name": "s-CDF"}) for n, slug in enumerate("ab")]
    build_site(runs, tmp_path / "site", tracks=[sample.track(baseline="a")], entries=entries)
    test_no_two_pages_have_one_title(tmp_path / "site")


def test_a_site_that_knows_its_address_has_a_missing_page_with_navigation(tmp_path: Path) -> None:
    address = Address("https://host.example/sub", "https://example.org/code")
    build_site([], tmp_path / "site", tracks=[sample.track()], entries=[small("a")], address=address)
    page = read(tmp_path / "site" / "404.html")
    links = [href for href in page.values("href") if not href.startswith(("data:", "#", "https:"))]
    assert {"/sub/index.html", "/sub/languages.html", "/sub/cite.html"} <= set(links)
    assert all(
        href.startswith("/sub/") and (tmp_path / "site" / href.removeprefix("/sub/")).is_file() for href in links
    )
    for wrong in ("http://host/", "javascript:alert(1)", "https://host/<b>"):
        with pytest.raises(FairspecError, match="plain https"):
            Address(wrong)


def test_uncommitted_code_is_said_to_be_unknown_even_of_an_audited_submission(tmp_path: Path) -> None:
    made = sample.verified("a", 1, **FEW)
    dirty = tuple(each.model_copy(update={"dirty": True}) for each in made.report.environments)
    made = made.model_copy(update={"report": made.report.model_copy(update={"environments": dirty})})
    build_site([], tmp_path / "site", tracks=[sample.track()], entries=[Entry("a", made, (), sample.audit(made))])
    words = read(tmp_path / "site" / "submissions" / "a.html").words
    assert "not identified: the run was made with changes that were not committed" in words
    assert "this code cannot be fetched" in words


def test_the_same_entries_in_any_order_give_the_same_bytes(
    site: Path, entries: list[Entry], tracks: list[Any], tmp_path: Path
) -> None:
    build_site([], tmp_path / "again", tracks=tracks[::-1], entries=entries[::-1])
    assert tree(tmp_path / "again") == tree(site)


def test_tables_that_sort_say_by_what_and_carry_their_values(track_page: Page) -> None:
    tables = re.findall(r"<table [^>]*data-interactive.*?</table>", track_page.html, re.S)
    assert len(tables) == 4
    for table in tables:
        assert table.count("<tbody>") == 1
        assert table.count('<tr><th scope="col"') + table.count('<td class="num rank"') >= 2
        heads = re.findall(r"<th scope=\"col\"[^>]*>", table)
        (place,) = (n for n, head in enumerate(heads) if 'aria-sort="descending"' in head)
        assert 'data-sort="number"' in heads[place]
    acceptance = track_page.table("s1-acceptance")
    values = [float(v) for v in re.findall(r'class="num main" data-value="([^"]+)"', acceptance)]
    assert len(values) == 41
    assert values == sorted(values, reverse=True)


def test_rows_carry_what_they_are_filtered_and_sorted_by(track_page: Page) -> None:
    rows = [attrs for tag, attrs in track_page.elements if tag == "tr" and "data-kind" in attrs]
    names = next(attrs["data-languages"] or "" for _, attrs in track_page.elements if "data-languages" in attrs)
    assert json.loads(names) == [["en", "English"], ["ja", "Japanese"], ["th", "Thai"]]
    assert len(rows) == 2 * 41
    assert sum("data-audited" in row for row in rows) == 2
    assert sum("data-raced" in row for row in rows) == 2 * 15
    assert all(set(json.loads(row["data-acceptance"] or "")) == set(LANGUAGES) for row in rows)
    assert {row["data-kind"] for row in rows} == {"causal model", "prompt lookup"}


def test_a_site_of_runs_alone_has_no_boards_and_one_with_both_shows_both(tmp_path: Path) -> None:
    run = run_folder(tmp_path, "mine", report(suites=("s",), languages=("en", "ja"), empty=""))
    build_site([run], tmp_path / "runs")
    names = set(pages(tmp_path / "runs"))
    assert not [name for name in names if name.startswith(("tracks/", "submissions/", "compare", "languages"))]
    build_site([run], tmp_path / "both", tracks=[sample.track()], entries=[small("a")])
    index = read(tmp_path / "both" / "index.html")
    assert "Local runs: s" in index.words
    assert "tracks/embedded.html" in index.values("href")
    assert_links_hold(tmp_path / "both")


def test_an_entry_of_an_unknown_track_and_one_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FairspecError, match="not among those of the site"):
        build_site([], tmp_path / "a", tracks=[sample.track(name="other")], entries=[small("a")])
    with pytest.raises(FairspecError, match="two of them have one slug"):
        build_site([], tmp_path / "a", tracks=[sample.track()], entries=[small("a"), small("a", 1)])


# --------------------------------------------------------------------------- who stands where


def test_ranks_are_those_of_the_paired_sums() -> None:
    entries = [small(name, number, shift=shift) for number, (name, shift) in enumerate((("low", -0.2), ("high", 0.1)))]
    board = board_of(*entries)
    suite = entries[0].verified.report.config.suites[0]  # type: ignore[union-attr]
    drafters = {each.slug: sheets_of(each.verified.sums, suite) for each in entries if each.verified}
    expected = standings(drafters, 4)
    found = {placed.candidate.slug: placed.standing for placed in board.ranked("embedded_math")}
    assert found == expected
    assert list(found) == ["high", "low"]
    assert [placed.place for placed in board.ranked("embedded_math")] == [1, 2]


def test_nobody_is_ranked_by_unfairness() -> None:
    """The less acceptance, the less U here: a board by U would be upside down."""
    entries = [small(f"e{n}", n, shift=-0.1 * n) for n in range(4)]
    for n, each in enumerate(entries):
        for suite in each.verified.report.suites:  # type: ignore[union-attr]
            suite.across["unfairness"] = Estimate(value=1.0 - 0.2 * n)
    assert [placed.candidate.slug for placed in board_of(*entries).ranked("embedded_math")] == ["e0", "e1", "e2", "e3"]


def reasons() -> Iterator[tuple[str, Entry]]:
    whole = sample.verified("x", 5, **FEW)
    yield "other reference outputs", Entry("x", whole.model_copy(update={"reference_sha256": "1" * 64}))
    yield "the manifest audited is another", Entry("x", whole, (), sample.audit(whole, manifest_sha256="0" * 64))
    yield "did not reproduce", Entry("x", whole, (), sample.audit(whole, reproduced=False))
    yield "falls on fresh prompts", Entry("x", whole, (), sample.audit(whole, generalises=False))
    yield "own prompts or answers", small("x", 5, drafter={"trained_on_suite_data": True})
    yield "a calibration of the board", small("x", 5, drafter={"kind": "oracle"})
    short = whole.sums.model_copy(update={"columns": whole.sums.columns | {"alpha": (None,) * len(whole.sums.keys)}})
    yield "no acceptance in every language", Entry("x", whole.model_copy(update={"sums": short}))


@pytest.mark.parametrize(("words_", "entry"), list(reasons()), ids=[words_ for words_, _ in reasons()])
def test_who_is_not_ranked_is_listed_with_the_reason(words_: str, entry: Entry, tmp_path: Path) -> None:
    board = board_of(small("a"), entry)
    assert [placed.candidate.slug for placed in board.ranked("embedded_math")] == ["a"]
    ((candidate, reason),) = board.unranked("embedded_math")
    assert candidate.slug == "x"
    assert words_ in reason
    build_site([], tmp_path / "site", tracks=[sample.track()], entries=[small("a"), entry])
    page = read(tmp_path / "site" / "tracks" / "embedded.html")
    assert [row for row in page.rows if len(row) == 4 and row[0].startswith("X") and words_ in row[1]]
    if candidate.reason:
        assert f"Not ranked: {reason}" in read(tmp_path / "site" / "submissions" / "x.html").words


def test_an_audit_that_ran_on_no_fresh_prompts_costs_no_rank() -> None:
    whole = sample.verified("x", 5, **FEW)
    entry = Entry("x", whole, (), sample.audit(whole, generalises=None, fresh=()))
    board = board_of(entry)
    assert board.ranked("embedded_math")[0].candidate.marks


def test_the_refused_are_on_the_first_page_and_have_one_of_their_own(site: Path) -> None:
    index = read(site / "index.html")
    row = next(row for row in index.rows if row[0] == "broken")
    assert row[1] == "L001 run/x.jsonl:3 key: got nothing (and 1 more)"
    page = read(site / "submissions" / "broken.html")
    assert "P001 run/report.json" in page.words
    assert "Refused" in page.words
    assert (site / "submissions" / "not-a-slug.html").is_file()
    assert "broken" not in read(site / "tracks" / "embedded.html").words


def test_audited_and_self_reported_are_told_apart(site: Path, track_page: Page) -> None:
    tags = {row[1].split()[0]: row[1] for row in track_page.rows if len(row) == 8}
    assert "audited" in tags["Audited"]
    assert "self-reported" not in tags["Audited"]
    assert "self-reported" in tags["Baseline"]
    audited = read(site / "submissions" / "audited.html").words
    assert "its lines were made again with the drafter named" in audited
    assert "99 % of drafts the same" in audited
    assert "Acceptance found" in audited
    plain = read(site / "submissions" / "baseline.html").words
    assert "self-reported" in plain
    assert "this drafter has not been run again yet" in plain
    assert "manifest audited is another" in read(site / "submissions" / "changed.html").words


def test_an_archived_track_keeps_its_board_and_leaves_the_first_page(site: Path) -> None:
    assert "tracks/old.html" not in read(site / "index.html").values("href")
    assert "tracks/old.html" in read(site / "archive.html").values("href")
    page = read(site / "tracks" / "old.html")
    assert "Its prompts changed." in page.words
    assert "No more submissions are accepted" in page.words


def test_a_track_that_is_not_fixed_says_so(tmp_path: Path) -> None:
    build_site([], tmp_path / "site", tracks=[sample.track(verifier_revision=None)])
    assert "accepts no submissions" in read(tmp_path / "site" / "index.html").words
    assert "verifier_revision" in read(tmp_path / "site" / "tracks" / "embedded.html").words


# --------------------------------------------------------------------------- the clock


def test_the_clock_ranks_only_races_with_a_verdict() -> None:
    entries = [
        small("slow", 1, shift=-0.2, raced=True),
        small("fast", 2, shift=0.1, raced=True),
        small("noisy", 3, shift=0.2, raced=True, quiet=False),
        small("none", 4),
    ]
    timed = board_of(*entries).timed("embedded_math")
    assert [(each.candidate.slug, each.ranks, each.reason) for each in timed] == [
        ("fast", (1, 1), ""),
        ("slow", (2, 2), ""),
        ("noisy", None, "the timer check failed"),
    ]


def test_a_race_without_an_interval_is_not_ranked_and_the_reason_given(tmp_path: Path) -> None:
    entry = small("a", 1, raced=True)
    report = entry.verified.report  # type: ignore[union-attr]
    for suite in report.suites:
        suite.across["mean_speedup"] = Estimate(value=1.2)
    config = report.config.model_copy(update={"race_prompts": 1})
    checked = entry.verified.model_copy(update={"report": report.model_copy(update={"config": config})})  # type: ignore[union-attr]
    build_site([], tmp_path / "site", tracks=[sample.track()], entries=[Entry("a", checked)])
    row = next(row for row in read(tmp_path / "site" / "tracks" / "embedded.html").rows if len(row) == 6)
    rows = [row for row in read(tmp_path / "site" / "tracks" / "embedded.html").rows if len(row) == 6]
    assert row[0] == "Rank range"
    assert rows[1][0] == "not ranked: no interval: 1 prompt a language"


def test_slow_downs_are_told_in_words_with_and_without_an_interval(tmp_path: Path) -> None:
    entry = small("a", 1, raced=True)
    changed = {"en": sample.around(0.8, 0.05), "ja": Estimate(value=0.4), "th": sample.around(0.98, 0.05)}
    for task in entry.verified.report.suites[0].tasks:  # type: ignore[union-attr]
        task.measures["speedup"] = changed[task.language]
    view = board_of(entry).by_slug["a"].views["embedded_math"]
    assert view.slower() == (("en",), ("ja",))
    build_site([], tmp_path / "site", tracks=[sample.track()], entries=[entry])
    words = read(tmp_path / "site" / "submissions" / "a.html").words
    assert "significantly slower in 1 of 3 languages: English; measured slower, without an interval, in 1 of 3" in words
    assert "significantly slower in 1 of 3" in read(tmp_path / "site" / "tracks" / "embedded.html").words


def test_ranks_from_intervals_alone_err_towards_not_told_apart() -> None:
    apart = [sample.around(v, 0.01) for v in (1.0, 2.0, 3.0)]
    assert list(disjoint_ranks(apart)) == [(3, 3), (2, 2), (1, 1)]
    touching = [sample.around(1.0, 0.1), sample.around(1.25, 0.1)]
    assert list(disjoint_ranks(touching)) == [(2, 2), (1, 1)]
    first, *_ = disjoint_ranks([*touching, *apart[1:], sample.around(4.0, 0.01)])
    assert first == (4, 5)  # wider for ten pairs
    assert list(disjoint_ranks([])) == []


def test_acceptance_and_the_clock_stand_in_tables_of_their_own(track_page: Page) -> None:
    assert "Mean speed-up" not in track_page.table("s1-acceptance")
    clock = track_page.table("s1-clock")
    assert "Mean acceptance" not in clock
    assert clock.count("<tr>") - 1 == 15  # 40 / 3 and the audited one
    assert "Times are compared within one class of hardware only: here x86_64" in track_page.words


# --------------------------------------------------------------------------- pictures and languages


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ({"a": ((1, 1), (0.4, 0.6)), "b": ((2, 2), (0.1, 0.2)), "c": ((3, 3), (0.3, 0.35))}, {"a", "b"}),
        ({"a": ((1, 2), (0.1, 0.2)), "b": ((1, 2), (0.3, 0.4))}, {"a", "b"}),  # ranks that meet: none surpasses
        ({"a": ((1, 1), (0.1, 0.3)), "b": ((2, 2), (0.2, 0.4))}, {"a", "b"}),  # intervals of U that meet
        ({"a": ((1, 1), (None, None)), "b": ((2, 2), (0.2, 0.4))}, {"a", "b"}),  # no interval: no conclusion
        ({"a": ((1, 1), (0.1, 0.1)), "b": ((2, 2), (0.2, 0.4))}, {"a"}),
        ({}, set()),
    ],
)
def test_only_a_significant_lead_in_both_surpasses(points: dict[str, Any], front: set[str]) -> None:
    given = {name: (ranks, Estimate(value=0.2, low=low, high=high)) for name, (ranks, (low, high)) in points.items()}
    assert unsurpassed(given) == front


def test_two_on_a_plane_are_no_picture_and_a_headline_names_of_whom_it_speaks() -> None:
    entries = [small(f"e{n}", n, shift=-0.1 * n, raced=n < 2) for n in range(4)]
    board = board_of(*entries)
    assert [each.place for each in findings.on_plane(board, "embedded_math", "acceptance")] == [1, 2, 3, 4]
    assert findings.on_plane(board, "embedded_math", "speedup") == []  # two raced
    words = findings.plane_headline(board, "embedded_math", "acceptance")
    assert words.endswith("of the 4 ranked.")
    assert "E0" in words


def test_a_drafter_without_a_q_is_ranked_and_not_on_the_plane() -> None:
    board = board_of(small("lookup", 1, q=False, drafter={"kind": "lookup"}), *(small(f"m{n}", n) for n in range(3)))
    assert len(board.ranked("embedded_math")) == 4
    shown = findings.on_plane(board, "embedded_math", "acceptance")
    assert {each.candidate.slug for each in shown} == {"m0", "m1", "m2"}


def test_languages_not_told_apart_from_the_lowest_are_all_named() -> None:
    entry = small("a", 1)
    suite = entry.verified.report.suites[0]  # type: ignore[union-attr]
    suite.ranks.clear()
    suite.ranks.update({"embedded_math/en": (1, 1), "embedded_math/ja": (2, 3), "embedded_math/th": (2, 3)})
    words = findings.heat_headline(board_of(entry), "embedded_math", Labels.load())
    assert words == "Lowest acceptance, or not significantly above it, in 1 of 1 submissions: Japanese and Thai."
    assert [name_list(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_a_track_of_loops_ranks_nobody_and_says_so(tmp_path: Path) -> None:
    entry = small("a", 1, raced=True)
    for task in entry.verified.report.suites[0].tasks:  # type: ignore[union-attr]
        task.measures["looping"] = Estimate(value=0.9, low=0.8, high=0.97)
    board = board_of(entry)
    assert board.ranked("embedded_math") == []
    assert board.unranked("embedded_math") == [(board.by_slug["a"], LOOPS)]
    assert [(timed.ranks, timed.reason) for timed in board.timed("embedded_math")] == [(None, LOOPS)]
    assert len(board.ranked("embedded_story")) == 1
    build_site([], tmp_path / "site", tracks=[sample.track()], entries=[entry])
    assert "no rank rests on them" in read(tmp_path / "site" / "submissions" / "a.html").words


def test_one_language_of_loops_is_in_no_mean_and_hatched(tmp_path: Path) -> None:
    entries = [small(name, number) for number, name in enumerate("ab")]
    for entry in entries:
        for task in entry.verified.report.suites[0].tasks:  # type: ignore[union-attr]
            if task.language == "th":
                task.measures["truncated"] = Estimate(value=0.51)
    board = board_of(*entries)
    (placed, _) = board.ranked("embedded_math")
    known = [placed.view.acceptance_of(code).value or 0.0 for code in ("en", "ja")]
    assert placed.standing.mean == pytest.approx(sum(known) / 2)
    build_site([], tmp_path / "site", tracks=[sample.track()], entries=entries)
    page = read(tmp_path / "site" / "tracks" / "embedded.html").html
    assert len(re.findall(r'<td class="h\d doubted"', page)) == 2


def test_the_heat_map_writes_each_figure_on_the_shade_of_its_step(track_page: Page) -> None:
    cells = re.findall(r'<td class="h(\d)"[^>]*>(\d\.\d\d)</td>', track_page.html)
    assert len(cells) == 2 * 30 * len(LANGUAGES)
    for step, figure in cells:
        assert abs(int(step) - 10 * float(figure)) <= 1.06
    assert len({step for step, _ in cells}) > 3


def test_languages_name_who_serves_them_best_in_their_own_script(site: Path) -> None:
    page = read(site / "languages" / "th.html")
    assert ("bdi", {"lang": "th"}) in page.elements
    assert "ไทย" in page.words
    assert "Highest acceptance: " in page.words
    values = [float(row[1].split()[0]) for row in page.rows if len(row) == 8 and row[1][:1].isdigit()]
    assert values[:20] == sorted(values[:20], reverse=True)
    assert ("bdi", {"lang": "ja"}) in read(site / "languages.html").elements


def test_a_submission_shows_what_a_person_waits(site: Path) -> None:
    raced, plain = (read(site / "submissions" / f"{name}.html") for name in ("baseline", "drafter-0001"))
    assert "seconds" in raced.html
    assert "calls of the verifier" not in raced.html
    assert "calls of the verifier" in plain.html
    assert all("Waiting time for one answer" in page.words for page in (raced, plain))


# --------------------------------------------------------------------------- stories


def calls(entry: Entry, **values: Estimate) -> None:
    for task in entry.verified.report.suites[0].tasks:  # type: ignore[union-attr]
        if task.language in values:
            task.measures["verifier_calls_per_answer"] = values[task.language]


def told() -> tuple[Entry, Entry]:
    base, best = small("base", 1, shift=0.0), small("best", 2, shift=0.1)
    calls(base, en=sample.around(18, 1), ja=sample.around(30, 2), th=sample.around(19, 2))
    calls(best, en=sample.around(17, 1), ja=sample.around(22, 2), th=sample.around(18, 2))
    return base, best


def test_a_story_compares_calls_with_english_and_claims_only_what_intervals_allow() -> None:
    names = Labels.load()
    board = board_of(*told(), baseline="base")
    by_code = {story.code: story for story in stories.stories(board, names) if story.suite == "embedded_math"}
    assert by_code["ja"].sentence() == (
        "Japanese: 30 calls of the big model for one answer that takes English 18, with the drafter Base. "
        "The best drafter here, Best, closes it to 22 (English 17)."
    )
    assert "(not significantly more)" in by_code["th"].sentence()
    assert "No other drafter needs significantly fewer" in by_code["th"].sentence()
    assert by_code["ja"].ratio == pytest.approx(30 / 18)
    assert by_code["th"].ratio == by_code["en"].ratio == 0.0
    assert by_code["ja"].waiting() == ""
    found = stories.finding([board], names)
    assert found is not None
    assert found.ratio == max(story.ratio for story in stories.stories(board, names))


def test_a_language_page_tells_its_story_and_the_gap_of_each_drafter(tmp_path: Path) -> None:
    base, best = told()
    for task in base.verified.report.suites[0].tasks:  # type: ignore[union-attr]
        task.measures["speedup"] = sample.around(0.8, 0.1)
    build_site([], tmp_path / "site", tracks=[sample.track(baseline="base")], entries=[base, best])
    page = read(tmp_path / "site" / "languages" / "ja.html")
    assert "Japanese: 30 calls of the big model for one answer that takes English 18" in page.words
    rows = {row[0].split()[0]: row for row in page.rows[::-1] if len(row) == 8}  # of the first suite
    assert [rows["Base"][n].split()[0] for n in (3, 4, 5)] == ["30.0", "18.0", "1.67×"]
    assert [rows["Best"][n].split()[0] for n in (3, 4, 5)] == ["22.0", "17.0", "1.29×"]
    assert "slower than no drafter" in rows["Base"][0]
    assert "slower" not in rows["Best"][0]
    assert "tokens a character" in page.words


def test_waiting_time_is_told_of_raced_drafters_with_its_doubt() -> None:
    entry = small("a", 1, raced=True)
    for task in entry.verified.report.suites[0].tasks:  # type: ignore[union-attr]
        task.measures["speedup"] = sample.around(1.0, 0.2) if task.language == "th" else sample.around(1.5, 0.1)
    names = Labels.load()
    by_code = {s.code: s.waiting() for s in stories.stories(board_of(entry), names) if s.suite == "embedded_math"}
    assert by_code["th"].endswith("the interval of the speed-up covers 1, or there is none).")
    assert re.fullmatch(r"Waiting time for one answer: \S+ s without a drafter, \S+ s with A\.", by_code["ja"])


def test_the_first_page_begins_with_the_finding_and_real_tracks(tmp_path: Path) -> None:
    real = sample.track(name="real", title="Real models", baseline=None)
    made = sample.verified("other", 5, submission={"track": "real"}, **FEW)
    model = made.report.config.verifier.model_copy(update={"name": "org/model", "parameters": 3 * 10**9})
    config = made.report.config.model_copy(update={"verifier": model})
    large = made.report.model_copy(update={"config": config})
    other = Entry("other", made.model_copy(update={"report": large}))
    address = Address("https://host.example/", "https://example.org/code")
    tracks = [sample.track(baseline="base"), real]
    build_site([], tmp_path / "site", tracks=tracks, entries=[*told(), other], address=address)
    page = read(tmp_path / "site" / "index.html")
    assert page.words.index("calls of the big model") < page.words.index("Which languages gain")
    assert page.words.index("Real models") < page.words.index("Demonstrations") < page.words.index("Built-in pair")
    assert "No real pair yet" not in page.words
    assert "languages/th.html" in page.values("href")
    assert "https://example.org/code" in page.values("href")
    assert re.search(r"data as of 20\d\d-\d\d-\d\d", page.words)
    assert "Code and figures: Apache-2.0" in page.words
    assert page.html.count('class="heat"') == 1
    for title in ("Highest acceptance", "Fairest", "Slower than no drafter"):
        assert title in page.words


def test_highlights_name_ties_and_only_significant_slow_downs() -> None:
    entries = [small("a", 1, shift=0.1, raced=True), small("b", 4, shift=0.1), small("c", 2, shift=-0.3)]
    for task in entries[0].verified.report.suites[0].tasks:  # type: ignore[union-attr]
        task.measures["speedup"] = sample.around(0.8, 0.1) if task.language == "ja" else sample.around(0.9, 0.2)
    best, fair, slower = stories.highlights(board_of(*entries), "embedded_math")
    assert [name for _, name in best.pages] == [name for _, name in fair.pages] == ["A", "B"]
    assert "not significantly different" in best.words
    assert slower.words == "A in ja."


# --------------------------------------------------------------------------- pairs


def test_each_is_compared_with_the_baseline_and_its_neighbour_so_pairs_grow_with_the_board() -> None:
    few = board_of(*(small(f"e{n}", n) for n in range(5)), baseline="e0")
    assert len(few.pairs) == 4 + 3
    assert [first.slug for first, _ in few.pairs[:4]] == ["e0"] * 4
    many = board_of(*(small(f"e{n:02}", n) for n in range(14)), baseline="e00")
    assert len(many.pairs) == 13 + 12
    order = [p.candidate.slug for p in many.ranked("embedded_math") if p.candidate.slug != "e00"]
    near = [(first.slug, second.slug) for first, second in many.pairs[13:]]
    assert near == [(worse, better) for better, worse in pairwise(order)][::-1]


def test_paired_changes_are_those_of_the_comparison_of_runs() -> None:
    board = board_of(small("a", 1), small("b", 2))
    first, second = board.by_slug["a"], board.by_slug["b"]
    (fast, _) = board.compared(first, second)
    whole = compare_sheets(
        "embedded_math", board.sheets(first, "embedded_math"), board.sheets(second, "embedded_math"), 4, 1_000
    )
    assert {name: fast.differences[name] for name in ("acceptance", "misfit")} == {
        name: whole.differences[name] for name in ("acceptance", "misfit")
    }
    assert (fast.clusters, fast.levelled_down) == (whole.clusters, whole.levelled_down)


def test_without_a_q_a_change_of_misfit_is_no_data() -> None:
    board = board_of(small("a", 1, q=False), small("b", 2))
    compared, _ = board.compared(board.by_slug["a"], board.by_slug["b"])
    assert set(compared.differences["misfit"].values()) == {Estimate()}
    assert compared.differences["acceptance"]["embedded_math/en"].low is not None


def test_levelled_down_is_against_the_baseline_and_said_beside_the_name(tmp_path: Path) -> None:
    entries = [small("base", 1, shift=0.0), small("worse", 2, shift=-0.3), small("better", 3, shift=0.12)]
    board = board_of(*entries, baseline="base")
    assert board.levelled_down(board.by_slug["worse"], "embedded_math") == LANGUAGES
    assert board.levelled_down(board.by_slug["better"], "embedded_math") == ()
    assert board.levelled_down(board.by_slug["base"], "embedded_math") == ()
    assert board_of(*entries).levelled_down(board.by_slug["worse"], "embedded_math") == ()
    build_site([], tmp_path / "site", tracks=[sample.track(baseline="base")], entries=entries)
    page = read(tmp_path / "site" / "tracks" / "embedded.html")
    names = [row[1] for row in page.rows if len(row) == 8 and row[1].startswith("Worse")]
    assert "lower than the baseline in en, ja, th" in names[0]


def test_a_fine_tuned_drafter_shows_before_and_after_with_the_change_of_u(site: Path) -> None:
    page = read(site / "submissions" / "drafter-0001.html")
    assert "Fine-tuned from Baseline by s-cdf" in page.words
    assert page.words.count("One training: the variance between trainings") == 2
    assert re.search(r"after, change −?\d", page.words.replace("-", "−"))
    assert "Before and after" not in read(site / "submissions" / "drafter-0002.html").words


def test_fine_tuned_from_nobody_here_or_from_itself_is_no_before_and_after(tmp_path: Path) -> None:
    entries = [small(n, 1, drafter={"fine_tuned_from": m, "method": "s-cdf"}) for n, m in (("a", "gone"), ("b", "b"))]
    build_site([], tmp_path / "site", tracks=[sample.track()], entries=entries)
    assert "not on this board" in read(tmp_path / "site" / "submissions" / "a.html").words
    for name in "ab":
        assert "Before and after" not in read(tmp_path / "site" / "submissions" / f"{name}.html").words


def test_a_comparison_page_says_how_often_and_links_both(site: Path) -> None:
    page = read(site / "compare" / "drafter-0001--baseline.html")
    assert "Drafter 0001 against Baseline" in " ".join(page.words.split())
    assert {"../submissions/baseline.html", "../submissions/drafter-0001.html"} <= set(page.values("href"))
    assert re.search(r"Drafter 0001 accepts significantly more in \d of 3 languages and less in (\d|none)", page.words)
    assert not re.search(r"\b(second|first) significantly", page.words)
    assert [head for head in page.rows[0] if head in ("Baseline", "Drafter 0001")] == ["Baseline", "Drafter 0001"]


# --------------------------------------------------------------------------- downloads


def test_the_downloads_hold_every_entry_with_its_ranks_and_reason(site: Path, entries: list[Entry]) -> None:
    data = json.loads((site / "board.json").read_text())
    assert data["schema_version"] == 4
    assert [each["name"] for each in data["tracks"]] == ["embedded", "old"]
    by_slug = {each["slug"]: each for each in data["entries"]}
    assert len(by_slug) == len(entries) - 2
    assert by_slug["leak"]["unranked"].startswith("trained on the suites")
    assert by_slug["leak"]["suites"]["embedded_math"]["ranks"] is None
    low, high = by_slug["baseline"]["suites"]["embedded_math"]["ranks"]
    assert 1 <= low <= high <= 41
    assert by_slug["audited"]["audited"] == {
        "drafts audited": True, "times audited": False, "unseen prompts audited": True
    }  # fmt: skip
    assert set(by_slug["baseline"]["audited"].values()) == {False}
    assert [each["slug"] for each in data["refused"]] == ["Not A Slug!", "broken"]
    rows = list(csv.DictReader((site / "board.csv").read_text(encoding="utf-8").splitlines()))
    figures = {(r["slug"], r["suite"], r["language"], r["measure"]): r["value"] for r in rows}
    assert len(figures) == len(rows)
    assert float(figures["baseline", "embedded_math", "th", "acceptance"]) == pytest.approx(
        by_slug["baseline"]["suites"]["embedded_math"]["languages"]["th"]["acceptance"]["value"]
    )


def test_the_schemas_describe_the_records(site: Path) -> None:
    for name, field in (("submission", "drafter"), ("verified", "sums"), ("report", "suites"), ("audit", "rule")):
        assert field in json.loads((site / "schemas" / f"{name}.json").read_text())["properties"]
    assert "baseline" in json.loads((site / "schemas" / "track.json").read_text())["properties"]


def test_a_copy_of_lines_or_of_a_name_is_not_ranked() -> None:
    """Twenty copies of a rival's lines gave ranks 5 to 26."""
    first, other = small("baseline", 1), small("other", 2)
    assert first.verified is not None
    twin = Entry("a-copy", first.verified)
    named = small("b-like", 3, submission={"name": first.verified.entry.name.upper()})
    board = board_of(twin, named, first, other, baseline="baseline")
    reasons = {each.slug: each.reason for each in board.candidates}
    assert reasons == {
        "a-copy": "the same lines as baseline",
        "b-like": "its name looks like that of baseline",
        "baseline": "",
        "other": "",
    }
    audited = Entry("z-first", first.verified, (), sample.audit(first.verified))
    board = board_of(twin, audited, other)
    assert {each.slug: each.reason for each in board.candidates}["a-copy"] == "the same lines as z-first"


def test_a_slug_keeps_its_page_whatever_folder_comes_first() -> None:
    assert unique_slugs(["Ntrex-plain", "a" * 80, "ntrex-plain", "a"]) == [
        "ntrex-plain-2",
        "a" * 60,
        "ntrex-plain",
        "a",
    ]


# --------------------------------------------------------------------------- hostile


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Everything that a submitter or an auditor may write is an attack."""
    fields = dict.fromkeys(("description", "contact", "url"), HOSTILE) | {"name": HOSTILE[:80], "authors": [HOSTILE]}
    drafter = {
        "repo": HOSTILE,
        "revision": HOSTILE[:100],
        "training_data": HOSTILE,
        "method": HOSTILE[:80],
        "files": {HOSTILE: "0" * 64},
        "fine_tuned_from": "b",
    }
    made = sample.verified("a", 1, submission=fields, drafter=drafter, raced=True, **FEW)
    audit = sample.audit(made, auditor=HOSTILE, rule=HOSTILE, machine=HOSTILE, date=HOSTILE)
    track = sample.track(title=HOSTILE, about=HOSTILE, archived=HOSTILE, baseline="b")
    entries = [
        Entry("a", made, (), audit),
        small("b", 2, submission=fields | {"name": f"2{HOSTILE[:79]}"}),
        Entry(HOSTILE, None, (HOSTILE,)),
    ]
    build_site([], tmp_path / "site", tracks=[track], entries=entries)
    return tmp_path / "site"


def test_hostile_submissions_are_text(hostile: Path) -> None:
    assert_all_inert(hostile)
    assert assert_links_hold(hostile) > 100
    for name in ("tracks/embedded.html", "submissions/a.html", "compare.html", "languages/th.html", "index.html"):
        assert "<script>alert(1)</script>" in read(hostile / name).words, name
    assert all(re.fullmatch(r"[a-z]+/[a-z0-9-]+\.html|[a-z0-9]+\.html", name) for name in pages(hostile))


def test_only_a_plain_https_address_becomes_a_link(hostile: Path, site: Path) -> None:
    assert not [h for h in read(hostile / "submissions" / "a.html").values("href") if "alert" in h]
    assert "https://example.org/drafter" in read(site / "submissions" / "baseline.html").values("href")


# --------------------------------------------------------------------------- size


def test_a_board_of_a_hundred_submissions(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """22 tasks each, from memory. Aim: under 60 s on two cores. `pytest -o addopts= --benchmark-only tests/site`."""
    entries, track = sample.many(100, prompts=10), sample.track(baseline="baseline")
    benchmark.pedantic(lambda: build_site([], tmp_path / "site", tracks=[track], entries=entries), rounds=1)
    page = (tmp_path / "site" / "tracks" / "embedded.html").read_bytes()
    assert len(gzip.compress(page)) < 100_000
