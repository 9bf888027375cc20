"""llama.cpp's server by its address: completions over HTTP, counters from its `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.options import ModelSpec, RunOptions
from fairspec_bench.scoring.executors.serving.engine import ADDRESS, Engine, EngineRequest, Speculation
from fairspec_bench.scoring.executors.serving.http_server import Arrival
from fairspec_bench.scoring.executors.serving.metered_server import MeteredServer
from fairspec_bench.scoring.executors.serving.model_files import Card, read_card


class LlamaServer(MeteredServer):
    """See `MeteredServer`. It streams one token an event, so that arrivals are no blocks."""

    title, key, path = "llama.cpp's server", "LLAMA_API_KEY", "/completion"
    needs = "a build that returns token ids (return_tokens) and room for the whole answer (--ctx-size)"
    prefix, ended, prompts, outputs = "llamacpp", None, "prompt_tokens", "tokens_predicted"
    waiting = ("requests_processing", "requests_deferred")
    speculating, by_request = "--model-draft and --metrics", "a build that does, there is none"

    def __init__(self, url: str, *, speculates: bool, gamma: int):
        """Raises `FairspecError` for an address where no llama.cpp server answers."""
        # It drafts no more than what is left of n_predict.
        self.beyond = gamma if speculates else 0
        super().__init__(url, speculates=speculates)

    def card(self) -> str:
        found = self.read_json("/props")
        if not isinstance(found.get("model_path"), str):
            raise FairspecError(f"{self.url}: no llama.cpp server (/props names no model).")
        return str(found["model_path"])

    def baseline_speculates(self) -> bool:
        """It has the counters without a drafter too: those of one are above 0 once it was used."""
        found = self.speculation()
        return found is not None and found.drafts > 0

    def body(self, wanted: EngineRequest) -> Mapping[str, Any]:
        # With ignore_eos it would never choose the end of text, which belongs to a reference.
        return {
            "prompt": list(wanted.ids),
            "n_predict": wanted.tokens + self.beyond,
            "temperature": 0,
            "repeat_penalty": 1.0,
            "cache_prompt": False,
            "stream": True,
            "return_tokens": True,
        }

    def arrival(self, event: Mapping[str, Any], have: int) -> Arrival:
        return Arrival(event.get("tokens") or (), last=bool(event.get("stop")))


class LlamaCpp:
    """See `ServingEngine`. Only a running server, whose models are GGUF: the run names the same ones in safetensors."""

    name, title = "llamacpp", "llama.cpp"

    def check(self, ask: RunOptions) -> None:
        """Raises `FairspecError` without an address, and for an option that cannot be given to a server."""
        if ADDRESS not in ask.verifier.options:
            raise FairspecError(
                "backend=llamacpp: only a running server. Start llama-server with --metrics and name it: "
                "--model_args base_url=http://HOST:PORT."
            )
        for side in (ask.verifier, ask.drafter):
            if unknown := sorted({*(side.options if side else ())} - {ADDRESS}):
                raise FairspecError(f"{unknown[0]}: not an option of llama.cpp's here. Known: {ADDRESS}.")

    def speculation(self, drafter: ModelSpec, gamma: int) -> Speculation:
        """A draft model: `--model-draft` of the server. Raises `FairspecError` for another drafter."""
        if not drafter_kind(drafter.kind).causal_lm:
            raise FairspecError(f"{drafter.name}: llama.cpp is given a draft model here. Give one.")
        card = read_card(drafter.name, drafter.source, drafter.revision, self.name, weights=False)
        return Speculation({}, card, shares_vocabulary=True)

    def start(self, ask: RunOptions, verifier: Card, drafter: Speculation | None, speculates: bool) -> Engine:
        side = ask.drafter if speculates else ask.verifier
        assert side is not None
        return LlamaServer(str(side.options[ADDRESS]), speculates=speculates, gamma=ask.gamma)


LLAMA_CPP = LlamaCpp()
