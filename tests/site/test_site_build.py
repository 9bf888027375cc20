"""The site as a reader and as an attacker meet it: pages parse, links hold, names are inert, no data is never 0."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from reading import (
    HOSTILE,
    Page,
    assert_all_inert,
    assert_inert,
    assert_links_hold,
    assert_well_made,
    pages,
    tree,
)
from site_sample import LANGUAGES, around, report, run_folder

from fairspec_bench.metrics.catalogue import across, measures
from fairspec_bench.reporting import escape
from fairspec_bench.reporting.escape import spreadsheet
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.report import BestGamma, Estimate, Payoff, RaceVerdict, Report, SweepCell, SweepReport
from fairspec_bench.site import build, build_site, publish
from fairspec_bench.site.documents import terms
from fairspec_bench.site.downloads import board_csv
from fairspec_bench.site.labels import Labels, figure, slugify, timer_words
from fairspec_bench.site.pages import PAGES
from fairspec_bench.site.views import board


def brief() -> Report:
    """A small report, for tests that look at folders and not at figures."""
    return report(suites=("s",), languages=("en", "ja"), empty="")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, two of the embedded pair, one of a drafter without probabilities."""
    base = tmp_path_factory.mktemp("site")
    lookup = report("large/verifier", "lookup", suites=("mgsm",), parameters=3_000_000_000, kind="lookup")
    runs = [
        run_folder(base, "demo", report()),
        run_folder(base, "demo fine-tuned", report(drafter="embedded:drafter-fine-tuned")),
        run_folder(base, "mgsm", without(lookup, "misfit", "misfit_ce", "overlap", "unfairness")),
    ]
    first = build_site(runs, base / "out")
    assert first == base / "out" / "index.html"
    return base / "out"


def without(source: Report, *names: str) -> Report:
    """The report with these measures left out (language `de`) or present without a value (the others)."""
    data = source.model_dump()
    for suite in data["suites"]:
        for figures in (suite["across"], *(t["measures"] for t in suite["tasks"])):
            figures.update({n: Estimate().model_dump() for n in names if n in figures})
        suite["noise_floor"] = None
        german = suite["tasks"][1]["measures"]
        for name in names:
            german.pop(name, None)
    return Report.model_validate(data)


# --------------------------------------------------------------------------- pages


DOCUMENTS = {"metrics.html", "submit.html", "reproduce.html", "rules.html", "changelog.html", "glossary.html"}
OWN = {"404.html", *DOCUMENTS, *(page.name for page in PAGES if not page.needs_boards)}


def test_every_page_is_well_made_and_every_picture_has_its_table(site: Path) -> None:
    found = pages(site)
    assert set(found) == OWN | {"runs/demo.html", "runs/demo-fine-tuned.html", "runs/mgsm.html"}
    for name, page in found.items():
        assert_well_made(name, page)
    assert len(re.findall("<figure", found["runs/demo.html"].html)) == 7  # 4 in the raced suite, 3 in the other
    assert len(re.findall("<figure", found["index.html"].html)) == 3


def test_links_are_relative_and_lead_somewhere(site: Path) -> None:
    for page in pages(site).values():
        assert_inert(page)
    assert assert_links_hold(site) > 100


