"""Text to ids and back: BOS once, the date of templates frozen, stop strings however cut, hashes of content."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from fairspec_bench.models import hub
from fairspec_bench.models.codec import Codec, prompts_sha256
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import ids_sha256
from fairspec_bench.schemas.prompts import Encoded, Message, Prompt
from fairspec_bench.suites.embedded import problem
from fairspec_bench.suites.suite import load_suite

TEXT = """Question: Roger has 5 tennis balls. He buys 2 more cans. The answer is 11.
問題：ロジャーは5個のテニスボールがあります。答えは11です。
ప్రశ్న: రోజర్ వద్ద 5 టెన్నిస్ బంతులు ఉన్నాయి. సమాధానం 11.
โจทย์: โรเจอร์มีลูกเทนนิส 5 ลูก คำตอบคือ 11
Задача: у Роджера 5 теннисных мячей. Ответ — 11.
"""
STOPS = ("\nQuestion:", "\n問題：", "\nప్రశ్న:")
TEMPLATE = (
    "{{ bos_token }}Today: {{ strftime_now('%d %b %Y') }}\n"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Writes a tiny byte-level BPE tokenizer into a new folder."""

    def make(
        *,
        vocabulary: int = 330,
        bos: bool = True,
        template: str | None = None,
        text: str = TEXT,
        normalizer: Any = None,
    ) -> Path:
        backend = Tokenizer(models.BPE())
        if normalizer is not None:
            backend.normalizer = normalizer
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator([text] * 3, trainer)
        if bos:
            specials = [("<s>", 0), ("</s>", 1)]
            backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=specials)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<s>", eos_token="</s>", chat_template=template
        )
        folder = tmp_path_factory.mktemp("tokenizer")
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def codec(build: Build) -> Codec:
    return Codec(str(build()))


def ask(text: str | None = "Question: 5?", stops: Sequence[str] = (), **fields: Any) -> Prompt:
    known = {"key": "s/en/0", "cluster": "s/0", "suite": "s", "language": "en", "max_new_tokens": 9}
    return Prompt(text=text, stops=tuple(stops), **(known | fields))


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(FairspecError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------- encoding


def test_bos_once_and_no_eos(build: Build, codec: Codec) -> None:
    plain = codec.encode(ask())
    assert plain.ids[0] == 0
    assert plain.ids.count(0) == 1
    assert 1 not in plain.ids
    assert codec.encode(ask("<s>Question: 5?")).ids == plain.ids
    assert codec.decode(plain.ids) == "Question: 5?"
    assert Codec(str(build(bos=False))).encode(ask()).ids == plain.ids[1:]


def test_encoded_fields(codec: Codec) -> None:
    encoded = codec.encode(ask(suite="mgsm", language="ja", key="mgsm/ja/7", max_new_tokens=31))
    assert (encoded.key, encoded.group, encoded.max_new_tokens) == ("mgsm/ja/7", "mgsm/ja", 31)
    assert encoded.sha == ids_sha256(encoded.ids)


def test_any_text_round_trips(codec: Codec) -> None:
    for text in (TEXT, "🎾 naïve\r\n\t  x", " leading", "trailing \n"):
        assert codec.decode(codec.encode(ask(text)).ids) == text


@pytest.mark.parametrize("bos", [True, False])
def test_a_continuation_is_the_rest_of_the_whole(build: Build, bos: bool) -> None:
    codec = Codec(str(build(bos=bos)))
    prompt = ask("Question: Roger has 5")
    before, whole = codec.encode(prompt).ids, codec.encode(ask("Question: Roger has 5 tennis balls.")).ids
    assert before + codec.continuation(prompt, " tennis balls.") == whole


def test_a_continuation_that_would_melt_into_the_prompt_is_encoded_by_itself(codec: Codec) -> None:
    """The prompt's ids are given: those of "Questi" do not begin those of "Question"."""
    prompt = ask("Questi")
    before = codec.encode(prompt).ids
    assert codec.encode(ask("Question: 5")).ids[: len(before)] != before
    after = codec.continuation(prompt, "on: 5")
    assert 0 not in after
    assert codec.decode([*before, *after]) == "Question: 5"


def test_a_continuation_follows_what_a_template_rendered(build: Build) -> None:
    codec = Codec(str(build(template=TEMPLATE)), chat_template=True)
    prompt = ask()
    before, after = codec.encode(prompt).ids, codec.continuation(prompt, " 11.")
    assert codec.decode(after) == " 11."
    assert before.count(0) == 1
    assert 0 not in after


def test_a_prompt_longer_than_the_tokenizer_says_is_not_cut(build: Build) -> None:
    folder = build()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 8}))
    assert Codec(str(folder)).tokenizer.model_max_length == 8
    assert len(Codec(str(folder)).encode(ask(TEXT)).ids) > 100


