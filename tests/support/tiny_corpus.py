"""A corpus of three made-up tasks and a pair of random models to train on it."""

from __future__ import annotations

import torch
from transformers import LlamaForCausalLM

from fairspec_bench.mitigation.corpus import Corpus, Example
from fairspec_bench.mitigation.methods import Trained, find
from fairspec_bench.mitigation.passes import Teacher, TrainingSetup
from fairspec_bench.testbed.trainer import Shape, build

VOCABULARY = 40
TASKS = ("a", "b", "c")


def made_corpus(examples: int = 4) -> Corpus:
    generator = torch.Generator().manual_seed(7)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, VOCABULARY, (count,), generator=generator).tolist())

    made = [
        Example(task, ids(3 + n), ids(2 + 2 * n + number)) for number, task in enumerate(TASKS) for n in range(examples)
    ]
    return Corpus(tuple(made), tuple(made), dict.fromkeys(TASKS, 1.0))


def made_model(seed: int) -> LlamaForCausalLM:
    return build(Shape(16, 1, 2, 1, 8, 24), VOCABULARY, 64, seed)


def make_setup(corpus: Corpus, *, double: bool = False) -> TrainingSetup:
    student, verifier = made_model(1), made_model(2)
    if double:
        student.double()
    verifier.requires_grad_(False)
    return TrainingSetup(student, Teacher(verifier, corpus.train), Teacher(verifier, corpus.held_out), corpus)


def find_trained(name: str) -> Trained:
    method = find(name)
    assert isinstance(method, Trained)
    return method
