"""Models in GGUF files, unpacked once, as Transformers reads them, into a folder of float32 safetensors in the cache.

The folder is named by the file's SHA-256. It appears by one rename, so that it is whole or absent.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from fairspec_bench.schemas.base import FairspecError, Sha256, one_line
from fairspec_bench.schemas.io import cache_folder

SUFFIX = ".gguf"
MAGIC = b"GGUF"
SPARE_BYTES = 2**28
"""Of free disk beside the weights: the tokenizer, and what other processes write meanwhile."""
END_TOKENS = (
    *("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>"),
    *("<EOT>", "_<EOT>", "<end_of_utterance>", "<|return|>", "<|call|>"),
)
"""Tokens that end a text in llama.cpp whatever the metadata say (`llama-vocab.cpp`, special_eog_ids)."""


class Unpacked(NamedTuple):
    """The folder of an unpacked file, and the file's SHA-256."""

    folder: Path
    sha256: Sha256


def is_gguf(name: str) -> bool:
    """Whether a model's name is that of a GGUF file."""
    return name.endswith(SUFFIX) and not Path(name).expanduser().is_dir()


def check_header(file: Path) -> None:
    """Raise `FairspecError` unless the file begins as a GGUF file does."""
    try:
        with file.open("rb") as opened:
            begins = opened.read(len(MAGIC))
    except OSError as error:
        raise FairspecError(f"{file}: cannot be read ({error.strerror}).") from None
    if begins != MAGIC:
        raise FairspecError(f"{file}: not a GGUF file. Fetch it again or choose another.")


def unpack(file: Path) -> Unpacked:
    """The model of a GGUF file as a folder that Transformers loads, made at the first call.

    Raises:
        FairspecError: one line, for a file that is damaged or of an unknown architecture, a missing package, too little
            free disk.
    """
    sha256 = file_sha256(file)
    folder = cache_folder("models") / f"gguf-{sha256}"
    if folder.is_dir():
        return Unpacked(folder, sha256)
    if missing := [package for package in ("gguf", "accelerate") if find_spec(package) is None]:
        raise FairspecError(f"{file}: a GGUF file needs {missing[0]}. pip install 'fairspec-bench[gguf]'.")
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():  # else another process made it meanwhile
                shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
                partial.mkdir()
                try:
                    _write(file, partial, folder)
                    partial.rename(folder)
                finally:  # under the lock: a process that waits for it must not take away what another writes
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise FairspecError(f"{file}: cannot be unpacked into {folder.parent} ({one_line(error)}).") from error
    return Unpacked(folder, sha256)


def file_sha256(file: Path) -> Sha256:
    """The hash of a GGUF file. Raises `FairspecError` for one that is none."""
    check_header(file)
    stat = file.stat()
    return _sha256(file.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache
def _sha256(file: Path, size: int, modified: int) -> Sha256:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write(file: Path, partial: Path, folder: Path) -> None:
    """Unpack a file into the empty folder `partial`, which is to become `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from fairspec_bench.models.checkpoint import save_model

    reader = _read(file)
    wanted = 4 * sum(int(tensor.n_elements) for tensor in reader.tensors)
    free = shutil.disk_usage(partial).free
    if free < wanted + SPARE_BYTES:
        raise FairspecError(
            f"{file}: unpacked it takes {wanted / 2**30:.1f} GiB, {free / 2**30:.1f} are free in {folder.parent}. "
            "Free some, or set FAIRSPEC_CACHE_DIR."
        )
    print(f"{file.name}: being unpacked into {folder}, {wanted / 2**30:.1f} GiB, once", file=sys.stderr, flush=True)
    # In a folder of its own: Transformers would also read what lies beside it.
    (alone := partial / "file").mkdir()
    (alone / "model.gguf").symlink_to(file.resolve())
    given: dict[str, Any] = {"gguf_file": "model.gguf", "local_files_only": True, "trust_remote_code": False}
    try:
        hf, info = AutoModelForCausalLM.from_pretrained(
            alone,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            output_loading_info=True,
            **given,
        )
        tokenizer = AutoTokenizer.from_pretrained(alone, **given) if "tokenizer.ggml.tokens" in reader.fields else None
    except Exception as error:  # parsers of a stranger's file may raise anything
        raise FairspecError(f"{file}: cannot be unpacked ({one_line(error)}). Choose another file.") from error
    if info["missing_keys"]:
        raise FairspecError(f"{file}: it lacks {min(info['missing_keys'])}. Fetch it again or choose another.")
    shutil.rmtree(alone)
    hf.generation_config.eos_token_id = _end_ids(reader) or None
    hf.config.name_or_path = ""
    save_model(hf, tokenizer, partial)


def _read(file: Path) -> Any:
    """gguf's reader of a file, whose every tensor lies within it. Raises `FairspecError`."""
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except Exception as error:  # an index, a shape, a name, a count: whatever a cut file breaks first
        raise FairspecError(f"{file}: truncated or damaged ({one_line(error)}). Fetch it again.") from None


def _end_ids(reader: Any) -> list[int]:
    """The ids that end a text as llama.cpp takes them: those that the metadata name, and tokens known by their text."""
    fields = reader.fields
    named = [fields.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")]
    ids = {int(field.contents()) for field in named if field is not None}
    if "tokenizer.ggml.tokens" in fields:
        tokens = fields["tokenizer.ggml.tokens"].contents()
        ids |= {number for number, token in enumerate(tokens) if token in END_TOKENS}
    return sorted(ids)