def test_chat_template_bos_and_turns(build: Build) -> None:
    codec = Codec(str(build(template=TEMPLATE)), chat_template=True)
    said: list[tuple[Any, str]] = [("user", "2?"), ("assistant", "2."), ("user", "5?")]
    turns = tuple(Message(role=role, content=content) for role, content in said)
    encoded = codec.encode(ask(None, messages=turns))
    assert encoded.ids.count(0) == 1
    assert 1 not in encoded.ids
    assert codec.decode(encoded.ids).endswith("\n<|user|>2?\n<|assistant|>2.\n<|user|>5?\n<|assistant|>")
    assert codec.encode(ask("5?")).ids == codec.encode(ask(None, messages=turns[-1:])).ids


def test_the_date_of_a_template_is_frozen(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(str(build(template=TEMPLATE)), chat_template=True)

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Tomorrow:
            return cls(2031, 1, 2)

    def unfrozen() -> str:
        return str(codec.tokenizer.apply_chat_template([{"role": "user", "content": "5?"}], tokenize=False))

    today, rendered = codec.encode(ask("5?")), unfrozen()
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    assert unfrozen() != rendered
    assert codec.encode(ask("5?")) == today
    assert "Today: 26 Jul 2024" in codec.decode(today.ids)
    assert chat_template_utils.datetime is Tomorrow


def test_chat_refusals(build: Build, codec: Codec) -> None:
    assert "no chat template" in refusal(lambda: Codec(str(build()), chat_template=True))
    turn = (Message(role="user", content="5?"),)
    assert "--apply_chat_template" in refusal(lambda: codec.encode(ask(None, messages=turn)))
    angry = Codec(str(build(template="{{ raise_exception('no system turn') }}")), chat_template=True)
    assert "no system turn" in refusal(lambda: angry.encode(ask()))


GEMMA = (  # what Gemma 2's template asks of its messages
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
)


@pytest.mark.parametrize(
    ("roles", "said"),
    [("sua", "System role not supported"), ("uu", "roles must alternate user/assistant"), ("uauau", None)],
)
def test_a_template_with_strict_turns_is_followed_or_quoted(build: Build, roles: str, said: str | None) -> None:
    codec = Codec(str(build(template=GEMMA)), chat_template=True)
    names: Any = {"s": "system", "u": "user", "a": "assistant"}
    turns = tuple(Message(role=names[role], content="5?") for role in roles)
    if said is None:
        assert codec.decode(codec.encode(ask(None, messages=turns)).ids).count("5?") == len(roles)
    else:
        assert re.search(
            f"^s/en/0: the chat template of .* refused it .*{said}",
            refusal(lambda: codec.encode(ask(None, messages=turns))),
        )


def test_what_a_template_raises_in_several_lines_is_told_in_one(build: Build) -> None:
    angry = Codec(str(build(template="{{ raise_exception('no system turn\n  at line 3') }}")), chat_template=True)
    assert refusal(lambda: angry.encode(ask())).endswith("refused it (no system turn).")


def test_a_template_that_leaves_bos_to_the_tokenizer_is_told(build: Build) -> None:
    """It is encoded as Transformers and vLLM encode it, without BOS; models that want one falter silently."""
    without = Codec(str(build(template=THINKS)), chat_template=True, chat_template_args={"enable_thinking": False})
    assert 0 not in without.encode(ask()).ids
    (said,) = without.notes.values()
    assert "does not write the '<s>' that its tokenizer puts before a text" in said
    for template, bos in ((TEMPLATE, True), (THINKS, False)):
        codec = Codec(str(build(template=template, bos=bos)), chat_template=True)
        codec.encode(ask())
        assert "bos" not in codec.notes


THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}{% endif %}"
)


