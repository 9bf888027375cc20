"""A causal language model that can be stepped and rolled back; others are refused in one line.

Never runs code that came with a model.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import LinearAttentionCacheLayerMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from fairspec_bench.models import hub
from fairspec_bench.models.adapters import adapter_sha256, merged
from fairspec_bench.models.kv_cache import PACKED, Prefix, Prefixes, RowCache
from fairspec_bench.models.packing import is_packed, pack, packs
from fairspec_bench.models.positions import max_positions, rope_switch
from fairspec_bench.models.quantization import asked_quantization, is_quantized, own_quantization, stored
from fairspec_bench.models.vocabulary import Tokens, agreement, difference, read_tokens, renamed, renaming
from fairspec_bench.schemas.base import FairspecError, Sha256
from fairspec_bench.schemas.config import MAX_GAMMA, Backend

PREFILL_CHUNK = 512
OPTIONS = ("attention", "device_map", "quantization", "packing")
_NOT_SETTINGS = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "_from_model_config"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Model:
    """A checked model.

    Attributes:
        hf: the model of Transformers.
        name: what reports call it.
        revision: its commit on the Hub.
        vocab_size: rows of its embedding, padding included.
        vocabulary: hash of its tokenizer's tokens, if it has one.
        max_positions: the most positions, `None` for no limit.
        rope_switch: with LongRoPE, the length beyond which all positions use other frequencies.
        eos_ids: its end-of-text ids.
        origin: what it was made from, where neither its commit nor its weights say it: adapters, quantization.
        home: its tokenizer's folder.
        backend: how its steps are run, an entry of `BACKENDS`.
        never: ids that it never chooses: their logits are −inf.
        prefixes: what prompts share, prefilled already.
    """

    hf: PreTrainedModel
    name: str
    revision: str | None
    vocab_size: int
    vocabulary: Sha256 | None
    max_positions: int | None
    rope_switch: int | None
    eos_ids: frozenset[int]
    origin: str | None = None
    home: Path | None = None
    backend: Backend = "eager"
    never: frozenset[int] = frozenset()
    prefixes: Prefixes = field(default_factory=Prefixes, repr=False)

    @property
    def device(self) -> torch.device:
        return self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.dtype

    @property
    def layers(self) -> int:
        return int(self.hf.config.get_text_config(decoder=True).num_hidden_layers)

    @property
    def spread(self) -> bool:
        """Whether its layers lie on several devices."""
        return len(set((getattr(self.hf, "hf_device_map", None) or {}).values())) > 1

    @property
    def quantized(self) -> bool:
        """Whether its weights are rounded to few bits."""
        return is_quantized(self.hf)

    @property
    def packed(self) -> bool:
        """Whether its weights are packed for a CPU."""
        return is_packed(self.hf)

    @property
    def generation_config(self) -> GenerationConfig | None:
        """What its `generation_config.json` sets."""
        return self.hf.generation_config

    @property
    def parameters(self) -> int:
        """How many parameters, tied ones once."""
        return int(self.hf.num_parameters())

    @cached_property
    def weights_sha256(self) -> Sha256:
        """Hash of names, shapes and bytes of all weights as loaded: the same wherever they came from."""
        return weights_sha256(self.hf)

    @property
    def content(self) -> str:
        """Hashes of all that decides its output, as loaded: weights (dtype included) and both configurations."""
        return _content(self.hf, self.weights_sha256)

    @property
    def identity(self) -> str:
        """What it was made from, its commit on the Hub, or `content`: the first that exists."""
        return self.origin or self.revision or self.content

    def refusal(self, prompt: int, max_new_tokens: int) -> str | None:
        """Why so long a prompt cannot be continued by `max_new_tokens` more, whatever γ; `None` if it can."""
        if self.max_positions is not None and prompt + max_new_tokens > self.max_positions:
            return f"{prompt} prompt + {max_new_tokens} new exceed the {self.max_positions} positions of {self.name}"
        if self.rope_switch is not None and prompt <= self.rope_switch < prompt + max_new_tokens + MAX_GAMMA:
            return (
                f"{prompt} prompt + {max_new_tokens} new cross the LongRoPE switch of {self.name} at {self.rope_switch}"
            )
        return None

    def rows(self, batch: int, max_len: int) -> Rows:
        """An empty cache of `batch` rows of `max_len` slots. Raises `FairspecError` where rows cannot share a batch."""
        if batch > 1 and self.rope_switch is not None:
            raise FairspecError(f"{self.name}: with LongRoPE a row depends on its batch. Use --batch_size 1.")
        return Rows(self, batch, max_len)

    def prefix(self, ids: Sequence[int], shared: int) -> Prefix | None:
        """The first `shared` ids of a prompt, prefilled unless they are kept; `None` where none are shared.

        A prompt's last token is never within: its logits are not kept. With LongRoPE keys depend on how long the whole
        prompt is, so that nothing is shared.
        """
        head = tuple(ids[: min(shared, len(ids) - 1)])
        if not head or self.rope_switch is not None:
            return None
        found = self.prefixes.get(head)
        if found is None:
            begun, rows = self._now(), self.rows(1, len(head))
            rows.prefill(0, head)
            found = Prefix(head, rows.cache, self._now() - begun)
            self.prefixes.add(found)
        return found

    def _now(self) -> int:
        """Nanoseconds on a steady clock, after all work on the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter_ns()


