"""Where an output ends: at an end-of-text id, a stop string or `max_new_tokens`, whichever comes first."""

from __future__ import annotations

from collections.abc import Sequence

from fairspec_bench.schemas.lines import Finish
from fairspec_bench.schemas.prompts import StopCheck


def ending(
    ids: Sequence[int], new: int, max_new_tokens: int, stop: StopCheck | None, eos_ids: frozenset[int]
) -> tuple[int, Finish | None]:
    """How many ids belong to the output, and why it ends there (`None`: it does not yet).

    Args:
        ids: the output so far.
        new: index of the first id that was not checked before.
        max_new_tokens: the most ids that an output may have.
        stop: the check for the prompt's stop strings.
        eos_ids: end-of-text ids; the first one is the output's last id.
    """
    keep = min(len(ids), max_new_tokens)
    finish: Finish | None = "length" if len(ids) >= max_new_tokens else None
    for index in range(new, keep):
        if ids[index] in eos_ids:
            keep, finish = index + 1, "eos"
            break
    if stop is not None:
        stopped = stop(ids[:keep])
        if stopped is not None and (stopped < keep or finish != "eos"):
            keep, finish = stopped, "stop"
    return keep, finish