def test_arguments_reach_the_template(build: Build) -> None:
    folder = str(build(template=THINKS))
    plain, off, on = (
        Codec(folder, chat_template=True, chat_template_args=given)
        for given in (None, {"enable_thinking": False}, {"enable_thinking": True})
    )
    first = plain.encode(ask())
    assert plain.decode(first.ids).endswith("<|assistant|><think>\n")
    assert off.decode(off.encode(ask()).ids).endswith("<|assistant|>")
    assert off.encode(ask()).sha != first.sha
    assert on.encode(ask()) == first


def test_a_thinking_block_that_nobody_asked_for_is_told(build: Build) -> None:
    folder = str(build(template=THINKS))
    said = {}
    for given in (None, {"enable_thinking": False}, {"enable_thinking": True}):
        codec = Codec(folder, chat_template=True, chat_template_args=given)
        codec.encode(ask())
        said[str(given)] = codec.notes.get("thinking")
    first, *others = said.values()
    assert first is not None
    assert "opens a thinking block" in first
    assert "(enable_thinking)" in first
    assert others == [None, None]


def test_an_argument_that_the_template_does_not_read_is_refused(build: Build) -> None:
    folder = str(build(template=THINKS))
    for name in ("thinking", "messages", "add_generation_prompt"):
        said = refusal(lambda name=name: Codec(folder, chat_template=True, chat_template_args={name: False}))
        assert f"does not read {name!r}. It reads: enable_thinking." in said
    other = str(build(template=TEMPLATE))
    said = refusal(lambda: Codec(other, chat_template=True, chat_template_args={"bos_token": "x"}))
    assert "It reads: none." in said


# --------------------------------------------------------------------------- stop strings


def truth(codec: Codec, ids: Sequence[int], stops: Sequence[str]) -> int | None:
    """The definition, slowly: the shortest prefix whose text holds a stop string."""
    return next((n for n in range(1, len(ids) + 1) if any(s in codec.decode(ids[:n]) for s in stops)), None)


def scattered(codec: Codec, text: str, rng: random.Random) -> list[int]:
    """Ids of a text cut into tokens at random places, inside characters too."""
    byte_of = byte_letters()
    ids: list[int] = []
    vocabulary = codec.tokenizer.get_vocab()
    letters = [byte_of[b] for b in text.encode()]
    while letters:
        widths = [w for w in range(1, 6) if "".join(letters[:w]) in vocabulary]
        width = rng.choice(widths)
        ids.append(vocabulary["".join(letters[:width])])
        del letters[:width]
    return ids


def byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(b) if b in shown else chr(next(hidden)) for b in range(256)]


def streams(codec: Codec, count: int) -> list[list[int]]:
    """Outputs with a stop string somewhere, nowhere, cut short or twice, some after special tokens."""
    rng = random.Random(5)
    step_times = [
        *STOPS,
        *STOPS,
        "\nQuestion",
        "\n問",
        "\n",
        "問題：",
        "The answer is 11.",
        "答えは11です。",
        "సమాధానం 11.",
        "🎾",
    ]
    made = []
    for _ in range(count):
        ids: list[int] = []
        for piece in rng.choices(step_times, k=rng.randint(1, 9)):
            ids += scattered(codec, piece, rng) + [1] * (rng.random() < 0.1)
        made.append(ids)
    return made


