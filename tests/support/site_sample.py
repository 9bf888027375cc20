"""A made-up report for the site's tests: two suites, eleven languages, one without data, hostile names on request."""

from __future__ import annotations

from pathlib import Path

from fairspec_bench.schemas.config import Environment, ModelConfig, RunConfig, SuiteConfig
from fairspec_bench.schemas.io import write_record
from fairspec_bench.schemas.report import Estimate, RaceVerdict, Report, SuiteReport, TaskReport

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
SHA = "0123456789abcdef" * 4


def around(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def task(suite: str, language: str, index: int, *, raced: bool = True, empty: bool = False) -> TaskReport:
    """Language `index` of a suite, each a little worse than the one before; `empty` has no figure at all."""
    acceptance = 0.86 - 0.045 * index
    measures = {
        "acceptance": around(acceptance, 0.02),
        "overlap": around(acceptance - 0.03, 0.02),
        "acceptance_observed": around(acceptance + 0.01, 0.02),
        "block_efficiency": around(1 + 3 * acceptance, 0.09),
        "block_efficiency_uncut": around(1.1 + 3 * acceptance, 0.09),
        "draft_utilisation": around(acceptance - 0.1, 0.03),
        "misfit": around(0.2 + 0.11 * index, 0.03),
        "misfit_ce": around(0.6 + 0.12 * index, 0.03),
        "tokens_per_answer": around(90 + 7.0 * index, 6.0),
        "tokens_per_char": around(0.3 + 0.02 * index, 0.01),
        "verifier_calls_per_answer": around(25 + 4.0 * index, 2.0),
        "verifier_fitness": around(0.95 - 0.004 * index, 0.02),
        "drafter_fitness": around(0.5 - 0.04 * index, 0.04),
        "truncated": Estimate(value=0.024 if language == "te" else 0.0),
        "looping": Estimate(value=0.004 * index),
        "off_language": Estimate(value=0.0),
        "dropped": Estimate(value=0.0),
    }
    if raced:
        measures["speedup"] = around(1.9 - 0.1 * index, 0.06)
        measures["speedup_end_to_end"] = around(1.7 - 0.08 * index, 0.05)
        measures["speedup_predicted"] = around(1.95 - 0.1 * index, 0.04)
        measures["seconds_per_answer"] = around(0.3 + 0.06 * index, 0.01)
    joint = tuple(around(acceptance**j, 0.02) for j in range(1, 5))
    return TaskReport(
        task=f"{suite}/{language}",
        suite=suite,
        language=language,
        prompts=60,
        clusters=60,
        contexts=5400,
        tokens=5460,
        measures={} if empty else measures,
        acceptance_by_position=() if empty else tuple(around(acceptance + 0.01 * j, 0.02) for j in range(4)),
        acceptance_joint=() if empty else joint,
        block_efficiency_by_gamma={}
        if empty
        else {g: around(sum(acceptance**j for j in range(g + 1)), 0.05) for g in range(1, 9)},
        flags=("truncated 2.4 %: every figure is of cut answers",) if language == "te" else (),
    )


def report(
    verifier: str = "embedded:verifier",
    drafter: str = "embedded:drafter",
    *,
    suites: tuple[str, ...] = ("embedded_math", "embedded_story"),
    languages: tuple[str, ...] = LANGUAGES,
    empty: str = "zh",
    parameters: int | None = 1_900_000,
    kind: str = "model",
) -> Report:
    """Only the first suite is raced; the language `empty` has no figures."""

    def suite_report(suite: str) -> SuiteReport:
        raced = suite == suites[0]
        tasks = tuple(task(suite, c, i, raced=raced, empty=c == empty) for i, c in enumerate(languages))
        across = {
            "worst_acceptance": around(0.455, 0.02),
            "unfairness": Estimate(value=0.34, low=0.29, high=0.41),
            "acceptance_variance": Estimate(value=0.0171, low=0.015, high=0.019),
        }
        if raced:
            across["worst_speedup"] = around(1.0, 0.06)
        ranks = {t.task: (max(1, i), min(len(tasks), i + 2)) for i, t in enumerate(tasks) if t.measures}
        return SuiteReport(suite=suite, tasks=tasks, across=across, noise_floor=0.0042, ranks=ranks)

    hashes = dict.fromkeys(languages, SHA)
    config = RunConfig(
        verifier=ModelConfig(name=verifier, revision="9" * 40, parameters=parameters),
        drafter=ModelConfig(name=drafter, kind=kind, revision=None, parameters=460_000),
        suites=tuple(
            SuiteConfig(
                name=s,
                version="1",
                languages=languages,
                limit=60,
                num_fewshot=None,
                max_new_tokens=256,
                data_sha256=hashes,
                prompts_sha256=hashes,
            )
            for s in suites
        ),
        tokenizer_sha256=SHA,
        gamma=4,
        seed=0,
        batch_size=8,
        dtype="float32",
        device="cpu",
        race_prompts=20,
        race_rounds=5,
        chunks={},
        clusters={},
    )
    environment = Environment(
        platform="Linux-6.1-x86_64",
        python="3.11.2",
        processor="Example CPU @ 2.4 GHz",
        cores=2,
        threads=2,
        device="cpu",
        device_name="cpu",
        packages={"torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4.0"},
        commit="a" * 40,
        dirty=False,
        started="2026-11-20T10:00:00Z",
    )
    return Report(
        config=config,
        environments=(environment,),
        suites=tuple(map(suite_report, suites)),
        replicates=10_000,
        bootstrap_seed=0,
        race_verdict=RaceVerdict(status="quiet", ratio=Estimate(value=1.004, low=0.993, high=1.015), rounds=5),
    )


def run_folder(parent: Path, name: str, record: Report) -> Path:
    """A run folder with its report."""
    folder = parent / name
    folder.mkdir(parents=True)
    write_record(folder / "report.json", record)
    return folder
