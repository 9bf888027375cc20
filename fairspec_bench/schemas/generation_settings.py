"""Settings of `generation_config.json` that no engine here follows; temperature, top-k and top-p are a run's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SAMPLING_ONLY: Mapping[str, Any] = {
    "typical_p": 1.0,
    "min_p": 0.0,
    "top_h": None,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""Settings that change what is drawn and not what is likeliest, at the values that change nothing."""
NEUTRAL: Mapping[str, Any] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "bad_words_ids": None,
    "force_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": None,
    "stop_strings": None,
    "penalty_alpha": None,
    "watermarking_config": None,
    **SAMPLING_ONLY,
}
"""Options of Transformers' `generate` that no engine here has, at the values that change nothing."""


def not_followed(config: Any, *, greedy: bool = False) -> dict[str, Any]:
    """The settings of a `GenerationConfig`, or of none, that would change texts, with their values, by name.

    `greedy`: of greedy texts, which those that only concern sampling do not change.
    """
    found = {name: getattr(config, name, None) for name in NEUTRAL if not (greedy and name in SAMPLING_ONLY)}
    return {name: value for name, value in found.items() if value not in (None, [], {}, NEUTRAL[name])}


def warning(model: str, settings: Mapping[str, Any]) -> str | None:
    """One line that names the settings of `model` that are not followed; `None` if there are none."""
    if not settings:
        return None
    shown = ", ".join(f"{name}={_short(value)}" for name, value in settings.items())
    return (
        f"{model}: generation_config.json sets {shown}, which Transformers' generate follows and speculative decoding "
        "here does not: texts differ."
    )


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:60]}…"
