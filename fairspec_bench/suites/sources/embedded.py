"""The built-in suites: problems, stories and domains of the grammars in `suites/embedded.py`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from fairspec_bench.suites import embedded
from fairspec_bench.suites.sources.base import Data, Item, Source

ITEMS = 250


def _load_math(language: str) -> Data:
    problems = (embedded.problem(language, k) for k in range(ITEMS))
    return Data(tuple(Item(k, f"embedded_math/{k}", p.question, str(p.number)) for k, p in enumerate(problems)))


def _load_story(language: str) -> Data:
    stories = (embedded.story(language, k) for k in range(ITEMS))
    return Data(tuple(Item(k, f"embedded_story/{k}", s.opening, s.continuation) for k, s in enumerate(stories)))


def _load_domain(domain: str) -> Data:
    problems = (embedded.domain_problem(domain, k) for k in range(ITEMS))
    items = (Item(k, f"embedded_domain/{domain}/{k}", p.question, str(p.number)) for k, p in enumerate(problems))
    return Data(tuple(items))


# --------------------------------------------------------------------------- for fine-tuning


def _tuning_problem(language: str, k: int) -> str:
    return embedded.problem(language, k, "tune").question


def _tuning_story(language: str, k: int) -> str:
    return embedded.story(language, k, "tune").opening


def _tuning_domain(domain: str, k: int) -> str:
    return embedded.domain_problem(domain, k, "tune").question


# --------------------------------------------------------------------------- for an audit

Numbered = Iterator[tuple[int, str]]


def _fresh_problems(language: str, wanted: Callable[[embedded.Plot], bool], seed: int) -> Numbered:
    def signature(plot: embedded.Plot) -> str:
        return embedded.signature(plot.start, plot.events)

    used = set(map(signature, islice(filter(wanted, embedded.plots("test")), ITEMS)))
    fresh = (plot for plot in embedded.plots("test", seed) if wanted(plot) and signature(plot) not in used)
    return ((k, embedded.tell(language, plot).question) for k, plot in enumerate(fresh))


def _fresh_math(language: str, seed: int) -> Numbered:
    return _fresh_problems(language, lambda plot: True, seed)


def _fresh_domain(domain: str, seed: int) -> Numbered:
    return _fresh_problems("en", partial(embedded.of_domain, domain=domain), seed)


def _fresh_stories(language: str, seed: int) -> Numbered:
    scenes = list(range(ITEMS, embedded.story_count("test")))
    random.Random(f"fresh stories/{seed}").shuffle(scenes)
    return ((k, embedded.story(language, scene, "test", seed).opening) for k, scene in enumerate(scenes))


SOURCES = {
    "embedded_math": Source(
        _load_math,
        tuning_prompts={each: partial(_tuning_problem, each) for each in embedded.LANGUAGES},
        fresh_questions=_fresh_math,
    ),
    "embedded_story": Source(
        _load_story,
        tuning_prompts={each: partial(_tuning_story, each) for each in embedded.LANGUAGES},
        fresh_questions=_fresh_stories,
    ),
    "embedded_domain": Source(
        _load_domain,
        tuning_prompts={each: partial(_tuning_domain, each) for each in embedded.DOMAINS},
        fresh_questions=_fresh_domain,
    ),
}