def test_a_dead_link_and_a_dead_fragment_would_be_caught(site: Path, tmp_path: Path) -> None:
    for before, after in (("cite.html", "sight.html"), ('href="#main"', 'href="#mean"')):
        shutil.copytree(site, tmp_path / after)
        index = tmp_path / after / "index.html"
        index.write_text(index.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
        with pytest.raises(AssertionError):
            assert_links_hold(tmp_path / after)


@pytest.mark.parametrize("home", ["https://host/", "https://host/sub/path/", "file:///home/reader/site/"])
@pytest.mark.parametrize("missing", ["nowhere.html", "runs/nowhere.html", "runs/", "a/b/c/nowhere.html"])
def test_from_any_missing_address_the_board_is_a_folder_up_at_a_time(site: Path, home: str, missing: str) -> None:
    """A server shows 404.html under the missing address itself, whose depth and host no page can know."""
    page = Page((site / "404.html").read_text(encoding="utf-8"))
    links = [attrs["href"] or "" for tag, attrs in page.elements if tag == "a"]
    here, above = (urljoin(home + missing, link) for link in links if not link.startswith("#"))
    depth = missing.count("/")
    if depth == 0:
        assert here == f"{home}index.html"
        return
    at = above
    for _ in range(depth - 1):
        assert at != f"{home}index.html"
        at = urljoin(at, links[-1])
    assert at == f"{home}index.html"


def test_a_page_of_links_to_the_top_would_be_caught(site: Path) -> None:
    """The other pages' header, from below: what 404.html must not carry."""
    page = Page((site / "index.html").read_text(encoding="utf-8"))
    links = [href for href in page.values("href") if href.endswith((".html", ".csv", ".json"))]
    assert len(links) > 2
    assert all(urljoin("https://host/sub/runs/nowhere.html", link) != f"https://host/sub/{link}" for link in links)


def test_the_policy_admits_the_sites_own_style_and_script_and_nothing_else(site: Path) -> None:
    for name, page in pages(site).items():
        policy = next(a["content"] or "" for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
        own = "style-src 'sha256-" if name == "404.html" else "script-src 'self'; style-src 'self'; img-src data:;"
        assert policy.startswith(f"default-src 'none'; {own}")
        assert "unsafe" not in policy
    for name in ("style.css", "site.js"):
        assert (site / name).read_bytes() == (build.template_folder() / name).read_bytes()


def test_no_data_is_a_dash_and_zero_is_zero(site: Path) -> None:
    page = Page((site / "runs/demo.html").read_text(encoding="utf-8"))
    rows = [row for row in page.rows if row and row[0].startswith("Chinese") and len(row) > 5]
    assert len(rows) >= 7
    counts = {"60", "5400", "5460"}
    for row in rows:
        assert {cell.strip() for cell in row[1:]} - counts == {"–"}, row
    bengali = next(row for row in page.rows if row and row[0].startswith("Bangla") and len(row) == 10)
    assert [cell.strip() for cell in bengali[-4:]] == ["0.0 %"] * 4
    assert "0.860 [0.840, 0.880]" in bengali[2]
    assert "It never means 0" in page.words


def test_a_drafter_without_probabilities_has_no_unfairness(site: Path) -> None:
    index = Page((site / "index.html").read_text(encoding="utf-8"))
    cells = next(row for row in index.rows if row and "large/verifier" in row[0])
    assert cells[3].split() == ["–", "floor", "–"]


def test_small_pairs_carry_a_banner_and_no_accuracy(site: Path) -> None:
    embedded, large = ((site / f"runs/{name}.html").read_text(encoding="utf-8") for name in ("demo", "mgsm"))
    assert 'class="banner"' in embedded
    assert "not a statement on real models" in embedded
    assert "template exact match" in embedded
    assert "Verifier accuracy" not in embedded
    assert 'class="banner"' not in large
    assert "template exact match" not in large
    assert "Verifier accuracy" in large


def test_validity_flags_and_levelling_down_stand_beside_the_figures(site: Path) -> None:
    page = Page((site / "runs/demo.html").read_text(encoding="utf-8"))
    heads = [row for row in page.rows if row and row[0] == "Language" and "Looping" in row]
    assert len([row for row in heads if row[-4:] == ["Truncated", "Looping", "Off-language", "Dropped"]]) >= 5
    assert 'warn" data-value="0.024"><span class="value">2.4 %' in page.html
    assert page.words.count("truncated 2.4 %: every figure is of cut answers") == 2  # once a suite
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "<bdi>Truncated 2.4 % (te), Looping" in index
    assert "equally bad in every language has an unfairness of 0" in index


def test_the_lowest_names_every_tie_and_its_interval_is_never_narrower_than_a_languages_own() -> None:
    record = report(suites=("s",), languages=("en", "bn", "te"), empty="")
    zero = Estimate(value=0.0, low=0.0, high=0.071)
    tasks = [
        t.model_copy(update={"measures": {**t.measures, "acceptance": zero}}) if t.language != "en" else t
        for t in record.suites[0].tasks
    ]
    across = {"worst_acceptance": Estimate(value=0.0, low=0.0, high=0.0)}
    suite = record.suites[0].model_copy(update={"tasks": tuple(tasks), "across": across})
    run = build.Run("r", "r", record.model_copy(update={"suites": (suite,)}))
    names = Labels.load()
    (view,) = board([run], names)["s"]
    assert view.lowest("acceptance") == (("bn", "te"), zero)
    run_page = Page(build.render([run])["runs/r.html"])
    assert "Bangla bn, Telugu te" in run_page.words
    wide = Estimate(value=0.0, low=0.0, high=0.09)
    (view,) = board(
        [
            build.Run(
                "r",
                "r",
                record.model_copy(
                    update={"suites": (suite.model_copy(update={"across": {"worst_acceptance": wide}}),)}
                ),
            )
        ],
        names,
    )["s"]
    assert view.lowest("acceptance") == (("bn", "te"), wide)


def test_more_ties_than_three_are_counted() -> None:
    record = report(suites=("s",), languages=("en", "bn", "te", "th", "sw"), empty="")
    zero = {"acceptance": Estimate(value=0.0, low=0.0, high=0.07)}
    tasks = tuple(t.model_copy(update={"measures": {**t.measures, **zero}}) for t in record.suites[0].tasks)
    suite = record.suites[0].model_copy(update={"tasks": tasks, "across": {}})
    files = build.render([build.Run("r", "r", record.model_copy(update={"suites": (suite,)}))])
    assert "Bangla bn, English en and 3 more" in Page(files["runs/r.html"]).words


def test_runs_are_never_ordered_by_unfairness() -> None:
    def run(name: str, acceptance: float, unfairness: float) -> Any:
        record = report(suites=("s",)).model_copy()
        across = {"mean_acceptance": around(acceptance, 0.01), "unfairness": Estimate(value=unfairness)}
        suite = record.suites[0].model_copy(update={"across": across})
        return build.Run(name, name, record.model_copy(update={"suites": (suite,)}))

    runs = [run("diverged", 0.007, 0.0), run("good", 0.8, 0.3), run("fair", 0.7, 0.001)]
    views = board(runs, Labels({}, {}))["s"]
    assert [view.run.name for view in views] == ["good", "fair", "diverged"]
    assert [view.within_noise() for view in views] == [False, True, True]


def test_a_mean_short_of_a_language_says_so_and_comes_last(tmp_path: Path) -> None:
    whole, short = report(suites=("s",), empty=""), report(suites=("s",), empty="zh")  # `zh` would be the lowest
    runs = [build.Run(name, name, record) for name, record in (("short", short), ("whole", whole))]
    first, second = board(runs, Labels({}, {}))["s"]
    assert (first.run.name, second.run.name) == ("whole", "short")
    assert second.mean("acceptance").value == pytest.approx(sum(0.86 - 0.045 * i for i in range(10)) / 10)
    assert (first.mean("acceptance").value or 1) < (second.mean("acceptance").value or 0)
    assert (first.shortfall("acceptance"), second.shortfall("acceptance")) == ("", "10 of 11 languages")
    build_site([run_folder(tmp_path, "short", short)], tmp_path / "out")
    assert "10 of 11 languages" in Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8")).words


def test_a_verifier_alone_has_a_page_without_acceptance(tmp_path: Path) -> None:
    record = without(report(suites=("s",)), "acceptance", "speedup", "worst_acceptance", "worst_speedup")
    config = record.config.model_copy(update={"drafter": None})
    build_site([run_folder(tmp_path, "alone", record.model_copy(update={"config": config}))], tmp_path / "out")
    page = Page((tmp_path / "out" / "runs" / "alone.html").read_text(encoding="utf-8"))
    assert "drafted by no drafter" not in page.words
    assert "the verifier decoded alone" in page.words


def test_departures_have_a_table_where_a_run_asked_for_them(tmp_path: Path) -> None:
    plain = report(suites=("s",))
    share = Estimate(value=0.375, low=0.25, high=0.5)
    first, *rest = plain.suites[0].tasks
    first = first.model_copy(update={"measures": {**first.measures, "diverged_share": share}})
    suite = plain.suites[0].model_copy(update={"tasks": (first, *rest)})
    config = plain.config.model_copy(update={"dtype": "bfloat16", "float32_check": True})
    half = plain.model_copy(update={"suites": (suite,), "config": config})
    build_site([run_folder(tmp_path, "plain", plain), run_folder(tmp_path, "half", half)], tmp_path / "out")
    said = {
        name: Page((tmp_path / "out" / f"{name}.html").read_text(encoding="utf-8")).words
        for name in ("index", "runs/plain", "runs/half")
    }
    assert "Where bfloat16 answers differ from float32’s" in said["runs/half"]
    assert "37.5" in said["runs/half"]
    assert "answers differ from float32" not in said["runs/plain"]
    assert f"Diverged from float32 37.5 % ({first.language})" in said["index"]


def test_a_sweep_has_its_four_tables(tmp_path: Path) -> None:
    """Speed-up by batch size and γ with where it stops paying, tokens a second, latencies, and one γ for all."""
    record = report(suites=("s",), languages=("en", "te"), empty="")

    def swept(language: str, gamma: int, batch: int) -> SweepCell:
        latency = Estimate(value=0.25 * batch) if language == "en" else None
        pace, ratio = around(100.0 * batch + gamma, 1.0), around(1.5 - 0.2 * batch, 0.01) if gamma else Estimate()
        return SweepCell(
            task=f"s/{language}",
            batch_size=batch,
            gamma=gamma,
            tokens_per_second=pace,
            speedup=ratio,
            latency_p50=latency,
        )

    sweep = SweepReport(
        rounds=5,
        cells=tuple(swept(code, gamma, batch) for code in ("en", "te") for gamma in (0, 4) for batch in (1, 4)),
        payoffs=tuple(Payoff(task=f"s/{code}", gamma=4, verdict="stops", stops_at=4) for code in ("en", "te")),
        best=(BestGamma(batch_size=1, gamma=4, chosen=around(1.31, 0.01), total=around(1.3, 0.01), speedup={}),),
    )
    suite = record.suites[0].model_copy(update={"sweep": sweep})
    build_site([run_folder(tmp_path, "run", record.model_copy(update={"suites": (suite,)}))], tmp_path / "out")
    page = Page((tmp_path / "out" / "runs" / "run.html").read_text(encoding="utf-8"))
    assert_well_made("runs/run.html", page)
    rows = [[cell.split(" [")[0] for cell in row] for row in page.rows]
    english, telugu = "English en", "Telugu తెలుగు te"
    assert [telugu, "4", "1.30×", "0.70×", "not from batch 4"] in rows
    assert [english, "alone", "100", "400"] in rows
    assert [english, "4", "half", "0.250", "1.00"] in rows
    assert not [row for row in rows if row[0] == telugu and "half" in row]
    assert ["1", "4", "1.31×", "1.30×", "–", "–"] in rows


def test_terms_have_their_meaning_from_the_glossary_on_demand_without_a_script(site: Path) -> None:
    known = terms()
    assert known["γ"].startswith("how many a block proposes")
    assert known["drafter"].startswith("proposes tokens")
    assert not [
        meaning for meaning in known.values() if "`" in meaning or "fairspec_bench/" in meaning or "](" in meaning
    ]
    for name in ("index.html", "runs/demo.html"):
        page = Page((site / name).read_text(encoding="utf-8"))
        targets = page.values("popovertarget")
        ids = {attrs["id"] for _, attrs in page.elements if "popover" in attrs}
        assert targets
        assert set(targets) == ids
    assert known["drafter"] in Page((site / "index.html").read_text(encoding="utf-8")).words


def test_the_clock_is_told_in_plain_words(site: Path) -> None:
    words = Page((site / "runs/demo.html").read_text(encoding="utf-8")).words
    assert "timer check passed (±1.5 %)" in words
    noisy = RaceVerdict(status="noisy", ratio=around(1.09, 0.04), rounds=5)
    assert timer_words(noisy).startswith("too noisy: no verdict")


def test_the_glossary_defines_every_measure_and_only_those(site: Path) -> None:
    page = Page((site / "methodology.html").read_text(encoding="utf-8"))
    beside = {"acceptance_by_position", "acceptance_joint", "acceptance_by_output", "accepted_lengths"}
    names = {*measures(gamma=4), *across()} | beside
    assert set(page.values("id")) - {"main", "formulas"} == names
    defined = [row[3] for row in page.rows if len(row) == 4 and row[0].endswith(tuple(names))]
    assert len(defined) == len(names)
    assert all(text.endswith(".") for text in defined)


# --------------------------------------------------------------------------- hostile


@pytest.fixture
def hostile_run(tmp_path: Path) -> Path:
    """A run whose every free text is an attack, its folder's name included."""
    record = report(HOSTILE, HOSTILE, suites=(HOSTILE,), languages=("en", HOSTILE), empty="")
    data = record.model_dump()
    data["notes"] = (HOSTILE,)
    data["environments"][0]["packages"] = {HOSTILE: HOSTILE}
    data["config"]["verifier"]["options"] = {HOSTILE: HOSTILE}
    data["suites"][0]["tasks"][0]["flags"] = (HOSTILE,)
    data["suites"][0]["tasks"][0]["measures"][HOSTILE] = Estimate(value=1e308, low=-1e308, high=1e308).model_dump()
    data["suites"][0]["across"][HOSTILE] = Estimate(value=5e-324).model_dump()
    return run_folder(tmp_path / "runs", HOSTILE.replace("/", ""), Report.model_validate(data))


def test_hostile_names_are_text(hostile_run: Path, tmp_path: Path) -> None:
    build_site([hostile_run], tmp_path / "out")
    found = pages(tmp_path / "out")
    for page in found.values():
        assert_inert(page)
    for name in set(found) - OWN | {"index.html"}:
        assert "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>" in found[name].words
        assert "{{ 7*7 }}" in found[name].words
    assert all(re.fullmatch(r"(runs/)?[a-z0-9-]+\.html", name) for name in found)


def test_unescaped_templates_would_be_caught(
    hostile_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build.Environment
    monkeypatch.setattr(build, "Environment", lambda **options: real(**{**options, "autoescape": False}))
    build_site([hostile_run], tmp_path / "out")
    with pytest.raises(AssertionError):
        assert_all_inert(tmp_path / "out")


def test_bidirectional_characters_would_be_caught(
    hostile_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "inert", str)
    monkeypatch.setattr(escape, "inert", str)
    build_site([hostile_run], tmp_path / "out")
    with pytest.raises(AssertionError):
        assert_all_inert(tmp_path / "out")


def test_impossible_numbers_do_not_stop_the_build(tmp_path: Path) -> None:
    extremes = [Estimate(value=v, low=-v, high=v) for v in (1e308, -1e308, 5e-324, 0.0)]
    record = report(suites=("s",), languages=("en", "de", "ja", "th"), empty="")
    tasks = [
        task.model_copy(
            update={
                "measures": dict.fromkeys(task.measures, e),
                "acceptance_joint": (e, e),
                "block_efficiency_by_gamma": {1: e},
            }
        )
        for task, e in zip(record.suites[0].tasks, extremes, strict=True)
    ]
    suite = record.suites[0].model_copy(update={"tasks": tuple(tasks)})
    folder = run_folder(tmp_path, "run", record.model_copy(update={"suites": (suite,)}))
    build_site([folder], tmp_path / "out")
    for page in pages(tmp_path / "out").values():
        assert not re.search(r'="[^"]*(nan|inf)\b', page.html)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Qwen2.5 0.5B → 3B", "qwen2-5-0-5b-3b"),
        ("../../etc/passwd", "etc-passwd"),
        ("日本語", "run"),
        ("é" * 200, "e" * 60),
        ("\u202ea\x00b", "a-b"),
    ],
)
def test_slugs(name: str, slug: str) -> None:
    assert slugify(name) == slug


def test_folders_of_one_name_get_pages_of_their_own(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / part, name, brief()) for part in "ab" for name in ("run", "Run!", "run-2")]
    slugs = [run.slug for run in build.load_runs(folders)]
    assert slugs == ["run", "run-3", "run-2", "run-4", "run-5", "run-2-2"]


