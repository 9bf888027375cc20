"""Names of prompts and tasks: `suite/language/number` and `suite/language`. Nothing else takes them apart."""

from __future__ import annotations


class Task(str):
    """One language (or other part) of one suite: `suite/language`."""

    __slots__ = ()

    @classmethod
    def of(cls, suite: str, language: str) -> Task:
        return cls(f"{suite}/{language}")

    @property
    def suite(self) -> str:
        return self.partition("/")[0]

    @property
    def language(self) -> str:
        return self.rpartition("/")[2]


class PromptKey(str):
    """One prompt of a task: `suite/language/number`. The name of a chunk of a run has the same form."""

    __slots__ = ()

    @property
    def task(self) -> Task:
        return Task(self.rpartition("/")[0])

    @property
    def suite(self) -> str:
        return self.task.suite

    @property
    def language(self) -> str:
        return self.task.language

    @property
    def number(self) -> str:
        return self.rpartition("/")[2]
