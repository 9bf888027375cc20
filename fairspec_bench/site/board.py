"""The ranks of a track's submissions, and why a submission is not ranked.

Ranks are by mean acceptance within one suite of one track, and by mean speed-up within its hardware class; never by U.
Ranks and paired differences come from `metrics`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.metrics.audit import enough
from fairspec_bench.metrics.comparison import COMPARED, SuiteComparison, compare_sheets
from fairspec_bench.metrics.prompt_sums import sheets_of
from fairspec_bench.metrics.ranking import Standing, standings
from fairspec_bench.metrics.run_data import Sheets
from fairspec_bench.schemas.keys import PromptKey, Task
from fairspec_bench.schemas.report import Estimate
from fairspec_bench.schemas.submission import Audit, Verified
from fairspec_bench.site.labels import NOTHING, kind_title
from fairspec_bench.site.views import Run, SuiteView
from fairspec_bench.suites.tracks import Track

MARKS = ("drafts audited", "times audited", "unseen prompts audited")
NEIGHBOURS = 100  # so many from the first are compared with their neighbours
FEW = 12  # ranked submissions of a board whose pairs show every difference
WHOLE_PAIRS = 5  # fine-tuned drafters whose change of U is given on a board with more
REPLICATES = 1_000
LOOPS = "most answers repeat themselves or are cut"
SHOWN = ("acceptance", "block_efficiency_uncut", "misfit")  # differences on the page of a pair


@dataclass(frozen=True)
class Entry:
    """A submission on the board. One that the check refused has no `verified`, but the findings in words.

    `folder` is where its lines are, for what shows single answers.
    """

    slug: str
    verified: Verified | None
    refusals: tuple[str, ...] = ()
    audit: Audit | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Candidate:
    """A checked submission on its track's board. `slug` is that of its pages, unique on the site."""

    entry: Entry
    verified: Verified
    slug: str
    reason: str
    run: Run
    views: Mapping[str, SuiteView]

    @property
    def name(self) -> str:
        return self.verified.entry.name

    @property
    def page(self) -> str:
        return f"submissions/{self.slug}.html"

    @property
    def method(self) -> str:
        """The drafter's kind, and how it was fine-tuned."""
        drafter = self.verified.entry.drafter
        return f"{self.kind}, {drafter.method}" if drafter.method else self.kind

    @property
    def kind(self) -> str:
        """What the drafter's kind is called."""
        return kind_title(self.verified.entry.drafter.kind)

    @property
    def marks(self) -> tuple[str, ...]:
        """What a maintainer's run of these very lines has confirmed, of `MARKS`."""
        audit = self.entry.audit
        if audit is None or audit.manifest_sha256 != self.verified.manifest_sha256:
            return ()
        prompts = Counter(str(PromptKey(key).task) for key in self.verified.sums.keys)
        found = (audit.reproduced and enough(audit, prompts), audit.times, audit.generalises)
        return tuple(mark for mark, yes in zip(MARKS, found, strict=True) if yes)


def unranked_reason(verified: Verified, audit: Audit | None, track: Track) -> str:
    """Why a checked submission is not ranked; empty where it is."""
    if track.reference_sha256 is not None and verified.reference_sha256 != track.reference_sha256:
        return "checked against other reference outputs than the track's"
    if audit is not None and audit.manifest_sha256 != verified.manifest_sha256:
        return "changed since its audit: the manifest audited is another"
    if audit is not None and not audit.reproduced:
        return "the audit did not reproduce its lines with the drafter named"
    if audit is not None and audit.times is False:
        return "the audit did not find the speed-up claimed"
    if audit is not None and audit.generalises is False:
        return "falls on fresh prompts by more than the audit's rule allows"
    if verified.entry.drafter.trained_on_suite_data:
        return "trained on the suites' own prompts or answers"
    if drafter_kind(verified.entry.drafter.kind).uses_reference:
        return "drafts from the verifier's own output: a calibration of the board"
    return ""


@dataclass(frozen=True)
class Placed:
    """A ranked submission in one suite: its place by the mean, and the ranks it may have."""

    candidate: Candidate
    standing: Standing
    place: int
    view: SuiteView


@dataclass(frozen=True)
class Timed:
    """A raced submission in one suite; `ranks` is None where `reason` says why it is not ranked."""

    candidate: Candidate
    view: SuiteView
    mean: Estimate
    ranks: tuple[int, int] | None
    reason: str = ""


