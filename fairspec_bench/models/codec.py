"""Text to token ids and back: chat templates, BOS, stop strings, and what identifies a tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, tzinfo
from functools import cached_property
from itertools import takewhile
from typing import Any

from fairspec_bench.models import hub
from fairspec_bench.schemas.base import FairspecError, Sha256
from fairspec_bench.schemas.io import ids_sha256
from fairspec_bench.schemas.prompts import Encoded, Prompt, StopCheck

FROZEN_DATE = date(2024, 7, 26)
"""Today's date in every chat template, so that a prompt has the same ids on any day."""


_GIVEN_TO_TEMPLATES = ("messages", "tools", "documents", "add_generation_prompt")


class Codec:
    """A fast tokenizer and the rules by which prompts become ids and output ids become text.

    Args:
        name: `embedded:verifier`, a folder or a Hub id.
        revision: commit, branch or tag on the Hub.
        chat_template: render prompts by the tokenizer's own template (a prompt given as text is one user turn); without
            it prompts must be text.
        chat_template_args: what else the template reads, by name.

    Raises:
        FairspecError: in one line, for a tokenizer that cannot be loaded, or without a chat template, or with one that
            does not read an argument.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        chat_template: bool = False,
        chat_template_args: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.chat_template = chat_template
        self.tokenizer = load_tokenizer(name, revision)
        if chat_template and not self.tokenizer.chat_template:
            raise FairspecError(f"{name}: the tokenizer has no chat template. Leave out --apply_chat_template.")
        self.chat_template_args = chat_template_args
        self._known = _template_names(self.tokenizer) if chat_template else frozenset[str]()
        if unread := sorted({*(chat_template_args or {})} - self._known):
            raise FairspecError(
                f"chat_template_args: the chat template of {name} does not read {unread[0]!r}. "
                f"It reads: {', '.join(sorted(self._known)) or 'none'}."
            )
        self._prefix = _prefix(self.tokenizer)
        self.notes: dict[str, str] = {}
        """What a user should know of how prompts are rendered, by subject, once one was."""
        self._known_forms: dict[str, str | None] = {}

    def encode(self, prompt: Prompt) -> Encoded:
        """The prompt's ids: BOS at most once and where the tokenizer puts it, never an EOS at the end."""
        ids = tuple(self._prompt_ids(self._rendered(prompt)))
        if not ids:
            raise FairspecError(f"{prompt.key}: {self.name} gives no token for it. Choose another tokenizer or prompt.")
        group = f"{prompt.suite}/{prompt.language}"
        return Encoded(key=prompt.key, group=group, ids=ids, sha=ids_sha256(ids), max_new_tokens=prompt.max_new_tokens)

    def continuation(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """The ids of `text` after the prompt's ids, where prompt and text are encoded as one. No EOS.

        Where the tokenizer would join the prompt's last characters and the text's first in one token, the prompt keeps
        its ids, as in decoding, and the text is encoded by itself.
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
                rendered = str(
                    self.tokenizer.apply_chat_template(
                        turns, tokenize=False, add_generation_prompt=True, **(self.chat_template_args or {})
                    )
                )
        except Exception as error:  # a template is a program and may raise anything
            said = hub.one_line(error)
            raise FairspecError(f"{prompt.key}: the chat template of {self.name} refused it ({said}).") from error
        if self.chat_template_args is None and rendered.rstrip().endswith("<think>"):
            switches = ", ".join(sorted(self._known)) or "nothing that could be set"
            self.notes["thinking"] = (
                f"{self.name}: its chat template opens a thinking block (<think>), which counts towards max_new_tokens "
                f"and is graded. --chat_template_args sets what the template reads ({switches})."
            )
        if self._prefix and self._plain_ids(rendered)[: len(self._prefix)] != self._prefix:
            token = self.tokenizer.decode(self._prefix)
            self.notes["bos"] = (
                f"{self.name}: its chat template does not write the {token!a} that its tokenizer puts before a text; "
                "prompts are encoded as the template writes them, without it, as in vLLM and Transformers."
            )
        return rendered

    def _plain_ids(self, text: str) -> list[int]:
        # `verbose=False`: the model's positions decide whether a prompt fits, not the tokenizer's length setting.
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def decode(self, ids: Sequence[int], stops: Sequence[str] = ()) -> str:
        """The text of output ids without special tokens, cut before the earliest stop string."""
        ends = self.stop_ids(stops)
        kept = list(takewhile(lambda each: each not in ends, ids))
        text = str(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        forms = self.stop_forms(stops)
        return text[: min((place for form in forms if (place := text.find(form)) >= 0), default=len(text))]

    def pieces(self, ids: Iterable[int]) -> dict[int, bytes]:
        """The bytes of each token, as byte-level and SentencePiece vocabularies write them; a special one has none.

        Joined in order and read as UTF-8 they are the text, but for a space that a decoder strips at its start.
        """
        special = set(self.tokenizer.all_special_ids)
        decoder = str(json.loads(self.tokenizer.backend_tokenizer.to_str()).get("decoder"))
        level = {letter: byte for byte, letter in _byte_letters().items()} if "ByteLevel" in decoder else {}
        found: dict[int, bytes] = {}
        for each in ids:
            written = str(self.tokenizer.convert_ids_to_tokens(each) or "")
            if each in special:
                found[each] = b""
            elif level and all(letter in level for letter in written):
                found[each] = bytes(level[letter] for letter in written)
            elif re.fullmatch("<0x[0-9A-F]{2}>", written):
                found[each] = bytes.fromhex(written[3:5])
            else:
                found[each] = written.replace("\u2581", " ").encode()
        return found

    def stop_forms(self, stops: Iterable[str]) -> tuple[str, ...]:
        """Stop strings, and as the tokenizer writes those that it normalises: with NFKC "問題：" is "問題:" too."""
        forms = ((stop, self._written(stop)) for stop in stops if stop)
        return tuple(dict.fromkeys(form for both in forms for form in both if form))

    def loses(self, stop: str) -> bool:
        """Whether the tokenizer turns a stop string into something else, so that no text is likely to end there."""
        return bool(stop) and stop not in self._special_ids and self._written(stop) is None

    def stop_ids(self, stops: Iterable[str]) -> frozenset[int]:
        """The ids of stop strings that are one special token, which text does not show."""
        return frozenset(self._special_ids[stop] for stop in stops if stop in self._special_ids)

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        """The special tokens, which `decode` skips."""
        return {token.content: id_ for id_, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    def _written(self, stop: str) -> str | None:
        """A stop string inside a text, encoded and decoded; `None` if that is not the same string, normalised."""
        if stop not in self._known_forms:
            # At the edges of a text some tokenizers add or strip a space.
            text = self.decode(self._plain_ids(f"7{stop}7"))
            form = text[text.find("7") + 1 : max(text.rfind("7"), 0)]
            form = form if stop[0].isspace() else form.lstrip()
            form = form if stop[-1].isspace() else form.rstrip()
            self._known_forms[stop] = form if form == stop or _equivalent(form, stop) else None
        return self._known_forms[stop]

    def stop_check(self, prompt: Prompt) -> StopCheck | None:
        """A check for the prompt's stop strings, or `None` if it has none.

        The count it returns runs through the token that completes the first stop string. It depends on the ids alone;
        earlier calls are remembered only to save time. A stop string that is one special token ends a text as that id.
        """
        stops, ends = self.stop_forms(prompt.stops), self.stop_ids(prompt.stops)
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
            if not self._holds(now[start:], stops, ends):
                clean = now
                return None
            return next(n for n in range(len(clean) + 1, len(now) + 1) if self._holds(now[start:n], stops, ends))

        return check

    def _holds(self, ids: Sequence[int], stops: Sequence[str], ends: frozenset[int]) -> bool:
        text = self.decode(ids)
        return not ends.isdisjoint(ids) or any(stop in text for stop in stops)

    def _window(self, ids: Sequence[int], chars: int) -> int:
        """Where to start decoding so that a stop string of `chars` characters that ends after `ids` is seen whole."""
        # Up to 3 leading characters may be the rest of one cut in two, and a decoder may strip a space.
        start, step = len(ids), chars + 4
        while start > 0 and len(self.decode(ids[start:])) < chars + 4:
            start = max(0, start - step)
        return start

    @cached_property
    def tokenizer_sha256(self) -> Sha256:
        """SHA-256 of vocabulary, merges, normalizer, pre-tokenizer, decoder and special tokens, not of name or path."""
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
    """A fast tokenizer; for an adapter without one its base's. What is cached needs no network.

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


def _byte_letters() -> dict[int, str]:
    """The letter by which byte-level vocabularies write each byte (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def _template_names(tokenizer: Any) -> frozenset[str]:
    """The names that a chat template reads and that a user may set."""
    from jinja2 import TemplateError, meta
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        template = tokenizer.get_chat_template()
        environment = _compile_jinja_template(template).environment
        read = meta.find_undeclared_variables(environment.parse(template))
    except (TemplateError, ValueError):  # refused with a prompt's key when one is rendered
        return frozenset()
    return frozenset(read - {*environment.globals, *tokenizer.special_tokens_map, *_GIVEN_TO_TEMPLATES})


def _equivalent(form: str, stop: str) -> bool:
    """Whether two strings differ at most in compatibility characters, case and how much white space there is.

    A form that lost characters, or the white space at an end, would end texts too early.
    """
    letters = ["".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in (form, stop)]
    edges = [(text[:1].isspace(), text[-1:].isspace()) for text in (form, stop)]
    return letters[0] == letters[1] != "" and edges[0] == edges[1]


def _prefix(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text: BOS, or nothing."""
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