# --------------------------------------------------------------------------- downloads


def test_the_downloads_hold_the_figures_of_the_reports(site: Path) -> None:
    runs = json.loads((site / "board.json").read_text())["runs"]
    assert [run["name"] for run in runs] == ["demo", "demo fine-tuned", "mgsm"]
    assert runs[0]["small_pair"] is True
    assert runs[2]["small_pair"] is False
    first = runs[0]["suites"][0]["tasks"][0]
    assert first["measures"]["acceptance"] == {"value": 0.86, "low": 0.84, "high": 0.88}

    rows = list(csv.DictReader((site / "board.csv").read_text(encoding="utf-8").splitlines()))
    by_place = {(r["name"], r["suite"], r["language"], r["measure"]): r for r in rows}
    assert len(by_place) == len(rows)
    assert float(by_place["demo", "embedded_math", "bn", "acceptance"]["value"]) == 0.86
    assert by_place["mgsm", "mgsm", "", "unfairness"]["value"] == ""
    assert {r["language"] for r in rows} == {"", *LANGUAGES} - {"zh"}


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_spreadsheet_runs_a_name(tmp_path: Path, name: str) -> None:
    folder = run_folder(tmp_path, "run", report(name, name))
    text = board_csv(build.load_runs([folder]))
    assert all(row["verifier"] == f"'{name}" for row in csv.DictReader(text.splitlines()))


