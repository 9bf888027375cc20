"""Batches of the built-in text for training: problems and stories in all languages, with a chosen mix of languages.

Only the `train` split is read here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import cache

import torch
from transformers import PreTrainedTokenizerFast

from fairspec_bench.suites.embedded import LANGUAGES, problem, story
from fairspec_bench.testbed.tokenizer import EOS_ID, PAD_ID
from fairspec_bench.testbed.trainer import Source, TrainingBatch

PROBLEMS = 60_000
STORIES = 20_000
STORY_SHARE = 0.2
PROMPT_WEIGHT = 0.2
_BUCKET = 16
"""Steps whose documents are drawn together and sorted by length, so that a batch has little padding."""


def zipf(order: tuple[str, ...], skew: float) -> dict[str, float]:
    """Shares of languages falling as `rank ** -skew` in this order; skew 0 is uniform. They sum to 1."""
    weights = {language: (rank + 1) ** -skew for rank, language in enumerate(order)}
    return {language: weight / sum(weights.values()) for language, weight in weights.items()}


def tokenizer_texts(each: int = 400) -> Iterator[str]:
    """Problems and stories of every language, for training a tokenizer."""
    for language in LANGUAGES:
        for k in range(each):
            one = problem(language, k, "train")
            yield one.question + one.solution
            if k < each // 2:
                tale = story(language, k, "train")
                yield tale.opening + tale.continuation


def document(tokenizer: PreTrainedTokenizerFast, language: str, k: int, is_story: bool) -> tuple[list[int], int]:
    """The ids of a problem or story of the train split, EOS included, and how many of them are the prompt."""
    if is_story:
        tale = story(language, k, "train")
        prompt, rest = tale.opening, tale.continuation
    else:
        one = problem(language, k, "train")
        prompt, rest = one.question, one.solution
    head, tail = tokenizer([prompt, rest]).input_ids
    return [*head, *tail, EOS_ID], len(head)


def source(
    tokenizer: PreTrainedTokenizerFast,
    mix: Mapping[str, float],
    batch: int,
    seed: int,
    *,
    problems: int = PROBLEMS,
    story_share: float = STORY_SHARE,
) -> Source:
    """Batches of `batch` documents, languages drawn by `mix` (in any order), as a function of the step's number."""
    names = sorted(mix)
    shares = [mix[name] for name in names]

    @cache
    def bucket(number: int) -> list[list[tuple[list[int], int]]]:
        rng = random.Random(f"{seed}/{number}")
        languages = rng.choices(names, shares, k=batch * _BUCKET)
        documents = []
        for language in languages:
            is_story = rng.random() < story_share
            documents.append(document(tokenizer, language, rng.randrange(STORIES if is_story else problems), is_story))
        documents.sort(key=lambda d: len(d[0]))
        parts = [documents[i : i + batch] for i in range(0, len(documents), batch)]
        rng.shuffle(parts)
        return parts

    def at(step: int) -> TrainingBatch:
        number, place = divmod(step, _BUCKET)
        if place == 0:
            bucket.cache_clear()
        return pad(bucket(number)[place])

    return at


def pad(documents: list[tuple[list[int], int]]) -> TrainingBatch:
    """Documents as ids [B, L] and weights [B, L]: the prompt counts `PROMPT_WEIGHT`, the rest 1, padding 0."""
    longest = max(len(ids) for ids, _ in documents)
    ids = torch.full((len(documents), longest), PAD_ID)
    weights = torch.zeros(len(documents), longest)
    for row, (tokens, prompt) in enumerate(documents):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, :prompt] = PROMPT_WEIGHT
        weights[row, prompt : len(tokens)] = 1.0
    return ids, weights