class Board:
    """One track and its submissions. Everything is computed once, when first used."""

    def __init__(self, track: Track, slug: str, candidates: Sequence[Candidate]) -> None:
        self.track, self.slug, self.candidates = track, slug, tuple(candidates)
        self.by_slug = {each.entry.slug: each for each in candidates}
        self._comparisons: dict[tuple[str, str], tuple[SuiteComparison, ...]] = {}

    @property
    def page(self) -> str:
        return f"tracks/{self.slug}.html"

    @property
    def suites(self) -> tuple[str, ...]:
        return tuple(suite.name for suite in self.track.suites)

    @property
    def small(self) -> bool:
        """Whether the track's verifier is too small for its board to say anything of real models."""
        return any(each.run.small for each in self.candidates)

    @property
    def baseline(self) -> Candidate | None:
        return self.by_slug.get(self.track.baseline or "")

    # ------------------------------------------------------------------- ranks

    def ranked(self, suite: str) -> list[Placed]:
        """Highest mean acceptance first. Languages of which most answers are loops or cut count in no mean."""
        return self._ranked[suite]

    def left_out(self, suite: str) -> frozenset[str]:
        """The languages of a suite that no rank rests on: most of their answers repeat themselves or are cut."""
        return frozenset(
            code for each in self.candidates if suite in each.views for code in each.views[suite].mostly_bad
        )

    @cached_property
    def _ranked(self) -> dict[str, list[Placed]]:
        found = {}
        for suite in self.suites:
            able = {each.entry.slug: each for each in self.candidates if not each.reason and suite in each.views}
            sheets = {slug: _without(self.sheets(each, suite), self.left_out(suite)) for slug, each in able.items()}
            stood = standings(sheets, self.track.gamma)
            order = sorted(stood, key=lambda slug: (-stood[slug].mean, slug))
            found[suite] = [
                Placed(able[slug], stood[slug], place, able[slug].views[suite]) for place, slug in enumerate(order, 1)
            ]
        return found

    def places(self, suite: str) -> Mapping[str, Placed]:
        """The ranked submissions of a suite by slug."""
        return self._places[suite]

    @cached_property
    def _places(self) -> dict[str, dict[str, Placed]]:
        return {suite: {each.candidate.slug: each for each in placed} for suite, placed in self._ranked.items()}

    def unranked(self, suite: str) -> list[tuple[Candidate, str]]:
        """The others with their reason, highest mean acceptance first."""
        left = [each for each in self.candidates if each.slug not in self.places(suite)]
        bad = {code for each in left if suite in each.views for code in each.views[suite].codes} == self.left_out(suite)
        shared = LOOPS if bad and left else "no acceptance in every language of the suite"
        reasons = [(each, each.reason or shared) for each in left]
        return sorted(reasons, key=lambda pair: (-(mean_acceptance(pair[0], suite).value or -1.0), pair[0].slug))

    def sheets(self, candidate: Candidate, suite: str) -> Sheets:
        return self._sheets[candidate.slug][suite]

    @cached_property
    def _sheets(self) -> dict[str, dict[str, Sheets]]:
        return {
            each.slug: {
                config.name: sheets_of(each.verified.sums, config) for config in each.verified.report.config.suites
            }
            for each in self.candidates
        }

    # ------------------------------------------------------------------- the clock

    def timed(self, suite: str) -> list[Timed]:
        """Raced submissions that may be ranked, those with a verdict first, by mean speed-up."""
        able = [(c, c.views[suite]) for c in self.candidates if not c.reason and suite in c.views]
        raced = [(c, view, view.mean("speedup")) for c, view in able if view.raced]
        unsure = [(*each, why) for each in raced if (why := self._why_untimed(each[1], suite, each[2]))]
        sure = [each for each in raced if not self._why_untimed(each[1], suite, each[2])]
        ranges = disjoint_ranks([mean for _, _, mean in sure])
        rows = [Timed(*each, ranks) for each, ranks in zip(sure, ranges, strict=True)]
        rest = [Timed(c, view, mean, None, why) for c, view, mean, why in unsure]
        return [
            t for part in (rows, rest) for t in sorted(part, key=lambda t: (-(t.mean.value or 0), t.candidate.slug))
        ]

    def _why_untimed(self, view: SuiteView, suite: str, mean: Estimate) -> str:
        """Why a race gives no rank; empty where it gives one."""
        if set(view.codes) == self.left_out(suite):
            return LOOPS
        if not view.verdict:
            return "the timer check failed"
        prompts = view.run.report.config.race_prompts
        few = f"{prompts} prompt{'' if prompts == 1 else 's'} a language" if prompts else "too few prompts"
        return f"no interval: {few}" if mean.low is None else ""

    # ------------------------------------------------------------------- pairs

    def levelled_down(self, candidate: Candidate, suite: str) -> tuple[str, ...]:
        """The languages in which it significantly accepts less than the track's baseline."""
        base = self.baseline
        if base is None or base.slug == candidate.slug or suite not in base.views or suite not in candidate.views:
            return ()
        (compared,) = (each for each in self.compared(base, candidate) if each.suite == suite)
        return tuple(Task(task).language for task in compared.levelled_down)

    @cached_property
    def pairs(self) -> list[tuple[Candidate, Candidate]]:
        """Who is compared with whom, second − first: each with the baseline, the leading with their neighbours.

        The baseline, or else the lower ranked, comes first. Their number grows with that of the submissions.
        """
        order = [placed.candidate for placed in self.ranked(self.suites[0])][::-1]
        base = self.baseline
        others = [each for each in order if base is None or each.slug != base.slug]
        return ([(base, each) for each in others] if base is not None else []) + [*pairwise(others[-NEIGHBOURS:])]

    @property
    def few(self) -> bool:
        return len(self.ranked(self.suites[0])) <= FEW

    def compared(self, first: Candidate, second: Candidate) -> tuple[SuiteComparison, ...]:
        """Second − first in the suites both have.

        The change of U takes long: it is given of fine-tuned drafters, and against the baseline of a small board.
        """
        key = first.slug, second.slug
        if key not in self._comparisons:
            whole = key in self._fine_tuned or (self.few and first is self.baseline)
            self._comparisons[key] = tuple(
                compare_sheets(
                    suite,
                    self.sheets(first, suite),
                    self.sheets(second, suite),
                    self.track.gamma,
                    REPLICATES,
                    compared=COMPARED if whole else SHOWN if self.few else SHOWN[:1],
                    spreads=whole,
                )
                for suite in self.suites
                if suite in first.views and suite in second.views
            )
        return self._comparisons[key]

    def parent(self, candidate: Candidate) -> Candidate | None:
        """The submission of this track whose drafter this one was made of."""
        parent = self.by_slug.get(candidate.verified.entry.drafter.fine_tuned_from or "")
        return None if parent is candidate else parent

    @cached_property
    def _fine_tuned(self) -> set[tuple[str, str]]:
        places = self.places(self.suites[0])
        order = [placed.candidate for placed in places.values()]
        order += [each for each in self.candidates if each.slug not in places]
        pairs = ((parent, each) for each in order if (parent := self.parent(each)) is not None)
        return {(parent.slug, each.slug) for parent, each in list(pairs)[:WHOLE_PAIRS]}


