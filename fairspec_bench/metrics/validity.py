"""Validity: what qualifies a task's figures (answers cut, repeating, in another language, not run, not float32's).

And how accurate the models are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fairspec_bench.metrics.bootstrap import Array
from fairspec_bench.metrics.measure import Measure, column
from fairspec_bench.schemas.lines import Answer, Dropped, DtypeDivergence, Reference
from fairspec_bench.schemas.report import Estimate

TOLERATED = 0.01
MOST = 0.5
SHARES = ("truncated", "looping", "off_language", "dropped")
NEVER_RIGHT = "is exactly 0: no draft was ever right. Check the drafter's weights, dtype and tokenizer"
NEVER_WRONG = "is exactly 1: no draft was ever wrong. Check that the drafter is not the verifier"
COMPLETE = {"acceptance": "acceptance_complete", "speedup": "speedup_complete"}
"""A figure of all answers, and the same without those that repeat themselves or are cut."""
FITNESS = ("verifier_fitness", "drafter_fitness", "verifier_bits_per_byte", "drafter_bits_per_byte")
DTYPE_DIVERGENCE = ("diverged_share", "divergence_gap", "divergence_position")
CHECKED = "float32_check"


def bits(nats: Array, count: Array) -> Array:
    """Σ nats / Σ count, in bits."""
    return nats / math.log(2) / count


def measures() -> tuple[Measure, ...]:
    """What qualifies a task's figures, by name."""
    return (
        Measure(
            "truncated",
            "Truncated",
            "1",
            "Share of answers cut by max_new_tokens.",
            ("truncated", "prompts"),
            kind="share",
            better="lower",
            note="Above 1 % every figure of that language is flagged.",
            high=1,
        ),
        Measure(
            "looping",
            "Looping",
            "1",
            "Share of answers that repeat themselves.",
            ("looping", "prompts"),
            kind="share",
            better="lower",
            note="Loops are easy to draft, so they raise acceptance.",
            high=1,
        ),
        Measure(
            "off_language",
            "Off-language",
            "1",
            "Share of answers not in the language of the prompt.",
            ("off_language", "prompts"),
            kind="share",
            better="lower",
            high=1,
        ),
        Measure(
            "dropped",
            "Dropped",
            "1",
            "Share of prompts that could not be run, for example because they do not fit the model.",
            ("dropped", "prompts"),
            kind="share",
            better="lower",
            high=1,
        ),
        Measure(
            "acceptance_complete",
            "Acceptance, complete answers",
            "1",
            "Acceptance without the answers that repeat themselves or are cut.",
            ("complete_alpha", "complete_contexts"),
            kind="ratio",
            better="higher",
            high=1,
        ),
        Measure(
            "speedup_complete",
            "Speed-up, complete answers",
            "1",
            "Speed-up without the answers that repeat themselves or are cut.",
            ("complete_plain_ns", "complete_speculative_ns"),
            kind="times",
            better="higher",
            crossed=True,
        ),
        Measure(
            "verifier_fitness",
            "Verifier accuracy",
            "1",
            "Share of answers that the verifier alone gets right, where the suite has answers.",
            ("correct", "prompts"),
            kind="share",
            better="higher",
            note=(
                "On the embedded suite a right answer is a template exact match: the problems come from a "
                "fixed grammar, and matching it shows no reasoning."
            ),
            high=1,
        ),
        Measure(
            "drafter_fitness",
            "Drafter accuracy",
            "1",
            "Share of answers that the drafter alone gets right, where the suite has answers.",
            ("drafter_correct", "prompts"),
            kind="share",
            better="higher",
            high=1,
        ),
        Measure(
            "verifier_bits_per_byte",
            "Verifier bits per byte",
            "bits per byte",
            "−log₂ of the probability that the verifier gives the suite's reference texts, token by token after"
            " each prompt, ÷ their UTF-8 bytes.",
            ("verifier_target_nats", "verifier_target_bytes"),
            bits,
            better="lower",
            note="Lower is better. Languages differ by script: compare models on one language.",
        ),
        Measure(
            "drafter_bits_per_byte",
            "Drafter bits per byte",
            "bits per byte",
            "−log₂ of the probability that the drafter gives the suite's reference texts, token by token after "
            "each prompt, ÷ their UTF-8 bytes.",
            ("drafter_target_nats", "drafter_target_bytes"),
            bits,
            better="lower",
            note="Lower is better. Languages differ by script: compare models on one language.",
        ),
        Measure(
            "diverged_share",
            "Diverged from float32",
            "1",
            "Share of answers in bfloat16 or float16 that differ at some token from the greedy answer of the "
            "same verifier in float32.",
            ("diverged", "prompts"),
            kind="share",
            better="lower",
            note="Rounding, not an error; the two answers may differ from there on.",
            high=1,
            asked_by=CHECKED,
        ),
        Measure(
            "divergence_gap",
            "Gap at the divergence",
            "nats",
            "Float32 logit of its own token − that of the answer's token, where they first differ; mean over "
            "the answers that diverge.",
            ("divergence_gap", "diverged"),
            note="Small gaps are near-ties.",
            asked_by=CHECKED,
        ),
        Measure(
            "divergence_position",
            "Position of the divergence",
            "tokens",
            "Output position, from 1, where the answer first differs from float32's; mean over the answers that"
            " diverge.",
            ("divergence_position", "diverged"),
            asked_by=CHECKED,
        ),
    )