class Rows:
    """One model at work on a ragged batch: its cache and its passes."""

    def __init__(self, model: Model, batch: int, max_len: int):
        self.model = model
        self.cache = RowCache(model.hf.config, batch, max_len, model.device, model.dtype)
        self.last = (model.max_positions or 2**31) - 1
        self.varied = False
        never = sorted(each for each in model.never if each < model.vocab_size)
        self.never = torch.tensor(never, device=model.device) if never else None

    @torch.no_grad()
    def read(self, tokens: Tensor, start: Tensor, view: int, keep: int) -> Tensor:
        """`forward`, looking at the first `view` slots."""
        return self.forward(tokens, start, self.cache.ruler[:view], keep)

    @torch.no_grad()
    def prefill(self, row: int, ids: Sequence[int], shared: int = 0) -> Tensor:
        """Run a whole prompt into one row, in chunks of bounded memory; → logits [1, 1, V] after its last token.

        Its first `shared` ids are run once for all prompts that begin with them, and copied. The chunks, and so the
        bits, follow from the ids and `shared` alone, whichever prompt comes first.
        """
        self.cache.clear(row)
        prefix = self.model.prefix(ids, shared)
        if prefix is not None:
            self.cache.copy(row, prefix.cache)
        tokens = torch.tensor([ids], device=self.model.device)
        chunk = len(ids) if self.model.rope_switch is not None else PREFILL_CHUNK
        for start in range(len(prefix.ids) if prefix else 0, len(ids), chunk):
            piece = tokens[:, start : start + chunk]
            slot = self.cache.ruler[: start + piece.shape[1]]
            logits = self.forward(piece, piece.new_full((1,), start), slot, 1, row)
        return logits

    def forward(self, tokens: Tensor, start: Tensor, slot: Tensor, keep: int, row: int | None = None) -> Tensor:
        """Run `tokens` int64 [b, T] at positions start[b]…start[b]+T−1 of all rows, or of one `row`.

        `slot` [view] are the slots looked at, from 0 past every position of this pass. → logits [b, keep, V] after the
        last `keep` tokens.
        """
        positions = start[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        mask = self.cache.place(positions, slot, row)
        # Drafts past the end of an output may lie beyond the last position: what comes out for them is dropped. An id
        # that only pads the other model's embedding is no token: any id will do for it.
        out = self.model.hf(
            input_ids=tokens.clamp(max=self.model.vocab_size - 1),
            position_ids=positions.clamp(max=self.last),
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = out.logits
        return logits if self.never is None else logits.index_fill(-1, self.never.to(logits.device), -torch.inf)


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    backend: Backend = "eager",
) -> Model:
    """Load and check a model; an adapter is merged into its base.

    Args:
        name: `embedded:verifier`, a folder or a Hub id; what is cached needs no network.
        revision: commit, branch or tag on the Hub.
        dtype: an entry of `DTYPES`.
        device: torch's name of the device.
        options: `attention`, `packed_sdpa` or `eager`; `device_map`, `auto` or `balanced`, to spread the layers over
            all CUDA devices (needs `accelerate`); `quantization`, an entry of `QUANTIZERS`; `packing` of a CPU's
            weights, `auto`, `on` or `off`.
        backend: how its steps are run, an entry of `BACKENDS`.

    Raises:
        FairspecError: one line, for a model that is missing, gated, damaged, not safetensors, not a decoder, or cannot
            be rolled back.
    """
    options = dict(options or {})
    attention, device_map, quantization, packing = (options.pop(each, None) for each in OPTIONS)
    if options:
        raise FairspecError(f"{name}: unknown model option {min(options)!r}. Known: {', '.join(OPTIONS)}.")
    if device_map not in (None, "auto", "balanced"):
        raise FairspecError(f"{name}: device_map={device_map}: unknown. Known: auto, balanced.")
    if device_map and find_spec("accelerate") is None:
        raise FairspecError(f"{name}: device_map needs accelerate. pip install accelerate, or leave it out.")
    if dtype not in DTYPES:
        raise FairspecError(f"{name}: unknown dtype {dtype!r}. Known: {', '.join(DTYPES)}.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise FairspecError(f"{name}: device {device} asked for, but torch sees no CUDA device. Use --device cpu.")
    place = hub.locate(name, revision)
    base = _base(name, place)
    hf = _pretrained(name, (base or place).folder, DTYPES[dtype], device, device_map, quantization)
    origin, home = None, place.folder
    if base is not None:
        origin = f"{base.commit or _content(hf)}+adapter-sha256:{adapter_sha256(place.folder)}"
        hf = merged(hf, place.folder, name)
        home = home if hub.has_tokenizer(home) else base.folder
    if is_quantized(hf):
        origin = f"{place.commit or _content(hf)}+quantization:{quantization or own_quantization(hf.config)}"
    tokens = read_tokens(home)
    hf = hf if device_map or is_quantized(hf) else hf.to(device)
    if packs(str(packing or "auto"), name, hf):
        pack(hf)
    return wrap(
        hf,
        name,
        revision=place.commit,
        origin=origin,
        vocabulary=tokens.sha256 if tokens else None,
        home=home,
        attention=attention,
        backend=backend,
    )


def _base(name: str, place: hub.ModelFiles) -> hub.ModelFiles | None:
    """The files of the base of an adapter, `None` if it is none. Raises `FairspecError`."""
    base = hub.read_base(place.folder)
    if base is None:
        return None
    if base.name is None:
        raise FairspecError(f"{name}: {hub.ADAPTER} names no base. Write it there: base_model_name_or_path.")
    try:
        found = hub.locate(base.name, base.revision)
    except FairspecError as error:
        raise FairspecError(f"{name}: the base that {hub.ADAPTER} names is not available: {error}") from error
    if hub.read_base(found.folder) is not None:
        raise FairspecError(f"{name}: its base {base.name} is an adapter itself. Merge that one first.")
    return found


def _pretrained(
    name: str, folder: Path, dtype: torch.dtype, device: str, device_map: str | None, quantization: str | None
) -> PreTrainedModel:
    """The model of a folder with all its weights, as Transformers loads it."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        check_config(config, name)
        asked: dict[str, Any] = {}
        if quantization is not None:
            asked["quantization_config"] = asked_quantization(str(quantization), name, config, dtype)
        # Quantized weights cannot be moved later.
        placed = {"": device} if quantization is not None or own_quantization(config) else None
        hf, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            device_map=device_map or placed,
            **asked,
        )
    except (ImportError, OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError) as error:
        reason = hub.one_line(error)
        raise FairspecError(f"{name}: cannot be loaded ({reason}). Fetch it again or choose another.") from error
    if info["missing_keys"]:
        raise FairspecError(f"{name}: weights lack {min(info['missing_keys'])}. Fetch the model again.")
    return hf


def weights_sha256(hf: PreTrainedModel) -> Sha256:
    """Hash of names, shapes and bytes of all weights as loaded: the same wherever they came from."""
    digest = hashlib.sha256()
    for name, weight in sorted(hf.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        for part in stored(weight):
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _content(hf: PreTrainedModel, weights: Sha256 | None = None) -> str:
    config = settings_sha256(hf.config.to_diff_dict())
    generation = settings_sha256(hf.generation_config.to_diff_dict() if hf.generation_config is not None else {})
    return f"weights-sha256:{weights or weights_sha256(hf)}+config-sha256:{config}+generation-sha256:{generation}"


def settings_sha256(said: Mapping[str, Any]) -> Sha256:
    """Hash of a configuration as Transformers reads it, without what only tells where it came from.

    The dtype of the files is left out: that of the loaded weights is in their hash.
    """
    kept = {key: value for key, value in said.items() if key not in _NOT_SETTINGS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def wrap(
    hf: PreTrainedModel,
    name: str,
    *,
    revision: str | None = None,
    vocabulary: Sha256 | None = None,
    origin: str | None = None,
    home: Path | None = None,
    attention: str | None = None,
    backend: Backend = "eager",
) -> Model:
    """A checked `Model` of one in memory, which is set to this engine's attention and evaluation mode.

    Raises `FairspecError`.
    """
    check_config(hf.config, name)
    config = hf.config.get_text_config(decoder=True)
    hf.eval()
    _set_attention(hf, attention)
    model = Model(
        hf=hf,
        name=name,
        revision=revision,
        vocab_size=config.vocab_size,
        vocabulary=vocabulary,
        max_positions=max_positions(config),
        rope_switch=rope_switch(config),
        eos_ids=_eos_ids(hf),
        origin=origin,
        home=home,
        backend=backend,
    )
    _probe_rollback(model)
    return model


class Vocabulary(Protocol):
    """What has token ids: a model, or tables made for one."""

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def vocabulary(self) -> Sha256 | None: ...


def check_vocabulary(verifier: Vocabulary, drafter: Vocabulary) -> frozenset[int]:
    """Raise `FairspecError` unless the same id is the same token in both.

    Their tokenizers are compared where both have one: embeddings may be padded to different sizes, and one may have
    added tokens that the other lacks. Where one has none, the sizes must be equal.

    Returns:
        The ids of added tokens that have another name in the drafter, which must not be proposed.
    """
    if verifier.vocabulary is None or drafter.vocabulary is None:
        if verifier.vocab_size == drafter.vocab_size:
            return frozenset()
        differ = f"({drafter.vocab_size} ids) is not that of {verifier.name} ({verifier.vocab_size} ids)"
    else:
        if verifier.vocabulary == drafter.vocabulary:
            return frozenset()
        known = _tokens_of_both(verifier, drafter)
        differ = f"is not that of {verifier.name}: their hashes differ"
        if known is not None:
            first = difference(*known)
            if first is None:
                return renamed(*known)
            differ = f"is not that of {verifier.name}: {first}. {agreement(*known)}"
    raise FairspecError(
        f"{drafter.name}: its vocabulary {differ}. Choose a drafter with the same tokenizer (docs/MODELS.md)."
    )


def renaming_warning(verifier: Vocabulary, drafter: Vocabulary, ids: frozenset[int]) -> tuple[str, ...]:
    """A line where `check_vocabulary` found renamed `ids`, else none."""
    known = _tokens_of_both(verifier, drafter)
    if not ids or known is None:
        return ()
    return (
        f"{drafter.name}: {renaming(*known, ids)} as in {verifier.name}. Such added tokens are never proposed. "
        "Check that both are of one family.",
    )


def _tokens_of_both(verifier: Vocabulary, drafter: Vocabulary) -> tuple[Tokens, Tokens] | None:
    homes = [getattr(each, "home", None) for each in (verifier, drafter)]
    one, other = (read_tokens(home) if home else None for home in homes)
    return None if one is None or other is None else (one, other)


# --------------------------------------------------------------------------- what can be decoded at all


def check_config(config: Any, name: str) -> None:
    """Raise `FairspecError` for a configuration of Transformers whose model cannot be stepped and rolled back here."""
    _refuse_encoder(config, name)
    _refuse_attention(config.get_text_config(decoder=True), name)
    _refuse_recurrent(config.get_text_config(decoder=True), name)


def _refuse_encoder(config: Any, name: str) -> None:
    if config.is_encoder_decoder:
        raise FairspecError(f"{name}: {config.model_type} is an encoder-decoder. Choose a causal (decoder-only) model.")
    # GPT-NeoX, always causal, has is_decoder=False too.
    if getattr(config, "is_decoder", None) is False and config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise FairspecError(
            f"{name}: {config.model_type} is an encoder: each token sees those after it. "
            "Choose a causal (decoder-only) model."
        )


def _refuse_attention(config: Any, name: str) -> None:
    # MPT has ALiBi too, but adds it to the scores by itself.
    if config.model_type == "bloom" or getattr(config, "alibi", False):
        raise FairspecError(
            f"{name}: {config.model_type} has ALiBi: its positions come from a two-dimensional attention mask, and "
            "here each row of a batch has its own. Choose a model with rotary or learned positions."
        )
    if "local" in getattr(config, "attention_layers", ()):
        raise FairspecError(
            f"{name}: {config.model_type} counts the window of its local attention from the end of the cache, which is "
            "another place in each row of a batch. Choose a model of full or sliding attention."
        )


def _refuse_recurrent(config: Any, name: str) -> None:
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    stateful = getattr(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), "_is_stateful", False) or any(
        isinstance(layer, LinearAttentionCacheLayerMixin) for layer in DynamicCache(config=config).layers
    )
    if stateful or kinds:
        raise FairspecError(
            f"{name}: {config.model_type} keeps a state that cannot be rolled back "
            f"({', '.join(sorted(kinds)) or 'recurrent'}). Choose a model of full or sliding attention."
        )


@torch.no_grad()
def _probe_rollback(model: Model) -> None:
    """Write other tokens past a position, go back, and compare with a pass that never had them; no flag is trusted."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.vocab_size, (1, 16), generator=generator).to(model.device)
    try:
        want = model.hf(input_ids=ids, use_cache=False).logits[:, 12:].float()
        rows = model.rows(1, 24)
        rows.prefill(0, ids[0, :12].tolist())
        rows.read(ids[:, :3], ids.new_tensor([12]), view=24, keep=1)
        # Slots past the last token are looked at too, as in a batch with a longer row.
        got = rows.read(ids[:, 12:], ids.new_tensor([12]), view=24, keep=4).float()
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise FairspecError(
            f"{model.name}: cannot be stepped with a cache ({hub.one_line(error)}). Choose another."
        ) from None
    if not bool((want.amax(-1).abs() < torch.inf).all()):
        raise FairspecError(
            f"{model.name}: the logits of a short random prompt are not finite (NaN or infinity). Try another --dtype, "
            "or check the weights."
        )
    # A logit of −inf is a token that is never chosen.
    largest = want.masked_fill(want == -torch.inf, 0.0).abs().max()
    off = (torch.where(got == want, 0.0, (got - want).abs()).max() / largest).item()
    exact = model.dtype == torch.float32 and not model.quantized
    if not off < (1e-3 if exact else 0.15):
        raise FairspecError(
            f"{model.name}: a rollback leaves its logits off by {off:.2g}: it keeps a state. Choose another."
        )


def _set_attention(hf: PreTrainedModel, attention: str | None) -> None:
    """Grouped SDPA, except for models whose scores only eager attention computes."""
    config = hf.config.get_text_config(decoder=True)
    special = getattr(config, "attn_logit_softcapping", None) is not None or config.model_type == "gpt_oss"
    try:
        hf.set_attn_implementation(attention or ("eager" if special else PACKED))
    except ValueError:
        hf.set_attn_implementation("eager")


def _eos_ids(hf: PreTrainedModel) -> frozenset[int]:
    value = getattr(hf.generation_config, "eos_token_id", None)
    if value is None:
        value = hf.config.get_text_config(decoder=True).eos_token_id
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)