def fed(check: Callable[[Sequence[int]], int | None], ids: Sequence[int], rng: random.Random) -> int | None:
    """What a decode loop sees: the check after every block of 1 to 8 tokens, until it stops."""
    end = 0
    while end < len(ids):
        end = min(len(ids), end + rng.randint(1, 8))
        if (kept := check(ids[:end])) is not None:
            return kept
    return None


def test_stop_check_is_its_definition_however_tokens_and_blocks_fall(codec: Codec) -> None:
    rng, found = random.Random(6), 0
    check = codec.stop_check(ask(stops=STOPS))
    assert check is not None
    for ids in streams(codec, 300):
        expected = truth(codec, ids, STOPS)
        assert fed(check, ids, rng) == expected
        assert check(ids) == expected
        assert check(tuple(ids)) == expected
        found += expected is not None
    assert 100 < found < 290


def test_planted_bugs_are_caught_by_these_streams(codec: Codec) -> None:
    """A check of the new ids alone, and one that keeps to whole characters' tokens, both differ from the definition."""
    seen = 0

    def newest_only(ids: Sequence[int]) -> int | None:
        nonlocal seen
        start, seen = seen, len(ids)
        return len(ids) if any(stop in codec.decode(ids[start:]) for stop in STOPS) else None

    def whole_block(ids: Sequence[int]) -> int | None:
        return len(ids) if any(stop in codec.decode(ids) for stop in STOPS) else None

    wrong = {"newest_only": 0, "whole_block": 0}
    for ids in streams(codec, 100):
        seen, expected = 0, truth(codec, ids, STOPS)
        wrong["newest_only"] += fed(newest_only, ids, random.Random(7)) != expected
        wrong["whole_block"] += fed(whole_block, ids, random.Random(7)) != expected
    assert min(wrong.values()) > 20


def test_a_check_remembers_nothing_that_matters(codec: Codec) -> None:
    check = codec.stop_check(ask(stops=["xyz"]))
    assert check is not None
    ids = list(codec.encode(ask("a" * 40 + "xyz")).ids)[1:]
    other = list(codec.encode(ask("b" * 60)).ids)[1:]
    assert check(other) is None
    assert check(ids) == truth(codec, ids, ["xyz"])
    assert check(other[:3]) is None
    assert check([*other[:3], *ids]) == truth(codec, [*other[:3], *ids], ["xyz"])


def test_no_stops_no_check(codec: Codec) -> None:
    assert codec.stop_check(ask()) is None
    assert codec.stop_check(ask(stops=[""])) is None


def test_text_is_cut_at_the_earliest_stop_and_ids_are_not(codec: Codec) -> None:
    ids = list(codec.encode(ask("It is 11.\n問題：x\nQuestion: y")).ids)
    check = codec.stop_check(ask(stops=STOPS))
    assert check is not None
    kept = check(ids)
    assert kept is not None
    assert codec.decode(ids[:kept], STOPS) == codec.decode(ids, STOPS) == "It is 11."
    assert codec.decode(ids[:kept]).startswith("It is 11.\n問題：")
    assert codec.decode([*ids[:3], 1], ()) == codec.decode(ids[:3])


# --------------------------------------------------------------------------- stop strings that a tokenizer rewrites


def ids_of(codec: Codec, text: str) -> list[int]:
    return list(codec.tokenizer(text, add_special_tokens=False)["input_ids"])


def pieces(folder: Path, text: str, *, normalizer: Any) -> Codec:
    """A tokenizer of whole characters as SentencePiece's: spaces are written ▁, one is put before a text."""
    letters = ["<unk>", *sorted({*text.replace(" ", "▁"), "▁"})]
    backend = Tokenizer(models.Unigram([(letter, -1.0) for letter in letters], unk_id=0))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(folder)
    return Codec(str(folder))