# --------------------------------------------------------------------------- the folder


def test_the_same_reports_give_the_same_bytes(site: Path, tmp_path: Path) -> None:
    runs = [site.parent / name for name in ("demo", "demo fine-tuned", "mgsm")]
    build_site(runs, tmp_path / "a")
    build_site(runs, tmp_path / "a")
    assert tree(tmp_path / "a") == tree(site)


def bad_reports() -> Iterator[tuple[str, bytes | None]]:
    yield "missing", None
    yield "torn", b'{"schema_version": 1, "config"'
    yield "foreign", b'{"accuracy": 0.5}'
    yield "binary", bytes(range(256))
    yield "nan", brief().model_dump_json().replace("0.86", "NaN", 1).encode()


@pytest.mark.parametrize(("name", "content"), list(bad_reports()), ids=[name for name, _ in bad_reports()])
def test_an_unreadable_run_is_one_line_and_leaves_the_old_site(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    good, bad = run_folder(tmp_path, "good", brief()), tmp_path / name
    build_site([good], tmp_path / "out")
    before = tree(tmp_path / "out")
    bad.mkdir()
    if content is not None:
        (bad / "report.json").write_bytes(content)
    with pytest.raises(FairspecError) as error:
        build_site([good, bad], tmp_path / "out")
    assert "\n" not in str(error.value)
    assert f"{name}/{'run' if content is None else 'report'}.json" in str(error.value)
    assert tree(tmp_path / "out") == before


def test_a_full_disk_leaves_the_old_site_and_no_debris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = run_folder(tmp_path, "good", brief())
    build_site([good], tmp_path / "out")
    before = tree(tmp_path)
    written = publish._write

    def half(files: dict[str, str], folder: Path) -> None:
        written(dict(list(files.items())[:3]), folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish, "_write", half)
    with pytest.raises(FairspecError, match="No space left on device") as error:
        build_site([good], tmp_path / "out")
    assert "\n" not in str(error.value)
    assert tree(tmp_path) == before


def test_a_failed_exchange_puts_the_old_site_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = run_folder(tmp_path, "good", brief())
    build_site([good], tmp_path / "out")
    before = tree(tmp_path)
    replace = publish.os.replace

    def refuse_new(source: Path, target: Path) -> None:
        if source.name == "new":
            raise OSError(16, "Device or resource busy")
        replace(source, target)

    monkeypatch.setattr(publish.os, "replace", refuse_new)
    with pytest.raises(FairspecError, match="busy"):
        build_site([good], tmp_path / "out")
    assert tree(tmp_path) == before


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    good = run_folder(tmp_path, "good", brief())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "home", tmp_path / "file"):
        with pytest.raises(FairspecError, match="something other than a site"):
            build_site([good], out)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_a_page_of_a_run_that_is_gone_goes(tmp_path: Path) -> None:
    one, two = (run_folder(tmp_path, name, brief()) for name in ("one", "two"))
    build_site([one, two], tmp_path / "out")
    build_site([two], tmp_path / "out")
    assert [p.name for p in (tmp_path / "out" / "runs").iterdir()] == ["two.html"]


