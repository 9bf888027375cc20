"""The verifier's own continuations, made once and kept by content.

Speculative decoding is lossless, so these are the texts that every drafter is scored on. Knows prompts as ids, what
stops their texts, traces and the cache of them. Knows no drafter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import torch

from fairspec_bench.codec import Codec
from fairspec_bench.engine.loop import StopCheck, as_request, decode
from fairspec_bench.engine.model import Model
from fairspec_bench.records import (
    Encoded,
    FairspecError,
    Finish,
    Prompt,
    Record,
    RecordError,
    Rule,
    Sha256,
    Trace,
    ids_sha256,
    read_record,
    write_record,
)


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
    stop_identity: str = "",
    rule: Rule,
    batch_size: int,
    seed: int,
    shard: str,
    cache: Path | None = None,
    given: Mapping[str, Given] = NONE_GIVEN,
) -> Iterator[Trace]:
    """The verifier's continuation of each prompt of a shard, in their order; those `given` by key are not made.

    `stops` maps keys to their stop checks; `stop_identity` must then say what they are (stop strings and tokenizer
    hash), for it is part of the address in `cache`. A damaged entry is made anew. Raises `FairspecError` for a prompt
    that does not fit or a cache that cannot be written, `ValueError` for stops in a cache without their identity.
    """
    if stops and cache and not stop_identity:
        raise ValueError("stops can be cached only under a stop_identity")
    stops, prompts = stops or {}, {prompt.key: prompt for prompt in encoded}
    addresses: dict[str, Path] = {}
    if cache:
        common = _common(verifier, rule, seed, stop_identity)
        addresses = {prompt.key: _address(cache, common, prompt) for prompt in encoded}
    entries: dict[str, Given] = {key: entry for key, path in addresses.items() if (entry := _read(path))}
    entries |= {key: given[key] for key in prompts if key in given}
    traces = {key: _trace(prompts[key], entry.ids, entry.finish, shard) for key, entry in entries.items()}
    missing = [as_request(prompt, stops.get(prompt.key)) for prompt in encoded if prompt.key not in traces]
    decoding = decode(verifier, None, missing, rule=rule, gamma=0, batch_size=batch_size, seed=seed)
    for prompt in encoded:
        while prompt.key not in traces:
            done = next(decoding)
            traces[done.key] = _trace(prompts[done.key], done.ids, done.finish, shard)
        yield traces[prompt.key]
    # Kept only once the shard is whole: a shard cut short is made again in the same batches, hence with the same bits.
    for key in addresses.keys() - entries.keys():
        trace, path = traces[key], addresses[key]
        entry = _Entry(content=path.stem, ids=trace.ids, ids_sha=ids_sha256(trace.ids), finish=trace.finish)
        write_record(path, entry)


def continuations(
    model: Model,
    codec: Codec,
    prompts: Sequence[Prompt],
    encoded: Sequence[Encoded],
    *,
    rule: Rule,
    batch_size: int,
    seed: int,
    shard: str,
    cache: Path | None,
    given: Mapping[str, Given] = NONE_GIVEN,
) -> Iterator[Trace]:
    """`make_references` with the prompts' own stop strings, whose identity is part of each text's address."""
    return make_references(
        model,
        encoded,
        stops={prompt.key: check for prompt in prompts if (check := codec.stop_check(prompt))},
        stop_identity=f"{codec.tokenizer_sha256} {sorted({prompt.stops for prompt in prompts})}",
        rule=rule,
        batch_size=batch_size,
        seed=seed,
        shard=shard,
        cache=cache,
        given=given,
    )


def pair(encoded: Sequence[Encoded], traces: Sequence[Trace]) -> list[tuple[Encoded, Trace]]:
    """Each prompt with its trace, in the prompts' order. Raises `FairspecError` if one is missing or foreign."""
    by_key = {trace.key: trace for trace in traces}
    for prompt in encoded:
        if prompt.key not in by_key:
            raise FairspecError(f"{prompt.key}: no reference trace. Make the references first.")
        if by_key[prompt.key].prompt_sha != prompt.sha:
            raise FairspecError(
                f"{prompt.key}: its reference trace continues another prompt. Make the references again."
            )
    return [(prompt, by_key[prompt.key]) for prompt in encoded]


def hardware_class(model: Model) -> str:
    """Where the same bits can be expected again: `cpu`, or the CUDA device's name."""
    return torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type


def _trace(prompt: Encoded, ids: tuple[int, ...], finish: Finish, shard: str) -> Trace:
    return Trace(key=prompt.key, prompt_sha=prompt.sha, ids=ids, finish=finish, shard=shard)


def _common(verifier: Model, rule: Rule, seed: int, stop_identity: str) -> dict[str, object]:
    """What all entries of a call share. The greedy rule has no seed; other backends than eager round otherwise."""
    return {
        **({} if verifier.backend == "eager" else {"backend": verifier.backend}),
        "verifier": verifier.name,
        "revision": verifier.revision,
        "weights": verifier.weights_sha256,
        "dtype": str(verifier.dtype),
        "hardware": hardware_class(verifier),
        "eos": sorted(verifier.eos_ids),
        "rule": rule.model_dump(),
        "seed": None if rule.greedy else seed,
        "stops": stop_identity,
    }


def _address(cache: Path, common: dict[str, object], prompt: Encoded) -> Path:
    text = json.dumps({**common, "prompt": prompt.sha, "cap": prompt.cap}, sort_keys=True)
    content = hashlib.sha256(text.encode()).hexdigest()
    return cache / content[:2] / f"{content}.json"


def _read(path: Path) -> _Entry | None:
    try:
        entry = read_record(path, _Entry)
    except RecordError:
        return None
    return entry if entry.content == path.stem and entry.ids_sha == ids_sha256(entry.ids) else None