def test_a_stop_fires_in_the_form_that_the_tokenizer_writes(build: Build) -> None:
    """NFKC makes `:` of `：`, so that a Japanese or Chinese answer never holds the stop string as it is given."""
    codec = Codec(str(build(normalizer=normalizers.NFKC())))
    stop = "\n問題："
    ids = ids_of(codec, f"答えは7です。{stop}つぎ")
    assert stop not in codec.decode(ids)
    check = codec.stop_check(ask(stops=[stop]))
    assert check is not None
    assert fed(check, ids, random.Random(1)) == truth(codec, ids, ["\n問題:"]) == check(ids)
    assert codec.decode(ids, [stop]) == "答えは7です。"
    raw = scattered(codec, f"答えは7です。{stop}つぎ", random.Random(2))  # a model is free to emit these bytes
    assert check(raw) == truth(codec, raw, [stop])
    assert codec.decode(raw, [stop]) == "答えは7です。"
    assert not codec.loses(stop)


@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_that_is_not_rewritten_has_one_form(codec: Codec, tmp_path: Path, stop: str) -> None:
    assert codec.stop_forms([stop]) == (stop,)
    assert pieces(tmp_path, TEXT + "7", normalizer=normalizers.NFC()).stop_forms([stop]) == (stop,)
    assert codec.stop_forms([stop, "", stop]) == (stop,)


def test_only_equal_forms_stop_a_text(tmp_path: Path) -> None:
    """Lines are joined by spaces here: `\\nQuestion:` is ` Question:`, but `\\n` is no ` ` and no empty string."""
    spaces = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    codec = pieces(tmp_path, TEXT.replace("\n", " ").replace("：", ":") + "7", normalizer=spaces)
    assert codec.stop_forms(["\nQuestion:", "\n\n問題："]) == ("\nQuestion:", " Question:", "\n\n問題：", " 問題:")
    assert codec.stop_forms(["問題："]) == ("問題：", "問題:")
    assert codec.stop_forms(["Question:\n"]) == ("Question:\n", "Question: ")
    for stop in ("\n", "\n\n", " \n"):
        assert codec.loses(stop)
        assert codec.stop_forms([stop]) == (stop,)
    check = codec.stop_check(ask(stops=["\nQuestion:"]))
    assert check is not None
    said = ids_of(codec, "The answer is 11. Question: x")
    assert check(ids_of(codec, "The answer Q. x")) is None
    assert check(said) == len(ids_of(codec, "The answer is 11. Question:"))
    assert codec.decode(said, ["\nQuestion:"]) == "The answer is 11."


def test_a_stop_with_an_unknown_character_is_lost(tmp_path: Path) -> None:
    codec = pieces(tmp_path, "Question: 7", normalizer=normalizers.NFKC())
    assert codec.loses("問題：")
    assert codec.stop_forms(["Q問："]) == ("Q問：",)
    assert not codec.loses("Question：")
    assert not codec.loses("")


@pytest.mark.parametrize("block", [1, 3, 99])
def test_a_stop_that_is_a_special_token_ends_a_text_at_its_id(build: Build, block: int) -> None:
    codec = Codec(str(build()))
    codec.tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    codec = Codec(str(saved(codec, build())))
    ids = ids_of(codec, "答えは7です。<|im_end|>\nuser: 問題：")
    end = ids.index(codec.tokenizer.convert_tokens_to_ids("<|im_end|>"))
    for stops in (["<|im_end|>"], ["\nuser", "<|im_end|>"], ["<|im_end|>", "問題："]):
        check = codec.stop_check(ask(stops=stops))
        assert check is not None
        found = (check(ids[:to]) for to in range(block, len(ids) + block, block))
        assert next(kept for kept in found if kept is not None) == end + 1
        assert codec.decode(ids, stops) == codec.decode(ids[: end + 1], stops) == "答えは7です。"
        assert check(ids[:end]) is None
    earlier = codec.stop_check(ask(stops=["です", "<|im_end|>"]))
    assert earlier is not None
    kept = earlier(ids)
    assert kept is not None
    assert kept <= end
    assert not codec.loses("<|im_end|>")
    assert codec.loses("<|im_end|>\n")


