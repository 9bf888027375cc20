"""How the engine's speed is compared: pairs of models, two ways of the same work, taken in turn, ratios of medians.

Everything is random or built in: no download. A `Row` is a line of `docs/results/engine.md`.
"""

from __future__ import annotations

import copy
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.oracle import OracleDrafter
from fairspec_bench.engine.speculative import Decoder, Request, as_request
from fairspec_bench.models.codec import Codec
from fairspec_bench.models.model import Model, load_model, wrap
from fairspec_bench.models.packing import pack
from fairspec_bench.schemas.config import Backend, SamplingParams
from fairspec_bench.suites.suite import load_suite

Met = Literal["yes", "no", "open"]
ROUNDS = 9
GAMMA = 4
GREEDY = SamplingParams()


@dataclass(frozen=True)
class Row:
    """A measured ratio with its aim: `low` and `high` bound the median of the rounds with at least 95 %."""

    what: str
    aim: str
    value: float
    low: float
    high: float
    met: Met
    detail: str = ""


def met(low: float, high: float, least: float, most: float = math.inf) -> Met:
    """Whether an aim is met: by the whole interval, by none of it, or by a part, which leaves it open."""
    if least <= low and high <= most:
        return "yes"
    return "no" if high < least or low > most else "open"


def row(what: str, aim: float, ratios: Sequence[float], *, at_most: bool = False, detail: str = "") -> Row:
    """The median of a ratio per round against its aim, with the interval of the order statistics (second of nine)."""
    value, ordered = statistics.median(ratios), sorted(ratios)
    inner = ordered[1:-1] if len(ordered) >= ROUNDS else ordered
    bounds = (-math.inf, aim) if at_most else (aim, math.inf)
    found = met(inner[0], inner[-1], *bounds)
    return Row(what, f"{'≤' if at_most else '≥'} {aim:g}", value, inner[0], inner[-1], found, detail)