def test_an_empty_board_says_so(tmp_path: Path) -> None:
    first = build_site([], tmp_path / "out")
    assert "No runs yet" in Page(first.read_text(encoding="utf-8")).words


def test_templates_come_from_the_wheel_or_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = build.template_folder()
    assert checkout.name == "leaderboard"
    package = tmp_path / "fairspec_bench"
    monkeypatch.setattr(build, "__file__", str(package / "site" / "build.py"))
    with pytest.raises(FairspecError, match="templates are missing"):
        build.template_folder()
    shutil.copytree(checkout, package / "_leaderboard")
    assert build.template_folder() == package / "_leaderboard"


# --------------------------------------------------------------------------- figures in words


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (None, "ratio", "–"),
        (0.0, "ratio", "0.000"),
        (0.7344, "ratio", "0.734"),
        (0.0123, "share", "1.2 %"),
        (1.417, "times", "1.42×"),
        (0.0, "number", "0"),
        (0.001234, "number", "0.00123"),
        (118.24, "number", "118"),
        (12345.0, "number", "12,345"),
        (0.00001, "number", "1.00e-05"),
        (1e308, "ratio", "1.00e+308"),
    ],
)
def test_figures_in_words(value: float | None, kind: Any, words: str) -> None:
    assert figure(value, kind) == words


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("te", ("Telugu", "తెలుగు")),
        ("zh-TW", ("Traditional Chinese", "繁體中文")),
        ("sw", ("Swahili", "Kiswahili")),
        ("tl", ("Tagalog", "Tagalog")),
        ("en", ("English", "English")),
    ],
)
def test_languages_are_named_as_the_cldr_has_them(code: str, names: tuple[str, str]) -> None:
    assert Labels.load().languages[code] == names


