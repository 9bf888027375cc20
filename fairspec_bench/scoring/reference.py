"""The verifier's own continuations, made once and kept by content.

Speculative decoding is lossless, so these are the outputs that every drafter is scored on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import torch

from fairspec_bench.engine.speculative import as_request, decode
from fairspec_bench.models.codec import Codec
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.base import FairspecError, Record, RecordError, Sha256
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.io import ids_sha256, read_record, write_record
from fairspec_bench.schemas.lines import Finish, Reference
from fairspec_bench.schemas.prompts import Encoded, Prompt, StopCheck


class Given(Protocol):
    """A text that is known already."""

    @property
    def ids(self) -> tuple[int, ...]: ...

    @property
    def finish(self) -> Finish: ...


NONE_GIVEN: Mapping[str, Given] = MappingProxyType({})


class _Entry(Record):
    """One cached continuation; `content` repeats its address and `ids_sha` its ids, so that damage shows."""

    content: Sha256
    ids: tuple[int, ...]
    ids_sha: Sha256
    finish: Finish


def make_references(
    verifier: Model,
    encoded: Sequence[Encoded],
    *,
    stops: Mapping[str, StopCheck] | None = None,
    stop_identity: str | Mapping[str, str] = "",
    sampling: SamplingParams,
    batch_size: int,
    seed: int,
    chunk: str,
    cache: Path | None = None,
    given: Mapping[str, Given] = NONE_GIVEN,
) -> Iterator[Reference]:
    """The verifier's output for each prompt of a chunk, in their order; those `given` by key are not made.

    `stops` maps keys to their stop checks; `stop_identity`, of all or by group, must then say what they are (stop
    strings and tokenizer hash), for it is part of the address in `cache`. A damaged entry is made anew. Raises
    `FairspecError` for a prompt that does not fit or a cache that cannot be written, `ValueError` for stops in a cache
    without their identity.
    """
    if stops and cache and not stop_identity:
        raise ValueError("stops can be cached only under a stop_identity")
    stops, prompts = stops or {}, {prompt.key: prompt for prompt in encoded}
    addresses: dict[str, Path] = {}
    if cache:
        common = _common(verifier, sampling, seed)
        for prompt in encoded:
            identity = stop_identity if isinstance(stop_identity, str) else stop_identity[prompt.group]
            addresses[prompt.key] = _address(cache, {**common, "stops": identity}, prompt)
    entries: dict[str, Given] = {key: entry for key, path in addresses.items() if (entry := _read(path))}
    entries |= {key: given[key] for key in prompts if key in given}
    references = {key: _reference(prompts[key], entry.ids, entry.finish, chunk) for key, entry in entries.items()}
    missing = [as_request(prompt, stops.get(prompt.key)) for prompt in encoded if prompt.key not in references]
    decoding = decode(verifier, None, missing, sampling=sampling, gamma=0, batch_size=batch_size, seed=seed)
    for prompt in encoded:
        while prompt.key not in references:
            done = next(decoding)
            references[done.key] = _reference(prompts[done.key], done.ids, done.finish, chunk)
        yield references[prompt.key]
    # Kept only once the chunk is whole: one cut short is made again in the same batches, hence with the same bits.
    for key in addresses.keys() - entries.keys():
        reference, path = references[key], addresses[key]
        entry = _Entry(content=path.stem, ids=reference.ids, ids_sha=ids_sha256(reference.ids), finish=reference.finish)
        write_record(path, entry)


def continuations(
    model: Model,
    codec: Codec,
    prompts: Sequence[Prompt],
    encoded: Sequence[Encoded],
    *,
    sampling: SamplingParams,
    batch_size: int,
    seed: int,
    chunk: str,
    cache: Path | None,
    given: Mapping[str, Given] = NONE_GIVEN,
) -> Iterator[Reference]:
    """`make_references` with the prompts' own stop strings; those of its task are part of a text's address."""
    groups: dict[str, list[Prompt]] = {}
    for prompt, ids in zip(prompts, encoded, strict=True):
        groups.setdefault(ids.group, []).append(prompt)
    return make_references(
        model,
        encoded,
        stops={prompt.key: check for prompt in prompts if (check := codec.stop_check(prompt))},
        stop_identity={group: _stop_identity(codec, mine) for group, mine in groups.items()},
        sampling=sampling,
        batch_size=batch_size,
        seed=seed,
        chunk=chunk,
        cache=cache,
        given=given,
    )


def _stop_identity(codec: Codec, prompts: Sequence[Prompt]) -> str:
    forms = {codec.stop_forms(prompt.stops) for prompt in prompts}
    ends = {end for prompt in prompts for end in codec.stop_ids(prompt.stops)}
    return f"{codec.tokenizer_sha256} {sorted(forms)}{f' {sorted(ends)}' if ends else ''}"


def pair(encoded: Sequence[Encoded], references: Sequence[Reference]) -> list[tuple[Encoded, Reference]]:
    """Each prompt with its reference, in the prompts' order. Raises `FairspecError` if one is missing or foreign."""
    by_key = {reference.key: reference for reference in references}
    for prompt in encoded:
        if prompt.key not in by_key:
            raise FairspecError(f"{prompt.key}: no reference. Make the references first.")
        if by_key[prompt.key].prompt_sha != prompt.sha:
            raise FairspecError(f"{prompt.key}: its reference is of another prompt. Make the references again.")
    return [(prompt, by_key[prompt.key]) for prompt in encoded]


def hardware_class(model: Model) -> str:
    """Where the same bits can be expected again: `cpu`, or the CUDA device's name."""
    return torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type


def _reference(prompt: Encoded, ids: tuple[int, ...], finish: Finish, chunk: str) -> Reference:
    return Reference(key=prompt.key, prompt_sha=prompt.sha, ids=ids, finish=finish, chunk=chunk)


def _common(verifier: Model, sampling: SamplingParams, seed: int) -> dict[str, object]:
    """What all entries of a call share. Greedy: no seed. Other backends and packed weights round otherwise."""
    return {
        **({} if verifier.backend == "eager" else {"backend": verifier.backend}),
        **({"packed": True} if verifier.packed else {}),
        "verifier": verifier.name,
        "revision": verifier.revision,
        "content": verifier.content,
        "dtype": str(verifier.dtype),
        "hardware": hardware_class(verifier),
        "eos": sorted(verifier.eos_ids),
        "sampling": sampling.model_dump(),
        "seed": None if sampling.greedy else seed,
    }


def _address(cache: Path, common: dict[str, object], prompt: Encoded) -> Path:
    text = json.dumps({**common, "prompt": prompt.sha, "max_new_tokens": prompt.max_new_tokens}, sort_keys=True)
    content = hashlib.sha256(text.encode()).hexdigest()
    return cache / content[:2] / f"{content}.json"


def _read(path: Path) -> _Entry | None:
    try:
        entry = read_record(path, _Entry)
    except RecordError:
        return None
    return entry if entry.content == path.stem and entry.ids_sha == ids_sha256(entry.ids) else None
