"""Suites: the lm-eval task files under `tasks/` as prompts, and the grade of an answer by lm-eval's own scoring.

Every prompt is what lm-eval itself renders and every grade is what it would log, so that figures here and from plain
`lm-eval --include_path tasks` are comparable. No tokens and no models here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from fairspec_bench.schemas.base import FairspecError, Sha256, unknown
from fairspec_bench.schemas.config import SuiteConfig
from fairspec_bench.schemas.lines import Answer
from fairspec_bench.schemas.prompts import Message, Prompt
from fairspec_bench.suites.grading import looping
from fairspec_bench.suites.language_id import identify
from fairspec_bench.suites.listing import SuiteInfo, suite_info, tasks_folder
from fairspec_bench.suites.sources import registry
from fairspec_bench.suites.sources.base import Data, Item, data_sha256

PromptBody = str | tuple[Message, ...]
"""A prompt as text or as chat messages."""


@dataclass(frozen=True)
class SuiteStatus:
    """A suite and the data at hand, by language. `problem`: why some is missing, in one line, else `None`.

    `as_published` is whether the data's hash is the one in the group file, `None` for a language not listed there.
    """

    info: SuiteInfo
    prompts: Mapping[str, int]
    data_sha256: Mapping[str, Sha256]
    as_published: Mapping[str, bool | None]
    problem: str | None


@dataclass(frozen=True, eq=False)
class Suite:
    """The prompts of some languages of a suite, in order of language and number, and their grading.

    Keys are `suite/language/number`, numbers as lm-eval's `doc_id`. `data_sha256` covers all of a language's questions,
    whatever the `limit`. `num_fewshot` and `max_new_tokens` are the values used.
    """

    name: str
    version: str
    licence: str
    languages: tuple[str, ...]
    limit: int | None
    num_fewshot: int
    max_new_tokens: int
    prompts: tuple[Prompt, ...]
    data_sha256: Mapping[str, Sha256]
    _tasks: Mapping[str, Any] = field(repr=False)
    _documents: Mapping[str, Mapping[str, Any]] = field(repr=False)

    def grade(self, prompt: Prompt, text: str, *, keep_text: bool = False) -> Answer:
        """The record of one answer. `correct` is `None` if the suite has no right answers."""
        return Answer(
            key=prompt.key,
            correct=_correct(self._tasks[prompt.language], self._documents[prompt.key], text),
            language=identify(text, prompt.language),
            looping=looping(text),
            chars=len(text),
            bytes=len(text.encode()),
            text=text if keep_text else None,
        )

    def pose(self, language: str, items: Iterable[Item]) -> tuple[Prompt, ...]:
        """Other questions, rendered as the suite's own in that language; keys are `suite/language/fresh-<number>`."""
        like = next(prompt for prompt in self.prompts if prompt.language == language)
        task, doc = self._tasks[language], self._documents[like.key]
        *before, last = like.messages or (Message(role="user", content=like.text or ""),)
        head = _without_question(last.content, task, doc)
        posed = []
        for item in items:
            text = head + task.doc_to_text({**doc, **asdict(item)})
            turns = (*before, Message(role="user", content=text))
            asked = {"text": text} if like.messages is None else {"messages": turns}
            key = f"{self.name}/{language}/fresh-{item.number}"
            posed.append(like.model_copy(update={"key": key, "cluster": item.cluster, "target": None, **asked}))
        return tuple(posed)

    @property
    def has_answers(self) -> bool:
        """Whether an answer can be right or wrong."""
        return any(map(_has_answers, self._tasks.values()))

    def target_text(self, prompt: Prompt) -> str | None:
        """The reference continuation of a prompt, `None` if the suite has none or its target is an answer."""
        return None if self.has_answers else prompt.target

    def config(self, prompts_sha256: Mapping[str, Sha256]) -> SuiteConfig:
        """What a run records of this suite; `prompts_sha256` are hashes of the rendered ids by language."""
        return SuiteConfig(
            name=self.name,
            version=self.version,
            languages=self.languages,
            limit=self.limit,
            num_fewshot=self.num_fewshot,
            max_new_tokens=self.max_new_tokens,
            data_sha256=dict(self.data_sha256),
            prompts_sha256=dict(prompts_sha256),
        )


