"""Settings of `generation_config.json` that change texts are named with their values, neutral ones are not."""

from __future__ import annotations

from transformers import GenerationConfig

from fairspec_bench.schemas.generation_settings import not_followed, warning


def test_only_settings_that_change_texts_are_named() -> None:
    neutral = GenerationConfig(
        do_sample=True, temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1, typical_p=1.0, suppress_tokens=[]
    )
    assert not_followed(neutral) == not_followed(None) == {}
    set_ = GenerationConfig(repetition_penalty=1.05, no_repeat_ngram_size=3, begin_suppress_tokens=[220, 7])
    assert not_followed(set_) == {
        "repetition_penalty": 1.05,
        "no_repeat_ngram_size": 3,
        "begin_suppress_tokens": [220, 7],
    }


def test_what_only_concerns_sampling_changes_no_greedy_text() -> None:
    config = GenerationConfig(do_sample=True, min_p=0.1, bad_words_ids=[[5]])
    assert not_followed(config) == {"bad_words_ids": [[5]], "min_p": 0.1}
    assert not_followed(config, greedy=True) == {"bad_words_ids": [[5]]}


def test_the_warning_is_one_short_line() -> None:
    assert warning("v", {}) is None
    word = warning("v", {"repetition_penalty": 1.05, "suppress_tokens": list(range(500))})
    assert word is not None
    assert "v: generation_config.json sets repetition_penalty=1.05, suppress_tokens=[0, 1, 2" in word
    assert len(word) < 250
    assert "\n" not in word
