"""vLLM as a serving engine: without a server, or as one by its address."""

from __future__ import annotations

from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.options import ModelSpec, RunOptions
from fairspec_bench.scoring.executors.serving.engine import ADDRESS, Engine, Speculation
from fairspec_bench.scoring.executors.serving.model_files import Card, read_card
from fairspec_bench.scoring.executors.serving.vllm_offline import DRAFTING, SETTINGS, Offline, check_offline
from fairspec_bench.scoring.executors.serving.vllm_server import Server

MTP = "mtp"
"""Heads that come with the verifier's own weights: given by name in place of a drafter."""
WEIGHTLESS = ("ngram", MTP)
METHODS = ("draft_model", "eagle", "eagle3", "medusa", "mlp_speculator", *WEIGHTLESS)
"""vLLM's ways to draft, by its own names."""


class Vllm:
    """See `ServingEngine`."""

    name, title = "vllm", "vLLM"

    def check(self, ask: RunOptions) -> None:
        """Raises `FairspecError` for a drafter or an option that vLLM does not have, or where it is not installed."""
        if ask.drafter and drafter_kind(ask.drafter.kind).vllm_method is None:
            raise FairspecError(
                f"{ask.drafter.name}: vLLM has no such drafter. Give a model, lookup, or another --backend."
            )
        for side, known in ((ask.verifier, SETTINGS), (ask.drafter, ("method", *DRAFTING))):
            unknown = sorted({*(side.options if side else ())} - {*known, ADDRESS, "max_ngram"})
            if unknown:
                raise FairspecError(
                    f"{unknown[0]}: not an option of vLLM's here. Known: {ADDRESS}, {', '.join(known)}."
                )
        if ADDRESS not in ask.verifier.options:
            check_offline(ask.device)

    def speculation(self, drafter: ModelSpec, gamma: int) -> Speculation:
        """Raises `FairspecError` for a method that vLLM does not have."""
        options = {key: value for key, value in drafter.options.items() if key not in (ADDRESS, "method", "max_ngram")}
        default = MTP if drafter.name == MTP else drafter_kind(drafter.kind).vllm_method
        method = str(drafter.options.get("method", default))
        if method not in METHODS:
            raise FairspecError(f"method={method}: unknown. Known: {', '.join(METHODS)}.")
        given = {"method": method, "num_speculative_tokens": gamma, **options}
        if method == MTP:
            return Speculation(given, None)
        if method in WEIGHTLESS:
            longest = {"prompt_lookup_max": drafter.options.get("max_ngram", 3), "prompt_lookup_min": 1}
            return Speculation({**longest, **given}, None)
        weights = ADDRESS not in drafter.options
        card = read_card(drafter.name, drafter.source, drafter.revision, self.name, weights=weights)
        return Speculation({**given, "model": str(card.folder)}, card, shares_vocabulary=method == "draft_model")

    def start(self, ask: RunOptions, verifier: Card, drafter: Speculation | None, speculates: bool) -> Engine:
        side = ask.drafter if speculates else ask.verifier
        assert side is not None
        if (address := side.options.get(ADDRESS)) is not None:
            return Server(str(address), speculates=speculates)
        return Offline(
            str(verifier.folder),
            revision=None,
            dtype=ask.dtype,
            seed=ask.seed,
            settings=ask.verifier.options,
            speculation=drafter.options if drafter and speculates else None,
        )


VLLM = Vllm()
