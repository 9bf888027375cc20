"""Quantized weights: rounded while they are loaded, or stored so in a model's own files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BitsAndBytesConfig, PreTrainedModel, QuantoConfig, TorchAoConfig

from fairspec_bench.schemas.base import FairspecError


class Quantizer(NamedTuple):
    """How weights are rounded: Transformers' configuration for a dtype of computation, and what must be installed."""

    config: Callable[[torch.dtype], Any]
    module: str
    package: str


def _torchao_int8(dtype: torch.dtype) -> TorchAoConfig:
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig(version=2))


def _bnb_4bit(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


QUANTIZERS: Mapping[str, Quantizer] = {
    "torchao-int8": Quantizer(_torchao_int8, "torchao", "torchao"),
    "bnb-8bit": Quantizer(lambda dtype: BitsAndBytesConfig(load_in_8bit=True), "bitsandbytes", "bitsandbytes"),
    "bnb-4bit": Quantizer(_bnb_4bit, "bitsandbytes", "bitsandbytes"),
    "quanto-int8": Quantizer(lambda dtype: QuantoConfig(weights="int8"), "optimum.quanto", "optimum-quanto"),
}


def asked_quantization(name: str, model: str, config: Any, dtype: torch.dtype) -> Any:
    """Transformers' configuration for an entry of `QUANTIZERS`. Raises `FairspecError`."""
    if name not in QUANTIZERS:
        raise FairspecError(f"{model}: quantization={name}: unknown. Known: {', '.join(QUANTIZERS)}.")
    if own := own_quantization(config):
        raise FairspecError(f"{model}: quantization={name}: its files are quantized already ({own}). Leave it out.")
    needed = {QUANTIZERS[name].module: QUANTIZERS[name].package, "accelerate": "accelerate"}
    missing = [package for module, package in needed.items() if not _installed(module)]
    if missing:
        raise FairspecError(f"{model}: quantization={name} needs {missing[0]}. pip install {' '.join(missing)}.")
    return QUANTIZERS[name].config(dtype)


def own_quantization(config: Any) -> str | None:
    """How a model's files are quantized, by its configuration; `None` if they are not."""
    said = getattr(config, "quantization_config", None)
    if said is None:
        return None
    method = said.get("quant_method") if isinstance(said, dict) else getattr(said, "quant_method", None)
    return str(getattr(method, "value", method) or "unnamed")


def is_quantized(hf: PreTrainedModel) -> bool:
    """Whether a loaded model's weights are quantized."""
    return getattr(hf, "hf_quantizer", None) is not None


def stored(weight: Tensor) -> Iterator[Tensor]:
    """The plain tensors that a weight is made of: itself, unpacked if need be, or the parts of a quantized one."""
    if hasattr(weight, "__tensor_flatten__"):
        names, _ = weight.__tensor_flatten__()
        for name in names:
            yield from stored(getattr(weight, name))
    else:
        yield weight.to_dense() if weight.is_mkldnn else weight


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent package
        return False
