"""The columns of the frames that a run's lines are exported as (docs/DATA.md): names, types, units, meanings."""

from __future__ import annotations

from dataclasses import dataclass

TEXT, FLOAT, COUNT, FLAG = "str", "float64", "Int64", "boolean"


@dataclass(frozen=True)
class Column:
    """A column of a frame: its pandas type, its unit (empty for what has none) and what it holds."""

    name: str
    dtype: str
    unit: str
    meaning: str


def columns(*given: tuple[str, str, str, str]) -> tuple[Column, ...]:
    """Columns by name, type, unit and meaning."""
    return tuple(Column(*each) for each in given)


PROMPT = columns(
    ("key", TEXT, "", "the prompt, `suite/language/number`"),
    ("suite", TEXT, "", "its suite"),
    ("language", TEXT, "", "its language, or other task"),
    ("cluster", TEXT, "", "the problem that it shares with other languages: what intervals resample"),
)
_CHUNK = columns(("chunk", TEXT, "", "the chunk of the run that it was made in"))
_ANSWER = columns(
    ("correct", FLAG, "", "whether the answer is right; null where a suite has no right answers"),
    ("answer_language", TEXT, "", "language the answer was found to be in"),
    ("looping", FLAG, "", "whether it repeats itself"),
    ("chars", COUNT, "characters", "its length"),
    ("bytes", COUNT, "bytes", "its length in UTF-8"),
    ("target_nats", FLOAT, "nats", "−ln p of the suite's reference text, where it has one"),
    ("target_bytes", COUNT, "bytes", "length of that text in UTF-8"),
)

REFERENCE = (
    *PROMPT,
    *columns(
        ("tokens", COUNT, "tokens", "length of the verifier's text"),
        ("finish", TEXT, "", "why it ends: `eos`, `stop` or `length`"),
    ),
    *_CHUNK,
)
ANSWER = (*PROMPT, *_ANSWER)
REPLAY = (
    *PROMPT,
    *columns(
        ("contexts", COUNT, "tokens", "tokens after the first: those that blocks commit"),
        ("acceptance", FLOAT, "1", "mean alpha"),
        ("overlap", FLOAT, "1", "mean alpha at temperature 1 on the full softmax"),
        ("misfit", FLOAT, "nats", "mean KL(p‖q)"),
        ("misfit_ce", FLOAT, "nats", "mean cross-entropy of q under p"),
        ("verifier_entropy", FLOAT, "nats", "mean entropy of p"),
        ("blocks", FLOAT, "blocks", "verifier calls after prefill; under sampling an expectation"),
        ("tested", FLOAT, "tokens", "drafts that were tested; under sampling an expectation"),
        ("accepted", FLOAT, "tokens", "drafts that were accepted; under sampling an expectation"),
        ("divergences", COUNT, "contexts", "where the verifier's own argmax, here, is likelier than the text's"),
        ("largest_gap", FLOAT, "nats", "by how much at most"),
    ),
    *_CHUNK,
)
DTYPE_DIVERGENCE = (
    *PROMPT,
    *columns(
        ("first", COUNT, "position", "first output position, from 1, that is not float32's; null for none"),
        ("gap", FLOAT, "nats", "by how much float32's own is likelier there"),
    ),
    *_CHUNK,
)
RACE = (
    *PROMPT,
    *columns(
        ("mode", TEXT, "", "`autoregressive`, `speculative` or `control`"),
        ("round", COUNT, "", "round of the race, from 0"),
        ("order", COUNT, "", "place of this mode within its prompt and round"),
        ("context", COUNT, "tokens", "length of the prompt"),
        ("tokens", COUNT, "tokens", "length of the text"),
        ("blocks", COUNT, "blocks", "blocks of the decode; null without a drafter, or where an engine hides them"),
        ("tested", COUNT, "tokens", "drafts that were tested; null without a drafter"),
        ("accepted", COUNT, "tokens", "drafts that were accepted; null without a drafter"),
        ("diverged_at", COUNT, "position", "where a serving engine's text leaves the reference; null for nowhere"),
        ("prefill_ns", COUNT, "ns", "the verifier's prefill"),
        ("drafter_prefill_ns", COUNT, "ns", "the drafter's prefill"),
        ("decode_ns", COUNT, "ns", "all steps after both prefills"),
        ("draft_first_ns", COUNT, "ns", "of these, first drafter steps of blocks"),
        ("draft_first", COUNT, "steps", "how many those were"),
        ("draft_next_ns", COUNT, "ns", "further drafter steps of blocks"),
        ("draft_next", COUNT, "steps", "how many those were"),
        ("verify_ns", COUNT, "ns", "verifier steps"),
        ("verify", COUNT, "steps", "how many those were"),
        ("rest_ns", COUNT, "ns", "everything else"),
    ),
    *_CHUNK,
)
SWEEP = columns(
    ("suite", TEXT, "", "the suite"),
    ("language", TEXT, "", "language, or other task"),
    ("half", COUNT, "", "0: the half of the prompts that chooses γ; 1: the half that reports it"),
    ("batch_size", COUNT, "prompts", "rows decoded together"),
    ("gamma", COUNT, "tokens", "drafts in a block; 0 is autoregressive"),
    ("round", COUNT, "", "round of the sweep, from 0"),
    ("order", COUNT, "", "place within its round"),
    ("prompts", COUNT, "prompts", "prompts decoded"),
    ("tokens", COUNT, "tokens", "output tokens of all"),
    ("prefill_ns", COUNT, "ns", "both models' prefills, added up"),
    ("decode_ns", COUNT, "ns", "all steps after them"),
    ("chunk", TEXT, "", "the chunk of the run that it was made in"),
)
