"""What a drafter is mended on: the verifier's own continuations of prompts, by task, and the batches made of them.

Knows ids and the names of tasks, which are opaque: a language, a domain, anything. Knows no text, no suite, no model.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fairspec_bench.records import FairspecError, Sha256


@dataclass(frozen=True)
class Text:
    """One prompt and the verifier's continuation, as ids. Its contexts are output positions 2…N: `len(output) − 1`."""

    task: str
    prompt: tuple[int, ...]
    output: tuple[int, ...]

    @property
    def contexts(self) -> int:
        """How many contexts the text has."""
        return len(self.output) - 1


@dataclass(frozen=True)
class Corpus:
    """Texts to train on, and texts of other prompts by which training is stopped and rates are chosen.

    `shares` says how common each task is in the wild; only drawing by share reads it. Raises `FairspecError` where a
    task lacks texts of either kind.
    """

    train: tuple[Text, ...]
    held_out: tuple[Text, ...]
    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        for task in self.tasks:
            for kind, texts in (("training", self.train), ("held-out", self.held_out)):
                if not any(text.task == task and text.contexts for text in texts):
                    raise FairspecError(f"task {task}: no {kind} text of two tokens or more. Give it more prompts.")
        if set(self.shares) != set(self.tasks):
            raise FairspecError(f"shares are of {sorted(self.shares)}, the texts of {list(self.tasks)}.")

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order of their first training text."""
        return tuple(dict.fromkeys(text.task for text in (*self.train, *self.held_out)))

    @cached_property
    def by_task(self) -> Mapping[str, tuple[int, ...]]:
        """Indices into `train` of each task's texts that have a context."""
        found: dict[str, list[int]] = {task: [] for task in self.tasks}
        for index, text in enumerate(self.train):
            if text.contexts:
                found[text.task].append(index)
        return {task: tuple(indices) for task, indices in found.items()}

    @cached_property
    def sha256(self) -> Sha256:
        """Hash of every text in order, and of the shares."""
        parts = [[[t.task, t.prompt, t.output] for t in texts] for texts in (self.train, self.held_out)]
        return hashlib.sha256(json.dumps([*parts, sorted(self.shares.items())]).encode()).hexdigest()


@dataclass(frozen=True)
class Batches:
    """Which training texts each step sees, as a function of the step alone, so that a stopped training can go on.

    `tau` None: stratified, `per_task` texts of every task, each task's texts shuffled anew every time they run out.
    Else tasks are drawn with probability ∝ share^(1/tau), as multilingual pre-training balances its data; a batch may
    then lack a task.
    """

    corpus: Corpus
    per_task: int
    seed: int
    tau: float | None = None

    def at(self, step: int) -> tuple[int, ...]:
        """Indices into `corpus.train` of the texts of one step."""
        return self._stratified(step) if self.tau is None else self._drawn(step, self.tau)

    def _stratified(self, step: int) -> tuple[int, ...]:
        places = range(step * self.per_task, (step + 1) * self.per_task)
        return tuple(self._nth(task, place) for task in self.corpus.tasks for place in places)

    def _nth(self, task: str, place: int) -> int:
        texts = self.corpus.by_task[task]
        epoch, index = divmod(place, len(texts))
        order = list(texts)
        random.Random(f"{self.seed}/{task}/{epoch}").shuffle(order)
        return order[index]

    def _drawn(self, step: int, tau: float) -> tuple[int, ...]:
        tasks = self.corpus.tasks
        weights = [self.corpus.shares[task] ** (1 / tau) for task in tasks]
        rng = random.Random(f"{self.seed}/{step}")
        drawn = rng.choices(tasks, weights, k=self.per_task * len(tasks))
        return tuple(rng.choice(self.corpus.by_task[task]) for task in drawn)


def count_contexts(texts: Sequence[Text], tasks: Sequence[str]) -> list[int]:
    """How many contexts each of `tasks` has among `texts`."""
    counts = dict.fromkeys(tasks, 0)
    for text in texts:
        counts[text.task] += text.contexts
    return [counts[task] for task in tasks]


def count_texts(texts: Sequence[Text]) -> dict[str, int]:
    """How many texts each task has."""
    return dict(Counter(text.task for text in texts))