def mean_acceptance(candidate: Candidate, suite: str) -> Estimate:
    view = candidate.views.get(suite)
    return NOTHING if view is None else view.mean("acceptance")


def _without(sheets: Sheets, languages: Collection[str]) -> Sheets:
    """The sheets of the other languages."""
    kept = {task: sheet for task, sheet in sheets.prompts.items() if Task(task).language not in languages}
    return replace(sheets, prompts=kept)


def unsurpassed(points: Mapping[str, tuple[tuple[int, int], Estimate]]) -> set[str]:
    """The names that no other significantly surpasses in both: rank ranges that do not meet, intervals of U neither."""

    def surpasses(a: str, b: str) -> bool:
        (_, last), (first, _) = points[a][0], points[b][0]
        high, low = points[a][1].high, points[b][1].low
        return last < first and high is not None and low is not None and high < low

    return {name for name in points if not any(surpasses(other, name) for other in points)}


def disjoint_ranks(estimates: Sequence[Estimate]) -> Iterator[tuple[int, int]]:
    """Rank ranges from intervals alone: [1 + significantly better, n − significantly worse].

    A difference is significant where the intervals, widened so that all pairs hold at once (Bonferroni), do not meet:
    races of different days share no noise, so this is conservative.
    """
    count = len(estimates)
    pairs = max(1, count * (count - 1) // 2)
    wider = NormalDist().inv_cdf(1 - 0.025 / pairs) / NormalDist().inv_cdf(0.975)
    ends = []
    for e in estimates:
        value, low, high = (0.0 if v is None else v for v in (e.value, e.low, e.high))
        ends.append((value - wider * (value - low), value + wider * (high - value)))
    for low, high in ends:
        better = sum(other[0] > high for other in ends)
        worse = sum(other[1] < low for other in ends)
        yield 1 + better, count - worse