def check_languages(name: str, languages: Sequence[str] | None) -> None:
    """Raises `FairspecError` for an unknown suite, or for a language that it cannot have, without reading its data.

    Languages of a suite that may have more than it runs by default are checked by `load_suite`.
    """
    info = suite_info(name)
    if languages is not None and registry.sources()[name].languages is None:
        _chosen(info, languages)


def describe(name: str) -> SuiteStatus:
    """A suite with its counts and hashes, as far as the data is at hand. `FairspecError` for an unknown suite only."""
    info, problem = suite_info(name), None
    found: dict[str, Data] = {}
    for language in info.languages:
        try:
            found[language] = registry.load(name, language)
        except FairspecError as error:
            problem = str(error)
            break
    hashes = {language: data_sha256(loaded.test) for language, loaded in found.items()}
    published = info.published_sha256
    return SuiteStatus(
        info=info,
        prompts={language: len(loaded.test) for language, loaded in found.items()},
        data_sha256=hashes,
        as_published={lang: sha == published[lang] if lang in published else None for lang, sha in hashes.items()},
        problem=problem,
    )


def load_suite(
    name: str,
    *,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    max_new_tokens: int | None = None,
    apply_chat_template: bool = False,
    fewshot_as_multiturn: bool = True,
    system_instruction: str | None = None,
) -> Suite:
    """The prompts of a suite; `None` means the task files' own value. Options mean what they mean in lm-eval.

    `limit` keeps the first questions of each language: the same ones in all. With `apply_chat_template` a prompt holds
    chat messages, exemplars as turns or (`fewshot_as_multiturn=False`) all in one; the template itself is the codec's.
    Raises `FairspecError`: unknown suite or language, missing or damaged data, an option out of range.
    """
    info = suite_info(name)
    chosen = _chosen(info, languages)
    for option, value in {"limit": limit, "max_new_tokens": max_new_tokens}.items():
        if value is not None and value < 1:
            raise FairspecError(f"{option}={value}: must be at least 1.")
    loaded = {language: registry.load(name, language) for language in chosen}
    tasks = _load_tasks(info, chosen)
    config = tasks[chosen[0]].config
    shots = (config.num_fewshot or 0) if num_fewshot is None else num_fewshot
    most = min(len(part.shots) for part in loaded.values())
    if not 0 <= shots <= most:
        raise FairspecError(f"num_fewshot={shots}: {name} has {most} exemplars; give 0 to {most}.")

    prompts: list[Prompt] = []
    documents: dict[str, Mapping[str, Any]] = {}
    tokens = max_new_tokens or int(config.generation_kwargs["max_gen_toks"])
    for language in chosen:
        task, items = tasks[language], loaded[language].test[:limit]
        docs = list(task.test_docs().select(range(len(items))))
        if apply_chat_template:
            bodies = _chats(task, docs, shots, fewshot_as_multiturn, system_instruction)
        else:
            bodies = _texts(task, docs, shots, system_instruction)
        for item, doc, body in zip(items, docs, bodies, strict=True):
            key = f"{name}/{language}/{item.number}"
            documents[key] = doc
            prompt = Prompt(
                key=key,
                cluster=item.cluster,
                suite=name,
                language=language,
                target=item.answer or None,
                stops=tuple(task.config.generation_kwargs["until"]),
                max_new_tokens=tokens,
                text=body if isinstance(body, str) else None,
                messages=None if isinstance(body, str) else body,
            )
            prompts.append(prompt)
    return Suite(
        name=name,
        version=info.version,
        licence=info.licence,
        languages=chosen,
        limit=limit,
        num_fewshot=shots,
        max_new_tokens=tokens,
        prompts=tuple(prompts),
        data_sha256={language: data_sha256(part.test) for language, part in loaded.items()},
        _tasks=tasks,
        _documents=documents,
    )


