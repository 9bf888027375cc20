"""The built-in text: grade-school problems and short stories in the 11 MGSM languages, one small grammar each.

Problem or story `k` of a split is the same in every language; only the words differ. Splits (`train`, `tune`, `test`)
are disjoint by construction: the hash of a problem's numbers, or of a story's opening, decides its split.
"""

from __future__ import annotations

import hashlib
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
DOMAINS = ("box", "buy", "give", "mixed")
MAX_EVENTS = 3
Split = Literal["train", "tune", "test"]
_SHARES: dict[Split, range] = {"test": range(0, 15), "tune": range(15, 30), "train": range(30, 100)}


@dataclass(frozen=True)
class Problem:
    """`question` ends with the native answer header; `solution` begins with the separator that follows it."""

    question: str
    solution: str
    number: int


@dataclass(frozen=True)
class Story:
    """`opening` is the prompt; `continuation` is one possible continuation."""

    opening: str
    continuation: str


@dataclass(frozen=True)
class Event:
    """Something that changes the count: `buy` and `give` use `amount`; `box` adds `boxes` times `amount`."""

    kind: Literal["buy", "give", "box"]
    amount: int
    boxes: int = 1

    def apply(self, count: int) -> int:
        """The count after the event."""
        return count - self.amount if self.kind == "give" else count + self.boxes * self.amount


@dataclass(frozen=True)
class Plot:
    """What problem `k` is in every language: the numbers, and which name, thing and wording (indices) are used."""

    start: int
    events: tuple[Event, ...]
    choices: tuple[int, ...]


def signature(start: int, events: tuple[Event, ...]) -> str:
    """The numbers of a problem without its wording: what the splits are disjoint in."""
    return f"{start}:" + ",".join(f"{e.kind}{e.amount}x{e.boxes}" for e in events)


def split_of(text: str) -> Split:
    """The one split that owns a signature."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100
    return next(split for split, share in _SHARES.items() if bucket in share)


def plots(split: Split, seed: int | None = None) -> Iterator[Plot]:
    """The problems of a split, without end, each signature once as long as new ones are found (about 100,000).

    Without a seed they are those that the suites and the testbed are made of; each seed gives them another order and
    other words.
    """
    rng = random.Random(_seeded(f"problems/{split}", seed))
    seen: set[str] = set()
    while True:
        start = rng.randint(5, 40)
        events, count = [], start
        for _ in range(rng.randint(1, MAX_EVENTS)):
            event = _event(rng, count)
            events.append(event)
            count = event.apply(count)
        sign = signature(start, tuple(events))
        choices = tuple(rng.randrange(720720) for _ in range(4 + 2 * MAX_EVENTS))
        if split_of(sign) == split and sign not in seen:
            if split != "train":
                seen.add(sign)
            yield Plot(start, tuple(events), choices)


def _seeded(name: str, seed: int | None) -> str:
    return name if seed is None else f"{name}/{seed}"


def _event(rng: random.Random, count: int) -> Event:
    kind = rng.choice(("buy", "give", "box"))
    if kind == "box":
        return Event("box", rng.randint(2, 6), rng.randint(2, 4))
    if kind == "give" and count >= 12:
        return Event("give", rng.randint(2, 9))
    return Event("buy", rng.randint(2, 9))


@cache
def grammar(language: str) -> dict[str, Any]:
    """The words of one language. Raises `KeyError` for a language without a grammar."""
    if language not in LANGUAGES:
        raise KeyError(language)
    return tomllib.loads(files(__package__).joinpath(f"grammar/{language}.toml").read_text(encoding="utf-8"))


class _Kept(dict[int, Plot]):
    """The first plots of a split, made once and extended on demand."""

    def __init__(self, split: Split) -> None:
        super().__init__()
        self._source = plots(split)

    def __missing__(self, k: int) -> Plot:
        while len(self) <= k:
            dict.__setitem__(self, len(self), next(self._source))
        return self[k]


@cache
def _kept(split: Split) -> _Kept:
    return _Kept(split)


def problem(language: str, k: int, split: Split = "test") -> Problem:
    """Problem `k` of a split in `language`: the same numbers, events and wording choice in every language."""
    return tell(language, _kept(split)[k])


def tell(language: str, plot: Plot) -> Problem:
    """A plot in the words of a language."""
    words = grammar(language)
    name_choice, thing_choice, have_choice, ask_choice, *event_choices = plot.choices
    thing = _pick(words["objects"], thing_choice)
    slots: dict[str, object] = {"name": _pick(words["names"], name_choice), "o": thing[-1 if _slavic(words) else 0]}
    slots |= {"k": thing[-1], "a": plot.start, "A": _counted(words, plot.start, thing)}
    sentences = [_pick(words["have"], have_choice).format(**slots)]
    solved = [_pick(words["step_have"], have_choice // 2).format(**slots)]
    count = plot.start
    for event, ask, step in zip(plot.events, event_choices[::2], event_choices[1::2], strict=False):
        after = event.apply(count)
        slots |= {"b": event.amount, "c": event.amount, "x": event.boxes, "m": event.boxes * event.amount}
        slots |= {"B": _counted(words, event.amount, thing), "r0": count, "r1": after}
        slots["C"] = slots["B"]
        sentences.append(_pick(words[event.kind], ask).format(**slots))
        solved.append(_pick(words[f"step_{event.kind}"], step).format(**slots))
        count = after
    sentences.append(_pick(words["ask"], ask_choice).format(**slots))
    solved.append(words["final"].format(r=count))
    question = words["question"] + words["space"].join(sentences) + "\n" + words["answer"]
    return Problem(question, " " + words["space"].join(solved), count)


def of_domain(plot: Plot, domain: str) -> bool:
    """Whether its events are all of that kind, for `mixed` of several."""
    kinds = {event.kind for event in plot.events}
    return kinds == {domain} if domain != "mixed" else len(kinds) > 1


def domain_problem(domain: str, k: int, split: Split = "test") -> Problem:
    """English problem `k` of a domain: of those whose events are all `buy`, all `give`, all `box`, or of several kinds.

    Raises `KeyError` for an unknown domain.
    """
    if domain not in DOMAINS:
        raise KeyError(domain)
    kept, found = _domain(domain, split), _kept(split)
    number = kept[-1] + 1 if kept else 0
    while len(kept) <= k:
        if of_domain(found[number], domain):
            kept.append(number)
        number += 1
    return tell("en", found[kept[k]])


@cache
def _domain(domain: str, split: Split) -> list[int]:
    """The numbers of a domain's problems found so far."""
    return []