def in_turn(ways: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """What each way measured in each round; each once before, unrecorded, and in an order drawn for every round."""
    for way in ways.values():
        way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in random.Random(number).sample(list(ways), len(ways)):
            found[name].append(ways[name]())
    return found


def ratios(found: Mapping[str, Sequence[float]], above: str, below: str) -> list[float]:
    """One way's figures over another's, round by round."""
    return [a / b for a, b in zip(found[above], found[below], strict=True)]


def seconds(work: Callable[[], object]) -> float:
    """The wall-clock of some work, the device's included."""
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# --------------------------------------------------------------------------- pairs


@dataclass(frozen=True, eq=False)
class Pair:
    """A verifier, a drafter, prompts, and the verifier's own texts. With `acceptance` drafts come from an oracle.

    The drafter's forward passes are run all the same, so that cost is real where acceptance is set. `scripted`: the
    texts are random and imposed on either side, since half types round otherwise in every implementation. `plain`:
    both models as Transformers is given them, where those here are packed.
    """

    name: str
    verifier: Model
    small: Model
    requests: tuple[Request, ...]
    acceptance: float | None = None
    scripted: bool = False
    plain: tuple[Model, Model] | None = None

    @cached_property
    def texts(self) -> dict[str, tuple[int, ...]]:
        if self.scripted:
            generated = _random_requests(
                len(self.requests), self.requests[0].max_new_tokens, 1, self.verifier.vocab_size, seed=8
            )
            return {request.key: text.ids for request, text in zip(self.requests, generated, strict=True)}
        return {row.key: row.ids for row in self.decoder(None).decode(self.requests)}

    @cached_property
    def drafter(self) -> Drafter:
        drafter = ModelDrafter(self.small, self.verifier)
        if self.acceptance is None:
            return drafter
        return OracleDrafter(self.acceptance, self.verifier, drafter, self.texts)

    def decoder(self, drafter: Drafter | None, gamma: int = GAMMA, batch_size: int = 1) -> Decoder:
        return Decoder(self.verifier, drafter, sampling=GREEDY, gamma=gamma, batch_size=batch_size, seed=0)

    def decode(self, decoder: Decoder) -> None:
        """Every prompt, which must come out as it should."""
        made = decoder.decode(self.requests, self.texts if self.scripted else None)
        assert {row.key: row.ids for row in made} == self.texts

    # The same through Transformers, with its own attention and caches.

    @cached_property
    def stock(self) -> PreTrainedModel:
        return _stock(self.plain[0] if self.plain else self.verifier)

    def generate(self) -> None:
        """Greedy `generate`, prompt by prompt."""
        for request in self.requests:
            self._require(request, self.stock.generate(**self._asked(request)))

    @cached_property
    def assistant(self) -> PreTrainedModel:
        """The drafter as Transformers' assistant: γ drafts in every block, as here."""
        hf = _stock(self.plain[1] if self.plain else self.small)
        hf.generation_config.num_assistant_tokens = GAMMA
        hf.generation_config.num_assistant_tokens_schedule = "constant"
        hf.generation_config.assistant_confidence_threshold = 0.0
        if self.acceptance is not None:
            hf.register_forward_hook(self._tell)
        return hf

    def assisted(self) -> None:
        """`generate(assistant_model=…)`, prompt by prompt."""
        for request in self.requests:
            self.__dict__["drafts"] = self._drafts[request.key]
            self._require(request, self.stock.generate(**self._asked(request), assistant_model=self.assistant))

    @cached_property
    def _drafts(self) -> dict[str, dict[int, int]]:
        """The oracle's drafts by the slot they stand in, of every prompt."""
        if not isinstance(self.drafter, OracleDrafter):
            return {request.key: {} for request in self.requests}
        return {
            r.key: dict(enumerate(self.drafter.proposals(r, self.texts[r.key], 0), len(r.ids) + 1))
            for r in self.requests
        }

    def _tell(self, module: object, given: object, out: object) -> None:
        """Put the oracle's draft in place of what the assistant would say."""
        slot = int(out.past_key_values.get_seq_length())  # type: ignore[attr-defined]
        logits = out.logits  # type: ignore[attr-defined]
        logits[:, -1] = -1e4
        logits[:, -1, self.__dict__["drafts"].get(slot, 0)] = 1e4

    def _asked(self, request: Request) -> dict[str, object]:
        ids = torch.tensor([request.ids], device=self.stock.device)
        text = self.texts[request.key]

        def impose(so_far: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            place = so_far.shape[1] - len(request.ids)
            scores[:, text[min(place, len(text) - 1)]] = 1e9
            return scores

        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "do_sample": False,
            "max_new_tokens": request.max_new_tokens,
            "pad_token_id": 0,
            "logits_processor": LogitsProcessorList([impose] if self.scripted else []),
        }

    def _require(self, request: Request, made: torch.Tensor) -> None:
        ids = tuple(made[0, len(request.ids) :].tolist())
        assert ids == self.texts[request.key], f"{self.name}: Transformers' ids are others than ours"


def _stock(model: Model) -> PreTrainedModel:
    hf = copy.deepcopy(model.hf)
    hf.set_attn_implementation("sdpa")
    return hf


@cache
def embedded(backend: Backend, languages: tuple[str, ...] = ("en", "te"), count: int = 3) -> Pair:
    """The built-in pair on its own suite."""
    verifier, small = (load_model(f"embedded:{name}", backend=backend) for name in ("verifier", "drafter"))
    codec = Codec("embedded:verifier")
    prompts = load_suite("embedded_math", languages=languages, limit=count).prompts
    return Pair("embedded", verifier, small, tuple(as_request(codec.encode(prompt)) for prompt in prompts))


@cache
def real(verifier: str, drafter: str, max_new_tokens: int = 32) -> Pair:
    """Two models by name, packed here and plain beside; a prompt of MGSM, no examples, in each of three languages."""
    packed, plain = (
        [load_model(name, options={"packing": packing}) for name in (verifier, drafter)] for packing in ("on", "off")
    )
    codec, suite = Codec(verifier), load_suite("mgsm", languages=("en", "ja", "sw"), limit=1, num_fewshot=0)
    asked = [codec.encode(prompt).model_copy(update={"max_new_tokens": max_new_tokens}) for prompt in suite.prompts]
    return Pair("real pair", *packed, tuple(map(as_request, asked)), plain=(plain[0], plain[1]))


@cache
def middling(backend: Backend, layers: tuple[int, int] = (12, 2), count: int = 2, max_new_tokens: int = 40) -> Pair:
    """A random Llama of 12 layers of 512 and one of 2 layers of 128; an oracle at .8."""

    def llama(layers: int, width: int) -> Model:
        head = 64 if width >= 256 else 32
        torch.manual_seed(layers)
        config = LlamaConfig(
            vocab_size=4096,
            hidden_size=width,
            intermediate_size=width * 11 // 4,
            num_hidden_layers=layers,
            num_attention_heads=width // head,
            num_key_value_heads=width // head // 2,
            max_position_embeddings=2048,
            initializer_range=width**-0.5,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
        return wrap(LlamaForCausalLM(config), f"{layers} × {width}", backend=backend)

    requests = _random_requests(count, 40, max_new_tokens, 4096)
    return Pair("12 × 512, oracle .8", llama(layers[0], 512), llama(layers[1], 128), requests, acceptance=0.8)


QWEN = {
    "Qwen2.5-0.5B": {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "intermediate_size": 4864},
    "Qwen2.5-3B": {
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "intermediate_size": 11008,
    },
}
QWEN_VOCABULARY = 151_936


def qwen(
    name: str, backend: Backend, device: str, *, layers: int | None = None, vocabulary: int = QWEN_VOCABULARY
) -> Model:
    """Random weights of a public configuration in bfloat16: speed depends on shapes, not on weights."""
    shape = QWEN[name] | ({"num_hidden_layers": layers} if layers else {})
    config = Qwen2Config(
        **shape,
        vocab_size=vocabulary,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        rope_theta=1e6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        hf = Qwen2ForCausalLM(config).to(torch.bfloat16)
    return wrap(hf, name, backend=backend)


@cache
def few_layers(packed: bool, layers: int = 2) -> Model:
    """Random weights in the shapes of Qwen2.5-1.5B's layers in float32, on a CPU; packed or plain."""
    config = Qwen2Config(
        vocab_size=32_768,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    hf = Qwen2ForCausalLM(config)
    if packed:
        pack(hf)
    return wrap(hf, f"{layers} × 1,536, {'packed' if packed else 'plain'}")


@cache
def shaped_like_qwen(
    acceptance: float,
    backend: Backend,
    device: str,
    layers: tuple[int, int] | None = None,
    vocabulary: int = QWEN_VOCABULARY,
    max_new_tokens: int = 256,
) -> Pair:
    """Qwen2.5-3B with 0.5B in shapes; an oracle."""
    verifier, small = (
        qwen(name, backend, device, layers=layers and layers[i], vocabulary=vocabulary)
        for i, name in enumerate(("Qwen2.5-3B", "Qwen2.5-0.5B"))
    )
    return Pair(
        f"3B/0.5B shapes, oracle {acceptance:g}",
        verifier,
        small,
        _random_requests(2, 256, max_new_tokens, vocabulary),
        acceptance=acceptance,
        scripted=True,
    )


def _random_requests(
    count: int, length: int, max_new_tokens: int, vocabulary: int, seed: int = 3
) -> tuple[Request, ...]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary, (count, length), generator=generator).tolist()
    return tuple(Request(f"p{i}", tuple(prompt), max_new_tokens, i) for i, prompt in enumerate(ids))
