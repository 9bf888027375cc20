"""Tasks that are not languages: the built-in problems by kind, in lm-eval, training prompts and fine-tuning."""

from __future__ import annotations

import hashlib

import pytest

from fairspec_bench.suites.embedded import DOMAINS, domain_problem, problem
from fairspec_bench.suites.suite import Suite, describe, load_suite
from fairspec_bench.suites.training_prompts import refuse_suite_prompts, training_prompts

PINNED = {"1.0": "78170f30d8a096b4ec3fa442623e56a131588026b1df84d7509bd897103554a6"}


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("embedded_domain")


def test_the_tasks_are_domains_of_english_problems(suite: Suite) -> None:
    assert suite.languages == DOMAINS
    assert [sum(prompt.language == domain for prompt in suite.prompts) for domain in DOMAINS] == [250] * 4
    assert len({prompt.text for prompt in suite.prompts}) == 1000
    assert len({prompt.cluster for prompt in suite.prompts}) == 1000
    english = {problem("en", k).question for k in range(3000)}
    assert {domain_problem(domain, 7).question for domain in DOMAINS} <= english


def test_each_domain_has_its_own_kind_of_step(suite: Suite) -> None:
    signs = {domain: set() for domain in DOMAINS}
    for domain in DOMAINS:
        for k in range(60):
            signs[domain].add(frozenset(sign for sign in "+-*" if f" {sign} " in domain_problem(domain, k).solution))
    assert signs["buy"] == {frozenset("+")}
    assert signs["give"] == {frozenset("-")}
    assert all("*" in each for each in signs["box"])
    assert not signs["mixed"] & (signs["buy"] | signs["give"])


def test_answers_are_graded_and_no_language_is_claimed(suite: Suite) -> None:
    prompt = suite.prompts[0]
    right = suite.grade(prompt, f" The answer is {prompt.target}.")
    assert (right.correct, right.language) == (True, None)
    assert suite.grade(prompt, " The answer is 99999.").correct is False
    assert describe("embedded_domain").problem is None


def test_training_prompts_of_domains_are_of_the_tuning_split(suite: Suite) -> None:
    prompts = training_prompts(["embedded_domain"], limit=40)
    assert {prompt.language for prompt in prompts} == set(DOMAINS)
    assert "embedded_domain" in refuse_suite_prompts(prompts).checked


def test_a_changed_prompt_needs_a_new_version(suite: Suite) -> None:
    text = "".join(f"{p.key}\x1f{p.text}\x1f{p.stops}\x1f{p.max_new_tokens}\x1e" for p in suite.prompts)
    assert PINNED[suite.version] == hashlib.sha256(text.encode()).hexdigest()


def test_an_unknown_domain_is_an_error() -> None:
    with pytest.raises(KeyError):
        domain_problem("rhyme", 0)
