"""SGLang's server by its address: its native `/generate`, and what it counts for each request in `meta_info`.

Made from its documented responses and tried on a server made from them, not on a real one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Counters
from fairspec_bench.schemas.options import ModelSpec, RunOptions
from fairspec_bench.scoring.executors.serving.engine import (
    ADDRESS,
    Engine,
    EngineRequest,
    RequestBatch,
    Speculation,
    total,
)
from fairspec_bench.scoring.executors.serving.http_server import Arrival, HttpServer, by_histogram
from fairspec_bench.scoring.executors.serving.model_files import Card, read_card


class SglangServer(HttpServer):
    """See `HttpServer`. Others are not noticed: its counts are of each request alone."""

    title, key, path = "an SGLang server", "SGLANG_API_KEY", "/generate"
    needs = "SGLang, which streams output_ids, and room for the whole answer (--context-length)"

    def __init__(self, url: str, *, speculates: bool):
        """Raises `FairspecError` for an address where no SGLang server answers."""
        super().__init__(url, speculates=speculates)
        if not isinstance(self.read_json("/get_model_info").get("model_path"), str):
            raise FairspecError(f"{self.url}: no SGLang server (/get_model_info names no model).")
        self.counted, self.lock = Counters(rounds=0, drafts=0, accepted=0, accepted_by_position=()), Lock()

    def serve(self, wanted: Sequence[EngineRequest], at_once: int) -> RequestBatch:
        """As the protocol says. Raises `FairspecError` where it does not say what it drafted for a request."""
        batch = super().serve(wanted, at_once)
        counted = [one.counters for one in batch.served if one.counters is not None]
        if self.speculates and any(one.counters is None and not one.wanted.stop for one in batch.served):
            raise FairspecError(
                f"{self.url}: meta_info has no spec_verify_ct. Start it with --speculative-algorithm, or update it."
            )
        if not self.speculates and any(each.rounds for each in counted):
            raise FairspecError(f"{self.url}: speculates, so it is no baseline. Give the server without a drafter.")
        with self.lock:
            self.counted = total([self.counted, *counted])
        return batch

    def counters(self) -> Counters | None:
        """Those of all requests from here together."""
        return self.counted if self.speculates else None

    def body(self, wanted: EngineRequest) -> Mapping[str, Any]:
        sampling = {"temperature": 0, "max_new_tokens": wanted.tokens, "ignore_eos": True, "repetition_penalty": 1.0}
        return {"input_ids": list(wanted.ids), "sampling_params": sampling, "stream": True}

    def arrival(self, event: Mapping[str, Any], have: int) -> Arrival:
        """`output_ids` are all so far or only the new ones: `completion_tokens` says how many came."""
        meta, ids = event.get("meta_info"), event.get("output_ids")
        if (
            not isinstance(meta, dict)
            or not isinstance(ids, list)
            or not isinstance(meta.get("completion_tokens"), int)
        ):
            raise FairspecError(f"{self.url}: an answer without output_ids or meta_info. It needs {self.needs}.")
        new = max(0, meta["completion_tokens"] - have)
        last = meta.get("finish_reason") is not None
        arrived = tuple(ids[len(ids) - new :])
        if not last or "spec_verify_ct" not in meta:
            return Arrival(arrived, last=last)
        names = ("correct_drafts_histogram", "verify_ct", "num_proposed_drafts", "num_correct_drafts")
        return Arrival(arrived, by_histogram(self.url, *(meta.get(f"spec_{name}") for name in names)), last=True)


class Sglang:
    """See `ServingEngine`. Only a running server."""

    name, title = "sglang", "SGLang"

    def check(self, ask: RunOptions) -> None:
        """Raises `FairspecError` without an address, and for an option that cannot be given to a server."""
        if ADDRESS not in ask.verifier.options:
            raise FairspecError(
                "backend=sglang: only a running server. Name it: --model_args base_url=http://HOST:PORT."
            )
        for side, known in ((ask.verifier, {ADDRESS}), (ask.drafter, {ADDRESS, "method"})):
            if unknown := sorted({*(side.options if side else ())} - known):
                raise FairspecError(f"{unknown[0]}: not an option of SGLang's here. Known: {', '.join(sorted(known))}.")

    def speculation(self, drafter: ModelSpec, gamma: int) -> Speculation:
        """A draft model or a head, as the server has it. Raises `FairspecError` for another drafter."""
        if not drafter_kind(drafter.kind).causal_lm:
            raise FairspecError(f"{drafter.name}: SGLang is given a draft model or a head here. Give one.")
        card = read_card(drafter.name, drafter.source, drafter.revision, self.name, weights=False, head=True)
        return Speculation({}, card, shares_vocabulary=card.method is None and "method" not in drafter.options)

    def start(self, ask: RunOptions, verifier: Card, drafter: Speculation | None, speculates: bool) -> Engine:
        side = ask.drafter if speculates else ask.verifier
        assert side is not None
        return SglangServer(str(side.options[ADDRESS]), speculates=speculates)


SGLANG = Sglang()
