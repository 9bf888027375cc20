"""Made-up reports and comparisons whose every figure a test can set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairspec_bench.metrics.catalogue import measures
from fairspec_bench.metrics.comparison import Comparison, SuiteComparison
from fairspec_bench.schemas.config import ModelConfig, RunConfig, SamplingParams, SuiteConfig
from fairspec_bench.schemas.report import Estimate, RaceVerdict, Report, SuiteReport, TaskReport

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
GAMMA = 4
QUIET = RaceVerdict(status="quiet", ratio=Estimate(value=1.0, low=0.99, high=1.01), rounds=5)
NOT_RACED = RaceVerdict(status="no race")
SLOPE = {language: 0.5 + 0.04 * place for place, language in enumerate(LANGUAGES)}
EQUAL = {language: 0.7 + 0.001 * (place % 3) for place, language in enumerate(LANGUAGES)}


def near(value: float, half: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def between(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, low=low, high=high)


def make_task(suite: str, language: str, acceptance: float, figures: Mapping[str, Estimate]) -> TaskReport:
    """A task of 100 prompts of 60 contexts. Its misfit leaves room under every bound, as real ones do."""
    efficiency = sum(acceptance**place for place in range(GAMMA + 1))
    known = {
        "acceptance": near(acceptance),
        "overlap": near(acceptance),
        "misfit": near(2 * (1 - acceptance)),
        "misfit_ce": near(2 * (1 - acceptance) + 0.5),
        "block_efficiency": near(efficiency),
        "block_efficiency_uncut": near(1.05 * efficiency),
        "blocks_expected": near(60 / efficiency),
    }
    return TaskReport(
        task=f"{suite}/{language}",
        suite=suite,
        language=language,
        prompts=100,
        clusters=100,
        contexts=6000,
        tokens=6100,
        measures={name: Estimate() for name in measures(GAMMA)} | known | dict(figures),
        acceptance_by_position=(),
        acceptance_joint=(),
        block_efficiency_by_gamma={},
    )


def make_report(
    acceptance: Mapping[str, float],
    *,
    figures: Mapping[str, Mapping[str, float]] | None = None,
    across: Mapping[str, Estimate] | None = None,
    floor: float | None = 0.001,
    race: RaceVerdict = NOT_RACED,
    suite: str = "toy",
    temperature: float = 0.0,
    drafter: str = "small",
) -> Report:
    """A report of one suite; `figures[measure][language]` get intervals of ± .01."""
    languages = tuple(acceptance)
    config = RunConfig(
        verifier=ModelConfig(name="big"),
        drafter=ModelConfig(name=drafter),
        suites=(
            SuiteConfig(
                name=suite,
                version="1",
                languages=languages,
                limit=None,
                num_fewshot=None,
                max_new_tokens=64,
                data_sha256={},
                prompts_sha256={},
            ),
        ),
        tokenizer_sha256="0",
        sampling=SamplingParams(temperature=temperature),
        gamma=GAMMA,
        seed=0,
        batch_size=1,
        dtype="float32",
        device="cpu",
        race_prompts=None,
        race_rounds=0,
        chunks={},
        clusters={},
    )
    tasks = tuple(
        make_task(suite, one, value, {name: near(of[one]) for name, of in (figures or {}).items() if one in of})
        for one, value in acceptance.items()
    )
    made = SuiteReport(suite=suite, tasks=tasks, across=dict(across or {}), noise_floor=floor, ranks={})
    return Report(config=config, environments=(), suites=(made,), replicates=2000, bootstrap_seed=0, race_verdict=race)


def make_change(
    differences: Mapping[str, Estimate],
    *,
    unfairness: Estimate | None = None,
    unfairness_ce: Estimate | None = None,
    acceptance_variance: Estimate | None = None,
    fallen: Sequence[str] = (),
    suite: str = "toy",
) -> Comparison:
    """A comparison of one suite; `differences` are those of acceptance, spreads' changes relative."""
    changed = SuiteComparison(
        suite=suite,
        clusters={f"{suite}/{language}": 100 for language in differences},
        differences={"acceptance": {f"{suite}/{language}": each for language, each in differences.items()}},
        unfairness=Estimate(),
        relative={
            "unfairness": unfairness or Estimate(),
            "unfairness_ce": unfairness_ce or Estimate(),
            "acceptance_variance": acceptance_variance or Estimate(),
        },
        levelled_down=tuple(f"{suite}/{language}" for language in fallen),
    )
    return Comparison(suites=(changed,), replicates=2000, bootstrap_seed=0)
