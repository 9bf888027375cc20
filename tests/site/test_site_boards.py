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
from fairspec_bench.site import build, build_site
from fairspec_bench.site.board import Board, Entry, disjoint_ranks, pareto
from fairspec_bench.site.labels import Labels, unique_slugs

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
        assert table.count('<tr><th scope="col"') + table.count('<tr><td class="num rank"') >= 2
        heads = re.findall(r"<th scope=\"col\"[^>]*>", table)
        (place,) = (n for n, head in enumerate(heads) if 'aria-sort="descending"' in head)
        assert 'data-sort="number"' in heads[place]
    acceptance = track_page.table("s1-acceptance")
    values = [float(v) for v in re.findall(r'class="num main" data-value="([^"]+)"', acceptance)]
    assert len(values) == 41
    assert values == sorted(values, reverse=True)


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
    assert [(each.candidate.slug, each.ranks) for each in timed] == [
        ("fast", (1, 1)),
        ("slow", (2, 2)),
        ("noisy", None),
    ]


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
        ({"a": (0.9, 0.5), "b": (0.8, 0.1), "c": (0.7, 0.3)}, {"a", "b"}),
        ({"a": (0.9, 0.1), "b": (0.9, 0.2)}, {"a"}),
        ({"a": (0.5, 0.1), "b": (0.9, 0.1)}, {"b"}),
        ({}, set()),
    ],
)
def test_the_front_is_of_those_that_none_surpasses(points: dict[str, tuple[float, float]], front: set[str]) -> None:
    assert pareto(points) == front


def test_a_drafter_without_a_q_is_ranked_and_not_on_the_plane() -> None:
    board = board_of(small("lookup", 1, q=False, drafter={"kind": "lookup"}), small("model", 2))
    assert len(board.ranked("embedded_math")) == 2
    assert board.front("embedded_math") == {"model"}


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
    values = [float(row[1].split()[0]) for row in page.rows if len(row) == 5 and row[1][:1].isdigit()]
    assert values[:20] == sorted(values[:20], reverse=True)
    assert ("bdi", {"lang": "ja"}) in read(site / "languages.html").elements


def test_a_submission_shows_what_a_person_waits(site: Path) -> None:
    raced, plain = (read(site / "submissions" / f"{name}.html") for name in ("baseline", "drafter-0001"))
    assert "seconds" in raced.html
    assert "calls of the verifier" not in raced.html
    assert "calls of the verifier" in plain.html
    assert all("Waiting time for one answer" in page.words for page in (raced, plain))


# --------------------------------------------------------------------------- pairs


def test_a_small_board_compares_every_pair_and_a_large_one_the_baseline_and_neighbours() -> None:
    few = board_of(*(small(f"e{n}", n) for n in range(5)), baseline="e0")
    assert len(few.pairs) == 10
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
    assert re.search(r"accepts significantly more in \d and less in \d of 3 languages", page.words)


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
