"""The training data of a fine-tuning: the verifier's own continuations of prompts, by task, and batches of them.

Everything here is token ids and names of tasks, which are opaque: a language, a domain, anything.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fairspec_bench.schemas.base import FairspecError, Sha256


@dataclass(frozen=True)
class Example:
    """One prompt and the verifier's continuation, as ids. Its contexts are output positions 2…N: `len(output) − 1`.

    `key` is the prompt's name in errors.
    """

    task: str
    prompt: tuple[int, ...]
    output: tuple[int, ...]
    key: str = "a prompt"

    @property
    def contexts(self) -> int:
        """How many contexts the example has."""
        return len(self.output) - 1


@dataclass(frozen=True)
class Corpus:
    """Examples to train on, and examples of other prompts by which training is stopped and rates are chosen.

    `shares` says how common each task is in use; only sampling by share reads it. Raises `FairspecError` where a
    task lacks examples of either kind.
    """

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        for task in self.tasks:
            for kind, examples in (("training", self.train), ("held-out", self.held_out)):
                if not any(example.task == task and example.contexts for example in examples):
                    raise FairspecError(f"task {task}: no {kind} example of two tokens or more. Give it more prompts.")
        if set(self.shares) != set(self.tasks):
            raise FairspecError(f"shares are of {sorted(self.shares)}, the examples of {list(self.tasks)}.")

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order of their first training example."""
        return tuple(dict.fromkeys(example.task for example in (*self.train, *self.held_out)))

    @cached_property
    def by_task(self) -> Mapping[str, tuple[int, ...]]:
        """Indices into `train` of each task's examples that have a context."""
        found: dict[str, list[int]] = {task: [] for task in self.tasks}
        for index, example in enumerate(self.train):
            if example.contexts:
                found[example.task].append(index)
        return {task: tuple(indices) for task, indices in found.items()}

    @cached_property
    def sha256(self) -> Sha256:
        """Hash of every example in order, and of the shares."""
        parts = [[[t.task, t.prompt, t.output] for t in examples] for examples in (self.train, self.held_out)]
        return hashlib.sha256(json.dumps([*parts, sorted(self.shares.items())]).encode()).hexdigest()


@dataclass(frozen=True)
class Batches:
    """The training examples of each step, a function of the step alone, so that a training can be resumed.

    `tau` None: stratified, `per_task` examples of every task, reshuffled each epoch of the task.
    Else tasks are drawn with probability ∝ share^(1/tau), as multilingual pre-training balances its data; a batch may
    then lack a task.
    """

    corpus: Corpus
    per_task: int
    seed: int
    tau: float | None = None

    def at(self, step: int) -> tuple[int, ...]:
        """Indices into `corpus.train` of the examples of one step."""
        return self._stratified(step) if self.tau is None else self._drawn(step, self.tau)

    def _stratified(self, step: int) -> tuple[int, ...]:
        places = range(step * self.per_task, (step + 1) * self.per_task)
        return tuple(self._nth(task, place) for task in self.corpus.tasks for place in places)

    def _nth(self, task: str, place: int) -> int:
        examples = self.corpus.by_task[task]
        epoch, index = divmod(place, len(examples))
        order = list(examples)
        random.Random(f"{self.seed}/{task}/{epoch}").shuffle(order)
        return order[index]

    def _drawn(self, step: int, tau: float) -> tuple[int, ...]:
        tasks = self.corpus.tasks
        weights = [self.corpus.shares[task] ** (1 / tau) for task in tasks]
        rng = random.Random(f"{self.seed}/{step}")
        drawn = rng.choices(tasks, weights, k=self.per_task * len(tasks))
        return tuple(rng.choice(self.corpus.by_task[task]) for task in drawn)


def count_contexts(examples: Sequence[Example], tasks: Sequence[str]) -> list[int]:
    """How many contexts each of `tasks` has among `examples`."""
    counts = dict.fromkeys(tasks, 0)
    for example in examples:
        counts[example.task] += example.contexts
    return [counts[task] for task in tasks]


def count_examples(examples: Sequence[Example]) -> dict[str, int]:
    """How many examples each task has."""
    return dict(Counter(example.task for example in examples))