def _chosen(info: SuiteInfo, languages: Sequence[str] | None) -> tuple[str, ...]:
    if languages is None:
        return info.languages
    known = registry.every_language(info.name) or info.languages
    if not languages:
        raise FairspecError(f"{info.name}: no language chosen. Known: {', '.join(known)}.")
    for language in languages:
        if language not in known:
            raise FairspecError(f"{info.name}: {unknown('language', language, known)}")
    return tuple(dict.fromkeys(languages))


# --------------------------------------------------------------------------- lm-eval


def _load_tasks(info: SuiteInfo, languages: Iterable[str]) -> dict[str, Any]:
    """lm-eval's task objects by language."""
    with _quiet():
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=str(tasks_folder()), include_defaults=False)
        names = {language: f"fairspec_{info.name}_{language}" for language in languages}
        specs = [
            name if name in manager.all_subtasks else _task_without_file(info, language, name)
            for language, name in names.items()
        ]
        found = manager.load(specs)["tasks"]
    return {language: found[name] for language, name in names.items()}


def _task_without_file(info: SuiteInfo, language: str, name: str) -> dict[str, Any]:
    """A language that has no task file: as the group file has it, else the English one with another name."""
    from lm_eval.tasks._factory import GROUP_FIELD_NAMES
    from lm_eval.tasks._yaml_loader import load_yaml

    group = load_yaml(info.file)
    english = info.file.with_name(f"fairspec_{info.name}_en.yaml")
    shared = load_yaml(english) if english.exists() else {k: v for k, v in group.items() if k not in GROUP_FIELD_NAMES}
    own = next((task for task in group["task"] if isinstance(task, dict) and task["task"] == name), {})
    return {**shared, "dataset_kwargs": {"suite": info.name, "language": language}, **own, "task": name}


def _texts(task: Any, docs: Sequence[Mapping[str, Any]], shots: int, system: str | None) -> Iterable[PromptBody]:
    # The exemplars are the same for every question (`first_n`): lm-eval renders them once, with the first question.
    first = task.fewshot_context(docs[0], shots, system_instruction=system)
    head = _without_question(first, task, docs[0])
    return (head + task.doc_to_text(doc) for doc in docs)


def _chats(
    task: Any, docs: Sequence[Mapping[str, Any]], shots: int, multiturn: bool, system: str | None
) -> Iterable[PromptBody]:
    turns: list[dict[str, str]] = task.fewshot_context(
        docs[0],
        shots,
        system_instruction=system,
        apply_chat_template=True,
        fewshot_as_multiturn=multiturn,
        chat_template=lambda messages, add_generation_prompt: messages,
    )
    before = tuple(Message.model_validate(turn) for turn in turns[:-1])
    head = _without_question(turns[-1]["content"], task, docs[0])
    return ((*before, Message(role="user", content=head + task.doc_to_text(doc))) for doc in docs)


def _without_question(context: str, task: Any, doc: Mapping[str, Any]) -> str:
    question = task.doc_to_text(doc)
    if not context.endswith(question):
        raise FairspecError(f"{task.config.task}: a prompt must end with its question. Correct the task file.")
    return context.removesuffix(question)


def _has_answers(task: Any) -> bool:
    return "exact_match" in task.aggregation()


def _correct(task: Any, doc: Mapping[str, Any], text: str) -> bool | None:
    """lm-eval's grade: its filters, then its metric, on one answer."""
    if not _has_answers(task):
        return None
    from lm_eval.api.instance import Instance

    instance = Instance("generate_until", doc=dict(doc), arguments=(), idx=0, resps=[text])
    (pipeline,) = task._filters
    pipeline.apply([instance])
    return bool(task.process_results(doc, [instance.filtered_resps[pipeline.name]])["exact_match"])


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval warns of every custom data set, which is noise for users of these suites."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