def columns(
    keys: Sequence[str],
    languages: Sequence[str],
    references: Mapping[str, Reference],
    answers: Mapping[str, Answer],
    drafter_answers: Mapping[str, Answer],
    dropped: Mapping[str, Dropped],
    divergences: Mapping[str, DtypeDivergence],
) -> dict[str, Array]:
    """What holds of each prompt as 0 or 1, nats and bytes of its target by either model, where it left float32.

    float64 `[prompts]`, NaN where unknown. `languages` are the prompts' own.
    """
    traced = [references.get(key) for key in keys]
    graded = [answers.get(key) for key in keys]
    drafted = [drafter_answers.get(key) for key in keys]
    checked = [divergences.get(key) for key in keys]
    return {
        "truncated": column(None if reference is None else reference.finish == "length" for reference in traced),
        "looping": column(None if answer is None else answer.looping for answer in graded),
        "off_language": column(
            None if answer is None or answer.language is None else answer.language != language
            for answer, language in zip(graded, languages, strict=True)
        ),
        "dropped": column(key in dropped for key in keys),
        "correct": column(None if answer is None else answer.correct for answer in graded),
        "drafter_correct": column(None if answer is None else answer.correct for answer in drafted),
        **{
            f"{model}_{name}": column(None if answer is None else getattr(answer, name) for answer in found)
            for model, found in (("verifier", graded), ("drafter", drafted))
            for name in ("target_nats", "target_bytes")
        },
        "diverged": column(None if line is None else line.first is not None for line in checked),
        "divergence_gap": column(None if line is None else line.gap for line in checked),
        "divergence_position": column(None if line is None else line.first for line in checked),
    }


def complete(
    table: Mapping[str, Array],
    keys: Sequence[str],
    references: Mapping[str, Reference],
    answers: Mapping[str, Answer],
    names: Sequence[str],
) -> dict[str, Array]:
    """The named columns, NaN where the answer of a row's prompt repeats itself, is cut or was not looked at."""
    kept = np.array(
        [
            key in answers and key in references and not answers[key].looping and references[key].finish != "length"
            for key in keys
        ],
        dtype=np.bool_,
    )
    return {f"complete_{name}": np.where(kept, table[name], np.nan) for name in names}


def is_mostly_bad(measured: Mapping[str, Estimate]) -> bool:
    """Whether most answers repeat themselves or are cut: figures of such texts say nothing of the language."""
    return any((measured.get(name, Estimate()).value or 0.0) > MOST for name in ("looping", "truncated"))


def is_above_tolerated(share: Estimate) -> bool:
    """Whether so many answers are bad that the task's figures must be marked."""
    return share.value is not None and share.value > TOLERATED


def flags(measured: Mapping[str, Estimate]) -> tuple[str, ...]:
    """What puts a task's figures in doubt, a line each.

    Shares of bad answers above 1 % (`truncated` puts every figure in doubt), so many that the task is not ranked, and
    acceptance that is the same at every token.
    """
    lines = []
    for name in SHARES:
        share = measured[name]
        if is_above_tolerated(share):
            doubt = ": every figure is of cut answers" if name == "truncated" else ""
            lines.append(f"{name} {100 * (share.value or 0):.1f} %{doubt}")
    if is_mostly_bad(measured):
        lines.append("not ranked: most answers repeat themselves or are cut")
    for name in ("acceptance", "acceptance_observed"):
        value = measured[name].value
        if value in (0.0, 1.0):
            lines.append(f"{name} {NEVER_RIGHT if value == 0 else NEVER_WRONG}")
            break
    return tuple(lines)
