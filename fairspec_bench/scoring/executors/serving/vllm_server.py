"""A running vLLM server, by its address: completions over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Counters
from fairspec_bench.scoring.executors.serving.engine import EngineRequest
from fairspec_bench.scoring.executors.serving.http_server import Arrival, by_histogram
from fairspec_bench.scoring.executors.serving.metered_server import MeteredServer


class Server(MeteredServer):
    """See `MeteredServer`."""

    title, key, path = "a vLLM server", "VLLM_API_KEY", "/v1/completions"
    needs = "vLLM 0.10.2 or newer (return_token_ids) and room for the whole answer (--max-model-len)"
    prefix, ended, prompts, outputs = "vllm", "request_success", "prompt_tokens", "generation_tokens"
    waiting = ("num_requests_running", "num_requests_waiting")
    speculating, by_request = "--speculative-config", "--per-request-spec-decode-metrics summary"

    def counters(self) -> Counters | None:
        """From `/metrics`, all of the server's engines together; a drafting one has a count for each position."""
        found = super().counters()
        return found if found and found.accepted_by_position else None

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

    def arrival(self, event: Mapping[str, Any], have: int) -> Arrival:
        """Ids by choice; the request's own counts are `metrics.speculative_decoding` of the event after the last."""
        ids = [token for choice in event.get("choices", ()) for token in choice.get("token_ids") or ()]
        metrics = event.get("metrics")
        found = metrics.get("speculative_decoding") if isinstance(metrics, dict) else None
        if not isinstance(found, dict):
            return Arrival(ids)
        names = ("acceptance_histogram", "num_spec_steps", "num_draft_tokens", "num_accepted_draft_tokens")
        return Arrival(ids, by_histogram(self.url, *(found.get(name) for name in names)))

    def card(self) -> str:
        try:
            cards = self.read_json("/v1/models")["data"]
            served = [str(card["id"]) for card in cards if not card.get("parent")]
        except (KeyError, TypeError, AttributeError):
            raise FairspecError(f"{self.url}: no OpenAI-compatible server (/v1/models is not its list).") from None
        if len(served) != 1:
            raise FairspecError(f"{self.url}: serves {len(served)} models. Give a server of one.")
        return served[0]
