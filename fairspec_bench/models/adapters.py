"""PEFT adapters, merged into their base before it runs, so that decoding costs what the base costs."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from fairspec_bench.models.hub import ADAPTER, ADAPTER_WEIGHTS, one_line
from fairspec_bench.schemas.base import FairspecError, Sha256

MERGING = ("LORA", "ADALORA", "LOHA", "LOKR", "IA3")
"""The kinds of adapters that can be added to the base's own weights."""
_ABOUT = {"base_model_name_or_path", "revision", "inference_mode", "peft_version"}


def merged(base: PreTrainedModel, folder: Path, name: str) -> PreTrainedModel:
    """The base with the adapter of a folder merged into its own weights. Raises `FairspecError` in one line.

    Refused: a kind that cannot be merged, one that needs code of its own, weights that are not the base's, and a
    quantized base, whose weights would be rounded again.
    """
    try:
        import peft
    except ModuleNotFoundError:
        raise FairspecError(f"{name}: an adapter, which needs peft. pip install 'fairspec-bench[lora]'.") from None
    said = json.loads((folder / ADAPTER).read_bytes())
    if said.get("peft_type") not in MERGING or said.get("megatron_config"):
        kind = said.get("peft_type") if said.get("peft_type") not in MERGING else "Megatron"
        raise FairspecError(f"{name}: a {kind} adapter; only {', '.join(MERGING)} are merged. Merge and save it first.")
    if getattr(base, "hf_quantizer", None) is not None:
        raise FairspecError(f"{name}: its base is quantized: merging would round it again. Merge it in full precision.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about missing keys, which are checked below
            made = peft.PeftModel.from_pretrained(base, str(folder), torch_device=str(base.device))
        lost = _missing(made, folder)
        if lost:
            raise FairspecError(f"{name}: {ADAPTER_WEIGHTS} lacks {lost}. Is {base.name_or_path} its base?")
        found: PreTrainedModel = made.merge_and_unload()
    except (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise FairspecError(f"{name}: cannot be merged into {base.name_or_path} ({one_line(error)}).") from error
    return found.requires_grad_(True)  # as in any loaded model: PEFT froze the base


def adapter_sha256(folder: Path) -> Sha256:
    """Hash of what an adapter adds: its weights' file, and its settings without the name of its base."""
    said = json.loads((folder / ADAPTER).read_bytes())
    settings = {key: value for key, value in said.items() if key not in _ABOUT}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    with (folder / ADAPTER_WEIGHTS).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _missing(model: Any, folder: Path) -> str | None:
    """The first weight of an adapter that is missing in its file."""
    from peft import get_peft_model_state_dict

    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        there = set(file.keys())
    return min(set(get_peft_model_state_dict(model, save_embedding_layers=False)) - there, default=None)
