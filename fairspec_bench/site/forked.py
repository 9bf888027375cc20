"""Many pages made on all cores.

Knows processes. What is made is the same in any number of them, and made here where there is little of it or no fork.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection

FEWEST = 200
"""Jobs below which a second process costs more than it saves."""

Make = Callable[[int, int], dict[str, str]]


def forked(make: Make, jobs: int) -> dict[str, str]:
    """`make(part, of)` for every part, together; each makes its share of the `jobs`. A part whose process dies is made
    here, so that an error is raised as it would be without any.
    """
    of = min(os.cpu_count() or 1, 8) if jobs >= FEWEST and "fork" in multiprocessing.get_all_start_methods() else 1
    context = multiprocessing.get_context("fork") if of > 1 else multiprocessing.get_context()
    started = []
    for part in range(1, of):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(make, part, of, there), daemon=True)
        process.start()
        there.close()
        started.append((part, process, here))
    made = make(0, of)
    for part, process, here in started:
        try:
            made |= here.recv()
        except EOFError:
            made |= make(part, of)
        process.join()
    return made


def _send(make: Make, part: int, of: int, there: Connection) -> None:
    there.send(make(part, of))
    there.close()
