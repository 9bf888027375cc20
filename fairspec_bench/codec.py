"""Text to token ids and back: the one place that holds a tokenizer.

Knows chat templates, BOS, stop strings and what identifies a tokenizer. Knows nothing of models, suites or scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, tzinfo
from functools import cached_property
from typing import Any

from fairspec_bench import hub
from fairspec_bench.records import Encoded, FairspecError, Prompt, Sha256, ids_sha256

FROZEN_DATE = date(2024, 7, 26)
"""What a chat template sees as today, so that a prompt has the same ids tomorrow."""

StopCheck = Callable[[Sequence[int]], int | None]
"""From the output ids so far to how many of them to keep, or `None` while no stop string is complete."""


class Codec:
    """A fast tokenizer and the rules by which prompts become ids and output ids become text.

    `name` is a folder or a Hub id. With `chat_template`, prompts are rendered by the tokenizer's own template (a prompt
    given as text is one user turn); without it, prompts must be text. Raises `FairspecError` in one line.
    """

    def __init__(self, name: str, *, revision: str | None = None, chat_template: bool = False) -> None:
        self.name = name
        self.chat_template = chat_template
        self.tokenizer = load_tokenizer(name, revision)
        if chat_template and not self.tokenizer.chat_template:
            raise FairspecError(f"{name}: the tokenizer has no chat template. Leave out --apply_chat_template.")
        self._prefix = _prefix(self.tokenizer)

    def encode(self, prompt: Prompt) -> Encoded:
        """The prompt's ids: BOS at most once and where the tokenizer wants it, never an EOS at the end."""
        ids = tuple(self._prompt_ids(self._rendered(prompt)))
        if not ids:
            raise FairspecError(f"{prompt.key}: {self.name} makes no token of it. Choose another tokenizer or prompt.")
        group = f"{prompt.suite}/{prompt.language}"
        return Encoded(key=prompt.key, group=group, ids=ids, sha=ids_sha256(ids), cap=prompt.cap)

    def continuation(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """The ids of `text` after the prompt's own: what follows these where prompt and text are encoded as one.

        Where the tokenizer would join the prompt's last characters and the text's first in one token, the prompt keeps
        its ids, as in decoding, and the text is encoded by itself. No EOS.
        """
        rendered = self._rendered(prompt)
        before, whole = self._prompt_ids(rendered), self._prompt_ids(rendered + text)
        return tuple(whole[len(before) :] if whole[: len(before)] == before else self._plain_ids(text))

    def _rendered(self, prompt: Prompt) -> str:
        if self.chat_template:
            return self._chat(prompt)
        if prompt.text is None:
            raise FairspecError(f"{prompt.key}: chat messages need a chat template. Give --apply_chat_template.")
        return prompt.text

    def _prompt_ids(self, text: str) -> list[int]:
        ids = self._plain_ids(text)
        wanted = [] if self.chat_template else self._prefix  # a template writes its own BOS
        return ids if ids[: len(wanted)] == wanted else [*wanted, *ids]

    def _chat(self, prompt: Prompt) -> str:
        turns = [message.model_dump() for message in prompt.messages or ()]
        turns = turns or [{"role": "user", "content": prompt.text}]
        try:
            with _frozen_date():
                return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a template is a program of its own and raises what it likes
            raise FairspecError(f"{prompt.key}: the chat template of {self.name} refused it ({error}).") from error

    def _plain_ids(self, text: str) -> list[int]:
        # `verbose=False`: whether a prompt fits is the model's to say, not the tokenizer's length setting.
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def decode(self, ids: Sequence[int], stops: Sequence[str] = ()) -> str:
        """The text of output ids without special tokens, cut before the earliest stop string."""
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]

    def stop_check(self, prompt: Prompt) -> StopCheck | None:
        """A check for the prompt's stop strings, or `None` if it has none.

        The count it returns runs through the token that completes the first stop string to be complete. The answer
        depends on the ids alone; that earlier calls are remembered only saves decoding them again.
        """
        stops = tuple(stop for stop in prompt.stops if stop)
        if not stops:
            return None
        longest = max(map(len, stops))
        clean: list[int] = []

        def check(ids: Sequence[int]) -> int | None:
            nonlocal clean
            now = list(ids)
            if now[: len(clean)] != clean:
                clean = []
            start = self._window(clean, longest)
            if not self._holds(now[start:], stops):
                clean = now
                return None
            return next(n for n in range(len(clean) + 1, len(now) + 1) if self._holds(now[start:n], stops))

        return check

    def _holds(self, ids: Sequence[int], stops: Sequence[str]) -> bool:
        text = self.decode(ids)
        return any(stop in text for stop in stops)

    def _window(self, ids: Sequence[int], chars: int) -> int:
        """Where to begin decoding so that a stop string of `chars` characters ending after `ids` lies inside whole."""
        # Up to 3 leading characters may be the rest of one cut in two, and a decoder may strip a space.
        start, step = len(ids), chars + 4
        while start > 0 and len(self.decode(ids[start:])) < chars + 4:
            start = max(0, start - step)
        return start

    @cached_property
    def tokenizer_sha256(self) -> Sha256:
        """SHA-256 of vocabulary, merges, normaliser, pre-tokenizer, decoder and special tokens: not of name or path."""
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for setting in ("version", "truncation", "padding"):
            state.pop(setting, None)
        state["special"] = {kind: str(token) for kind, token in self.tokenizer.special_tokens_map.items()}
        return hashlib.sha256(json.dumps(state, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def prompts_sha256(encoded: Iterable[Encoded]) -> Sha256:
    r"""SHA-256 over `key \x1f sha \x1e` of a set of encoded prompts, in order of their keys."""
    lines = sorted(f"{prompt.key}\x1f{prompt.sha}\x1e" for prompt in encoded)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """A fast tokenizer from a folder or the Hub, of an adapter its base's; what is cached needs no network.

    Raises `FairspecError` in one line.
    """
    folder = hub.locate_tokenizer(name, revision).folder
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, ImportError and its own
        raise FairspecError(f"{name}: no tokenizer could be loaded from {folder} ({hub.one_line(error)}).") from error
    if not tokenizer.is_fast:
        raise FairspecError(f"{name}: only fast tokenizers are supported (a folder with tokenizer.json).")
    return tokenizer


def _prefix(tokenizer: Any) -> list[int]:
    """What the tokenizer itself puts before a text: BOS, or nothing. What it would put after it is left out."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    starts = (n for n in range(len(whole) - len(bare) + 1) if whole[n : n + len(bare)] == bare)
    return list(whole[: next(starts, 0)])


@contextmanager
def _frozen_date() -> Iterator[None]:
    """Chat templates read the date through `strftime_now`; transformers 5 accepts no replacement as an argument."""
    from transformers.utils import chat_template_utils

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Frozen:
            return cls(FROZEN_DATE.year, FROZEN_DATE.month, FROZEN_DATE.day, tzinfo=tz)

    real = chat_template_utils.datetime
    chat_template_utils.datetime = Frozen
    try:
        yield
    finally:
        chat_template_utils.datetime = real