def saved(codec: Codec, folder: Path) -> Path:
    codec.tokenizer.save_pretrained(folder)
    return folder


# --------------------------------------------------------------------------- identity


def test_tokenizer_hash_is_of_content(build: Build, codec: Codec, tmp_path: Path) -> None:
    shutil.copytree(codec.name, tmp_path / "elsewhere")
    assert Codec(str(tmp_path / "elsewhere")).tokenizer_sha256 == codec.tokenizer_sha256
    others = [build(vocabulary=320), build(bos=False), build(text=TEXT[::-1])]
    hashes = {codec.tokenizer_sha256, *(Codec(str(folder)).tokenizer_sha256 for folder in others)}
    assert len(hashes) == 4
    assert Codec(str(build(template=TEMPLATE))).tokenizer_sha256 == codec.tokenizer_sha256


def test_prompts_hash_ignores_order_and_sees_every_id() -> None:
    def encoded(key: str, *ids: int) -> Encoded:
        return Encoded(key=key, group="s/en", ids=ids, sha=ids_sha256(ids), max_new_tokens=9)

    first = prompts_sha256([encoded("s/en/0", 1, 2), encoded("s/en/1", 3)])
    assert prompts_sha256([encoded("s/en/1", 3), encoded("s/en/0", 1, 2)]) == first
    assert prompts_sha256([encoded("s/en/0", 1), encoded("s/en/1", 2, 3)]) != first
    assert prompts_sha256([encoded("s/en/0", 3), encoded("s/en/1", 1, 2)]) != first


# --------------------------------------------------------------------------- the embedded tokenizer


def test_the_embedded_pair_shares_a_tokenizer_that_the_caps_suit() -> None:
    verifier, drafter = (Codec(f"embedded:{name}") for name in ("verifier", "drafter"))
    assert verifier.tokenizer_sha256 == drafter.tokenizer_sha256
    for name in ("embedded_math", "embedded_story"):
        for prompt in load_suite(name, limit=60).prompts:
            number = int(prompt.key.split("/")[2])
            answer = problem(prompt.language, number).solution if name == "embedded_math" else prompt.target
            encoded, reference = verifier.encode(prompt), verifier.encode(ask(answer))
            assert verifier.decode(encoded.ids) == prompt.text
            assert verifier.decode(reference.ids, prompt.stops) == answer
            assert len(reference.ids) < prompt.max_new_tokens
            check = verifier.stop_check(prompt)
            assert check is None or check(reference.ids) is None


# --------------------------------------------------------------------------- refusals


def test_missing_and_damaged_tokenizers(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such folder" in refusal(lambda: Codec(str(tmp_path / "nowhere")))
    assert "no tokenizer could be loaded" in refusal(lambda: Codec(str(tmp_path)))
    folder = build()
    (folder / "tokenizer.json").write_text('{"version": "1.0", "trunc')
    assert str(folder) in refusal(lambda: Codec(str(folder)))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "reachable", lambda: False)
    assert "the Hub cannot be reached" in refusal(lambda: Codec("someone/absent-model"))
    assert "the Hub cannot be reached" in refusal(lambda: Codec("absent-model"))


def test_a_gated_tokenizer_names_its_licence_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(*_: object, local_files_only: bool = False, **__: object) -> None:
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    message = refusal(lambda: Codec("someone/gated-model"))
    assert "https://huggingface.co/someone/gated-model" in message
    assert "HF_TOKEN" in message
