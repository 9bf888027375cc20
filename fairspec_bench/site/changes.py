"""What the board says of a mended drafter: before, after and the paired change by language.

Knows comparisons and the views of the two runs. Whoever builds the site computes the comparison: nothing is measured
here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from fairspec_bench.measure.compare import Comparison, SuiteComparison
from fairspec_bench.records import Estimate
from fairspec_bench.site.parts import Strip, axis_for
from fairspec_bench.site.plots import strip_plot
from fairspec_bench.site.views import SuiteView
from fairspec_bench.site.words import NOTHING


@dataclass(frozen=True)
class Changed:
    """Two run folders of the board and their comparison, second − first."""

    before: Path
    after: Path
    comparison: Comparison


@dataclass(frozen=True)
class ChangeView:
    """One suite before and after."""

    before: SuiteView
    after: SuiteView
    comparison: SuiteComparison

    @property
    def suite(self) -> str:
        return self.comparison.suite

    def rows(self) -> Iterator[tuple[str, Estimate, Estimate, Estimate, bool]]:
        """Language, acceptance before and after, change, and whether it was levelled down; worst before first."""
        for task in reversed(self.before.tasks):
            change = self.comparison.differences["acceptance"].get(task.task, NOTHING)
            fallen = task.task in self.comparison.levelled_down
            before, after = (view.acceptance_of(task.language) for view in (self.before, self.after))
            yield task.language, before, after, change, fallen

    def plot(self, uid: str) -> Markup:
        """Both runs as strips of dots, a dot a language."""
        strips = [Strip("before", self.before.marks("acceptance")), Strip("after", self.after.marks("acceptance"))]
        title = f"Acceptance by language before and after, {self.suite}"
        desc = "Two lines, a dot a language; the language served worst is a diamond."
        return strip_plot(uid, title, desc, axis_for("acceptance", [1.0]), strips)


def change_views(changed: Changed, views: Sequence[SuiteView], folders: Mapping[Path, str]) -> list[ChangeView]:
    """The suites that both runs have. `folders` gives each run folder's slug."""
    by_run = {(view.run.slug, view.suite.suite): view for view in views}
    first, second = (folders.get(path.resolve(), "") for path in (changed.before, changed.after))
    return [
        ChangeView(by_run[first, one.suite], by_run[second, one.suite], one)
        for one in changed.comparison.suites
        if (first, one.suite) in by_run and (second, one.suite) in by_run
    ]
