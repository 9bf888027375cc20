"""Equality with lm-eval: its prompts are ours, its scores are ours, and its own evaluator runs our files."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from fairspec_bench.suites.embedded import LANGUAGES
from fairspec_bench.suites.listing import tasks_folder
from fairspec_bench.suites.suite import load_suite

SAMPLES = [0, 1, 17]


class ReplayLM(LM):
    """Gives prepared texts by task and document, and keeps what it was asked."""

    def __init__(self, texts: dict[tuple[str, int], str]) -> None:
        super().__init__()
        self.texts = texts
        self.asked: dict[tuple[str, int], Instance] = {}

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        for request in requests:
            self.asked[request.task_name, request.doc_id] = request
        return [self.texts[request.task_name, request.doc_id] for request in requests]

    def loglikelihood(self, requests: list[Instance], **_: Any) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Instance], **_: Any) -> list[float]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def manager(data_dir: Path) -> Iterator[TaskManager]:
    logger = logging.getLogger("lm_eval")
    logger.setLevel(logging.ERROR)
    yield TaskManager(include_path=str(tasks_folder()), include_defaults=False)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("suite", ["mgsm", "multiq", "embedded_math", "embedded_story"])
def test_prompts_are_those_of_lm_eval(manager: TaskManager, suite: str) -> None:
    tasks = manager.load([f"fairspec_{suite}"])["tasks"]
    for chat, multiturn in ((False, False), (True, True), (True, False)):
        options: dict[str, Any] = {"apply_chat_template": chat, "fewshot_as_multiturn": multiturn}
        ours = {prompt.key: prompt for prompt in load_suite(suite, limit=SAMPLES[-1] + 1, **options).prompts}
        for language in LANGUAGES:
            task = tasks[f"fairspec_{suite}_{language}"]
            task.build_all_requests(samples=SAMPLES, chat_template=lambda turns, **_: json.dumps(turns), **options)
            assert len(task.instances) == len(SAMPLES)
            for k, instance in zip(SAMPLES, task.instances, strict=True):
                prompt = ours[f"{suite}/{language}/{k}"]
                context, generation = instance.args
                turns = [turn.model_dump() for turn in prompt.messages or ()]
                assert context == (json.dumps(turns) if chat else prompt.text)
                assert prompt.stops == tuple(generation["until"])
                assert prompt.max_new_tokens == generation["max_gen_toks"]


def test_plain_evaluation_gives_our_grades(manager: TaskManager) -> None:
    tasks = {"fairspec_embedded_math_en": "embedded_math", "fairspec_mgsm_te": "mgsm", "fairspec_multiq_zh": "multiq"}
    suites = {task: load_suite(suite, languages=[task[-2:]], limit=4) for task, suite in tasks.items()}
    shapes = ("{}", "the answer is {}.00", "{}5", "౧ + ౧ = {} " * 30)
    texts = {
        (task, k): shape.replace("{}", suite.prompts[k].target or "")
        for task, suite in suites.items()
        for k, shape in enumerate(shapes)
    }
    model = ReplayLM(texts)
    results = simple_evaluate(
        model, tasks=list(tasks), limit=4, task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    assert results is not None
    for task, suite in suites.items():
        grades = [suite.grade(prompt, texts[task, k]) for k, prompt in enumerate(suite.prompts)]
        logged = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
        assert [model.asked[task, k].args[0] for k in range(4)] == [prompt.text for prompt in suite.prompts]
        if suite.name == "multiq":
            assert [bool(sample["looping"]) for sample in logged] == [grade.looping for grade in grades]
            assert results["results"][task]["looping,none"] == 0.25
            continue
        assert [bool(sample["exact_match"]) for sample in logged] == [grade.correct for grade in grades]
        assert [grade.correct for grade in grades] == [True, True, False, True]
        assert results["results"][task]["exact_match,number"] == 0.75
        assert results["versions"][task] == float(suite.version)


def test_groups_average_languages_equally(manager: TaskManager) -> None:
    suite = load_suite("embedded_math", limit=2)
    right = {"bn", "de", "en"}
    texts = {
        (f"fairspec_embedded_math_{p.language}", k % 2): p.target if p.language in right and p.target else "none"
        for k, p in enumerate(suite.prompts)
    }
    results = simple_evaluate(
        ReplayLM(texts), tasks=["fairspec_embedded_math"], limit=2, task_manager=manager, bootstrap_iters=0
    )
    assert results is not None
    assert results["results"]["fairspec_embedded_math"]["exact_match,number"] == pytest.approx(3 / 11)
