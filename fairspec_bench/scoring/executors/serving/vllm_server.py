"""A running vLLM server, by its address: completions over HTTP, counters from its `/metrics`.

The server is somebody else's: what it counted while others used it too is refused, unless it is given as shared; then
only what it counts for each request is kept (`--per-request-spec-decode-metrics`). Arrivals over a network need not be
blocks: the counters must say so.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Counters
from fairspec_bench.scoring.executors.serving.engine import EngineRequest, RequestBatch, count
from fairspec_bench.scoring.executors.serving.http_server import Arrival, HttpServer, by_histogram

TRAFFIC = ("request_success", "prompt_tokens", "generation_tokens")
Traffic = tuple[int, int, int]
"""Requests that ended, prompt tokens and output tokens."""
SETTLE, PAUSE = 5.0, 0.05
"""Seconds in which a server's counters must catch up with what it answered, and between two looks."""
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_POSITION = re.compile(r'(?:^|,)position="(\d+)"')


class Server(HttpServer):
    """One model of a vLLM server, with a drafter (`speculates`) or without; `shared` where others use it too."""

    title, key, path = "a vLLM server", "VLLM_API_KEY", "/v1/completions"
    needs = "vLLM 0.10.2 or newer (return_token_ids) and room for the whole answer (--max-model-len)"

    def __init__(self, url: str, *, speculates: bool, shared: bool = False):
        """Raises `FairspecError` for an address where no vLLM server answers."""
        super().__init__(url, speculates=speculates)
        self.seen: Traffic = (0, 0, 0)
        self.shared = shared
        card = self._card()
        self.model = str(card["id"])
        self.max_positions = int(card["max_model_len"]) if card.get("max_model_len") else None
        found = self.counters()
        if speculates and (found is None or not found.accepted_by_position):
            raise FairspecError(f"{self.url}: counts no speculation. Start it with --speculative-config.")
        if not speculates and self._speculation() is not None:
            raise FairspecError(f"{self.url}: speculates, so it is no baseline. Give the server without a drafter.")

    def serve(self, wanted: Sequence[EngineRequest], at_once: int) -> RequestBatch:
        """As the protocol says, by `at_once` clients. Raises `FairspecError` if anybody else was served meanwhile.

        Of a shared server: if it does not count its speculation for each request.
        """
        if self.shared:
            batch = super().serve(wanted, at_once)
            if self.speculates and any(one.counters is None and not one.wanted.stop for one in batch.served):
                raise FairspecError(
                    f"{self.url}: shared, but counts no speculation for each request. Start it with "
                    "--per-request-spec-decode-metrics summary."
                )
            return batch
        self._await_idle()
        before = self._traffic()
        batch = super().serve(wanted, at_once)
        most = (len(wanted), sum(len(each.ids) for each in wanted), sum(each.tokens for each in wanted))
        # What ended by our own rule was cut off, which vLLM need not count as a request.
        cut = any(each.stop for each in wanted)
        least = (0, most[1], sum(len(one.ids) for one in batch.served)) if cut else most
        self._refuse_others(before, least, most)
        return batch

    def counters(self) -> Counters | None:
        """From `/metrics`, all of the server's engines together."""
        return self._speculation() if self.speculates else None

    def body(self, wanted: EngineRequest) -> Mapping[str, Any]:
        return {
            "model": self.model,
            "prompt": list(wanted.ids),
            "max_tokens": wanted.tokens,
            "temperature": 0,
            # A server's defaults are those of the model's generation_config.json.
            "repetition_penalty": 1.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
        }

    def arrival(self, event: Mapping[str, Any]) -> Arrival:
        """Ids by choice; the request's own counts are `metrics.speculative_decoding` of the event after the last."""
        ids = [token for choice in event.get("choices", ()) for token in choice.get("token_ids") or ()]
        metrics = event.get("metrics")
        found = metrics.get("speculative_decoding") if isinstance(metrics, dict) else None
        if not isinstance(found, dict):
            return Arrival(ids)
        names = ("acceptance_histogram", "num_spec_steps", "num_draft_tokens", "num_accepted_draft_tokens")
        return Arrival(ids, by_histogram(self.url, *(found.get(name) for name in names)))

    def _card(self) -> Mapping[str, Any]:
        try:
            cards = self.read_json("/v1/models")["data"]
            served = [card for card in cards if not card.get("parent")]
        except (KeyError, TypeError, AttributeError):
            raise FairspecError(f"{self.url}: no OpenAI-compatible server (/v1/models is not its list).") from None
        if len(served) != 1:
            raise FairspecError(f"{self.url}: serves {len(served)} models. Give a server of one.")
        return dict(served[0])

    def _metrics(self) -> dict[str, dict[str, float]]:
        """Every sample by name and labels."""
        return read_metrics(self.read("/metrics").decode(errors="replace"))

    def _speculation(self) -> Counters | None:
        found = self._metrics()
        if "vllm:spec_decode_num_drafts_total" not in found:
            return None

        def total(name: str) -> int:
            return self._total(found, f"vllm:spec_decode_{name}_total")

        positions: dict[int, int] = {}
        for labels, value in found.get("vllm:spec_decode_num_accepted_tokens_per_pos_total", {}).items():
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
            raise FairspecError(f"{self.url}: /metrics has no {name}. Give a vLLM server that logs statistics.")
        return sum(count(f"{self.url}: {name}", value) for value in found[name].values())

    def _traffic(self) -> Traffic:
        """Requests that ended, prompt tokens and output tokens since the server started."""
        found, before = self._metrics(), self.seen
        ended, asked, made = (self._total(found, f"vllm:{name}_total") for name in TRAFFIC)
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
        return sum(self._total(found, f"vllm:num_requests_{kind}") for kind in ("running", "waiting"))

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