def story(language: str, k: int, split: Split = "test", seed: int | None = None) -> Story:
    """Story `k` of a split in `language`: the same people, place and thing in every language.

    A seed changes the wording, not the scene.
    """
    people, place, thing, choices = _scene(k, split, seed)
    words = grammar(language)
    name, friend = (words["names"][i] for i in people)
    slots = {"name": name, "friend": friend, "place": words["places"][place]}
    slots["o"] = words["objects"][thing][-1 if _slavic(words) else 0]
    opening = words["story"] + _pick(words["opening"], choices[0]).format(**slots)
    beats = [_pick(beat, choice).format(**slots) for beat, choice in zip(words["beats"], choices[1:], strict=False)]
    return Story(opening, words["space"] + words["space"].join(beats))


@cache
def _scenes(split: Split) -> tuple[tuple[tuple[int, int], int, int], ...]:
    every = [((a, b), p, t) for a in range(8) for b in range(8) if a != b for p in range(6) for t in range(6)]
    mine = [scene for scene in every if split_of(f"story:{scene}") == split]
    random.Random(f"stories/{split}").shuffle(mine)
    return tuple(mine)


def story_count(split: Split) -> int:
    """How many scenes a split has; story `k` past it uses scene `k mod count` with other beats."""
    return len(_scenes(split))


def _scene(k: int, split: Split, seed: int | None = None) -> tuple[tuple[int, int], int, int, list[int]]:
    scenes = _scenes(split)
    people, place, thing = scenes[k % len(scenes)]
    rng = random.Random(_seeded(f"story/{split}/{k}", seed))
    return people, place, thing, [rng.randrange(720720) for _ in range(8)]


def _pick(options: list[Any], choice: int) -> Any:
    return options[choice % len(options)]


def _slavic(words: dict[str, Any]) -> bool:
    return words.get("plural") == "slavic"


def _counted(words: dict[str, Any], number: int, thing: list[str]) -> str:
    return str(words["count"]).format(n=number, o=_form(words, number, thing), k=thing[-1])


def _form(words: dict[str, Any], number: int, thing: list[str]) -> str:
    """The noun's form after a number: one, few or many in a Slavic language, else the only one."""
    if not _slavic(words):
        return thing[0]
    if number % 10 == 1 and number % 100 != 11:
        return thing[0]
    return thing[1] if number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14) else thing[2]
