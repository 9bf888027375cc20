"""What qualifies a task's figures: answers cut short, repeating, in another language, never run, or not float32's.

And how fit models are. Knows traces, answers, departures and dropped prompts; knows nothing of drafts or clocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fairspec_bench.measure.bootstrap import Array
from fairspec_bench.measure.table import Measure, column
from fairspec_bench.records import Answer, Departure, Dropped, Estimate, Trace

TOLERATED = 0.01
SHARES = ("truncated", "looping", "off_language", "dropped")
FITNESS = ("verifier_fitness", "drafter_fitness", "verifier_bits_per_byte", "drafter_bits_per_byte")
DEPARTURE = ("departed_share", "departure_gap", "departure_position")
CHECKED = "float32_check"


def bits(nats: Array, count: Array) -> Array:
    """Σ nats / Σ count, in bits."""
    return nats / math.log(2) / count


def measures() -> tuple[Measure, ...]:
    """The measures of this room, by their METRICS names."""
    return (
        Measure("truncated", "1", "answers cut by the cap / answers", ("truncated", "prompts"), high=1),
        Measure("looping", "1", "answers that repeat themselves / graded answers", ("looping", "prompts"), high=1),
        Measure(
            "off_language",
            "1",
            "answers not in the prompt's language / answers whose language was told",
            ("off_language", "prompts"),
            high=1,
        ),
        Measure("dropped", "1", "prompts not run / prompts", ("dropped", "prompts"), high=1),
        Measure("verifier_fitness", "1", "the verifier's accuracy, decoding alone", ("correct", "prompts"), high=1),
        Measure(
            "drafter_fitness", "1", "the drafter's accuracy, decoding alone", ("drafter_correct", "prompts"), high=1
        ),
        *(
            Measure(
                f"{model}_bits_per_byte",
                "bits/byte",
                f"−log2 p of the reference texts by the {model}, teacher-forced / their UTF-8 bytes; lower is better",
                (f"{model}_target_nats", f"{model}_target_bytes"),
                bits,
            )
            for model in ("verifier", "drafter")
        ),
        Measure(
            "departed_share",
            "1",
            "answers that leave the greedy text of the same verifier in float32 / answers",
            ("departed", "prompts"),
            high=1,
            asked_by=CHECKED,
        ),
        Measure(
            "departure_gap",
            "nats",
            "float32 logit of the likeliest token − of the answer's, where it first departs; mean of those that do",
            ("departure_gap", "departed"),
            asked_by=CHECKED,
        ),
        Measure(
            "departure_position",
            "tokens",
            "output position where it first departs, from 1; mean of those that do",
            ("departure_position", "departed"),
            asked_by=CHECKED,
        ),
    )


def columns(
    keys: Sequence[str],
    languages: Sequence[str],
    traces: Mapping[str, Trace],
    answers: Mapping[str, Answer],
    drafter_answers: Mapping[str, Answer],
    dropped: Mapping[str, Dropped],
    departures: Mapping[str, Departure],
) -> dict[str, Array]:
    """What befell each prompt as 0 or 1, its reference text's nats and bytes by either model, where it left float32.

    float64 `[prompts]`, NaN where unknown. `languages` are the prompts' own.
    """
    traced = [traces.get(key) for key in keys]
    graded = [answers.get(key) for key in keys]
    drafted = [drafter_answers.get(key) for key in keys]
    checked = [departures.get(key) for key in keys]
    return {
        "truncated": column(None if trace is None else trace.finish == "cap" for trace in traced),
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
        "departed": column(None if line is None else line.first is not None for line in checked),
        "departure_gap": column(None if line is None else line.gap for line in checked),
        "departure_position": column(None if line is None else line.first for line in checked),
    }


def flags(measured: Mapping[str, Estimate]) -> tuple[str, ...]:
    """A line for each share above 1 %: `truncated` puts every figure of the task in doubt, the others qualify them."""
    lines = []
    for name in SHARES:
        share = measured[name].value
        if share is not None and share > TOLERATED:
            doubt = ": every figure is of cut answers" if name == "truncated" else ""
            lines.append(f"{name} {100 * share:.1f} %{doubt}")
    return tuple(lines)
