"""Batches of real text for training: any folder of `<language>.txt`, split by document, packed to long sequences.

With a `DOCUMENT_IDS.tsv` beside the texts (one id
a line, as in NTREX) lines of one id are one document in every language; without it a blank line ends a document, and a
file without blank lines is cut into documents of 20 lines. Held-out documents are never trained on.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.testbed.tokenizer import EOS_ID
from fairspec_bench.testbed.trainer import Source, TrainingBatch

MAX_FILE_BYTES = 256 * 2**20
LINES_A_DOCUMENT = 20


@dataclass(frozen=True)
class Texts:
    """Documents by language, and the SHA-256 of all that was read."""

    train: Mapping[str, Sequence[str]]
    held_out: Mapping[str, Sequence[str]]
    sha256: str


def read_texts(folder: Path, held_out: float = 0.1) -> Texts:
    """Read `<language>.txt` files; the same document is held out in every language that shares ids.

    Raises `FairspecError` where the folder is missing, holds no text, or a file is not UTF-8 or too large.
    """
    paths = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not paths:
        raise FairspecError(f"--text {folder}: no <language>.txt there. Give a folder with one UTF-8 file a language.")
    id_file = folder / "DOCUMENT_IDS.tsv"
    ids = _read(id_file).splitlines() if id_file.is_file() else None
    digest, train, held = hashlib.sha256(), {}, {}
    for path in paths:
        text = _read(path)
        digest.update(f"{path.stem}\x1f{text}\x1e".encode())
        documents = _documents(text, ids, path)
        is_held = {name: _share(name) < held_out for name, _ in documents}
        train[path.stem] = [body for name, body in documents if not is_held[name]]
        held[path.stem] = [body for name, body in documents if is_held[name]]
        if not train[path.stem]:
            raise FairspecError(
                f"{path}: no document left to train on. Give more text or blank lines between documents."
            )
    return Texts(train, held, digest.hexdigest())


def packed_source(
    texts: Texts, tokenizer: PreTrainedTokenizerFast, mix: Mapping[str, float], positions: int, batch: int, seed: int
) -> Source:
    """Batches [batch, positions]: each sequence holds documents of one language drawn by `mix`, ended by EOS."""
    tokens = {
        language: [[*ids, EOS_ID] for ids in tokenizer(list(documents)).input_ids]
        for language, documents in texts.train.items()
    }

    def at(step: int) -> TrainingBatch:
        rng = random.Random(f"{seed}/{step}")
        rows = []
        for language in rng.choices(list(mix), list(mix.values()), k=batch):
            row: list[int] = []
            while len(row) < positions:
                row += rng.choice(tokens[language])
            rows.append(row[:positions])
        return torch.tensor(rows), torch.ones(batch, positions)

    return at


def _read(path: Path) -> str:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise FairspecError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB. Cut it into a smaller text.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FairspecError(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from None


def _documents(text: str, ids: list[str] | None, path: Path) -> list[tuple[str, str]]:
    lines = text.splitlines()
    if ids is not None:
        if len(ids) != len(lines):
            raise FairspecError(f"{path}: {len(lines)} lines, but DOCUMENT_IDS.tsv has {len(ids)}. They must match.")
        grouped = groupby(zip(ids, lines, strict=True), key=lambda pair: pair[0])
        return [(name, "\n".join(line for _, line in pairs)) for name, pairs in grouped]
    if any(not line.strip() for line in lines):
        bodies = ["\n".join(group) for filled, group in groupby(lines, key=lambda x: bool(x.strip())) if filled]
    else:
        bodies = ["\n".join(lines[i : i + LINES_A_DOCUMENT]) for i in range(0, len(lines), LINES_A_DOCUMENT)]
    return [(str(number), body) for number, body in enumerate(bodies)]


def _share(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
