"""A server that tells its counters at `/metrics`, in Prometheus' text format, and what others did meanwhile.

The server is somebody else's: what it counted while others used it too is refused, unless it is given as shared; then
only what it counts for each request is kept. Arrivals over a network need not be blocks: the counters must say so.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Counters
from fairspec_bench.scoring.executors.serving.engine import EngineRequest, RequestBatch, count
from fairspec_bench.scoring.executors.serving.http_server import HttpServer

Traffic = tuple[int, int, int]
"""Requests that ended (0 where they are not counted), prompt tokens and output tokens."""
SETTLE, PAUSE = 5.0, 0.05
"""Seconds in which a server's counters must catch up with what it answered, and between two looks."""
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_POSITION = re.compile(r'(?:^|,)position="(\d+)"')


class MeteredServer(HttpServer):
    """One model of a server with counters, with a drafter (`speculates`) or without; `shared` where others use it too.

    `prefix` begins the counters' names, `ended`, `prompts` and `outputs` are those of its traffic, `waiting` the gauges
    of requests under way; `speculating` and `by_request` say how it is started to speculate, and to count each request.
    """

    prefix: ClassVar[str]
    ended: ClassVar[str | None]
    prompts: ClassVar[str]
    outputs: ClassVar[str]
    waiting: ClassVar[tuple[str, ...]]
    speculating: ClassVar[str]
    by_request: ClassVar[str]
    beyond: int = 0
    """Tokens that a request asks for after its own, so that its last draft is not cut short."""

    def __init__(self, url: str, *, speculates: bool, shared: bool = False):
        """Raises `FairspecError` for an address where no such server answers."""
        super().__init__(url, speculates=speculates)
        self.seen: Traffic = (0, 0, 0)
        self.shared = shared
        self.model = self.card()
        if speculates and self.counters() is None:
            raise FairspecError(f"{self.url}: counts no speculation. Start it with {self.speculating}.")
        if not speculates and self.baseline_speculates():
            raise FairspecError(f"{self.url}: speculates, so it is no baseline. Give the server without a drafter.")

    def card(self) -> str:
        """The name of the one model that it serves. Raises `FairspecError` for another server."""
        raise NotImplementedError

    def baseline_speculates(self) -> bool:
        """Whether the server that should not speculate does."""
        return self.speculation() is not None

    def serve(self, wanted: Sequence[EngineRequest], at_once: int) -> RequestBatch:
        """As the protocol says, by `at_once` clients. Raises `FairspecError` if anybody else was served meanwhile.

        Of a shared server: if it does not count its speculation for each request.
        """
        if self.shared:
            batch = super().serve(wanted, at_once)
            if self.speculates and any(one.counters is None and not one.wanted.stop for one in batch.served):
                raise FairspecError(
                    f"{self.url}: shared, but counts no speculation for each request. Start it with {self.by_request}."
                )
            return batch
        self._await_idle()
        before = self._traffic()
        batch = super().serve(wanted, at_once)
        asked = len(wanted) if self.ended else 0
        most = (asked, sum(len(each.ids) for each in wanted), sum(each.tokens + self.beyond for each in wanted))
        # What ended by our own rule was cut off, which need not count as a request.
        cut = self.beyond or any(each.stop for each in wanted)
        least = (0, most[1], sum(len(one.ids) for one in batch.served)) if cut else most
        self._refuse_others(before, least, most)
        return batch

    def counters(self) -> Counters | None:
        """From `/metrics`, all of the server's engines together."""
        return self.speculation() if self.speculates else None

    def _metrics(self) -> dict[str, dict[str, float]]:
        """Every sample by name and labels."""
        return read_metrics(self.read("/metrics").decode(errors="replace"))

    def speculation(self) -> Counters | None:
        found = self._metrics()
        if f"{self.prefix}:spec_decode_num_drafts_total" not in found:
            return None

        def total(name: str) -> int:
            return self._total(found, f"{self.prefix}:spec_decode_{name}_total")

        positions: dict[int, int] = {}
        for labels, value in found.get(f"{self.prefix}:spec_decode_num_accepted_tokens_per_pos_total", {}).items():
            if at := _POSITION.search(labels):
                positions[int(at[1])] = positions.get(int(at[1]), 0) + count(f"{self.url}: {labels}", value)
        return Counters(
            rounds=total("num_drafts"),
            drafts=total("num_draft_tokens"),
            accepted=total("num_accepted_tokens"),
            accepted_by_position=tuple(positions.get(place, 0) for place in range(max(positions, default=-1) + 1)),
        )

    def _total(self, found: Mapping[str, Mapping[str, float]], name: str) -> int:
        """A counter over all of the server's engines. Raises `FairspecError` for none, or one that is not a count."""
        if name not in found:
            raise FairspecError(f"{self.url}: /metrics has no {name}. Give {self.title} that logs statistics.")
        return sum(count(f"{self.url}: {name}", value) for value in found[name].values())

    def _traffic(self) -> Traffic:
        """Requests that ended, prompt tokens and output tokens since the server started."""
        found, before = self._metrics(), self.seen
        ended, asked, made = (
            self._total(found, f"{self.prefix}:{name}_total") if name else 0
            for name in (self.ended, self.prompts, self.outputs)
        )
        self.seen = (ended, asked, made)
        if any(late < early for early, late in zip(before, self.seen, strict=True)):
            raise FairspecError(
                f"{self.url}: its counters fell from {before} to {self.seen}. Was it restarted? Run again."
            )
        return self.seen

    def _await_idle(self) -> None:
        """What was cut off here ends a moment later; what goes on is somebody else's."""
        until = time.monotonic() + SETTLE
        while busy := self._busy():
            if time.monotonic() > until:
                raise FairspecError(f"{self.url}: busy with {busy} requests: others use it. Run again when it is idle.")
            time.sleep(PAUSE)

    def _busy(self) -> int:
        found = self._metrics()
        return sum(self._total(found, f"{self.prefix}:{name}") for name in self.waiting)

    def _refuse_others(self, before: Traffic, least: Traffic, most: Traffic) -> None:
        """The server must have done what was asked here and nothing else."""
        until = time.monotonic() + SETTLE
        while True:
            did = [late - early for early, late in zip(before, self._traffic(), strict=True)]
            behind = any(done < wanted for done, wanted in zip(did, least, strict=True))
            beyond = any(done > wanted for done, wanted in zip(did, most, strict=True))
            if not behind and not beyond:
                return
            if beyond or time.monotonic() > until:
                why = "others use it. Run again when it is idle" if beyond else "was it restarted? Run again"
                raise FairspecError(
                    f"{self.url}: served {did[0]} requests with {did[1]} prompt and {did[2]} output tokens where "
                    f"{most[0]}, {most[1]} and {most[2]} were asked here: {why}."
                )
            time.sleep(PAUSE)


def read_metrics(text: str) -> dict[str, dict[str, float]]:
    """The samples of Prometheus' text format, by name and then by their labels as written."""
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if not line.startswith("#") and (sample := _SAMPLE.match(line)):
            try:
                found.setdefault(sample[1], {})[sample[2] or ""] = float(sample[3])
            except ValueError:
                continue
    return found