@pytest.mark.parametrize("code", ["", "box", "mixed", "../en", "<b>", "xx-XX", "a" * 300])
def test_a_code_that_is_no_language_is_its_own_name(code: str) -> None:
    assert Labels.load().language(code) == code


def test_a_mean_is_the_reports_own_with_its_interval() -> None:
    record = report(suites=("s",), empty="")
    suite = record.suites[0].model_copy(update={"across": {"mean_acceptance": around(0.5, 0.1)}})
    run = build.Run("r", "r", record.model_copy(update={"suites": (suite,)}))
    (view,) = board([run], Labels({}, {}))["s"]
    assert view.mean("acceptance") == around(0.5, 0.1)


def test_a_cell_after_a_semicolon_is_no_formula() -> None:
    assert spreadsheet("a;=HYPERLINK(1)") == "a;'=HYPERLINK(1)"
    assert spreadsheet("a; @x; b") == "a; '@x; b"
    assert spreadsheet("a; b-c") == "a; b-c"


@pytest.mark.parametrize("moved", [False, True], ids=["before the exchange", "between its two steps"])
def test_a_site_that_a_kill_left_out_of_place_is_put_back(moved: bool, tmp_path: Path) -> None:
    """Between two renames there was no site at all, and what was staged stayed for ever."""
    out = tmp_path / "site"
    files = {publish.MARKER: "", "index.html": "old"}
    publish.publish(files, out)
    stage = tmp_path / ".site.abcd"
    (stage / "new").mkdir(parents=True)
    (stage / "new" / publish.MARKER).write_text("")
    if moved:
        os.replace(out, stage / "old")
    other = tmp_path / ".site.notes"
    other.mkdir()
    (other / "mine.txt").write_text("precious")
    os.utime(stage, (0, 0))
    publish._recover(out)
    assert (out / "index.html").read_text() == "old"
    assert not stage.exists()
    assert (other / "mine.txt").read_text() == "precious"
