"""vLLM as a serving engine: without a server, or as one by its address."""

from __future__ import annotations

import re
from pathlib import Path

from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.options import ModelSpec, RunOptions
from fairspec_bench.scoring.executors.serving.engine import ADDRESS, SHARED, Engine, Speculation
from fairspec_bench.scoring.executors.serving.model_files import Card, read_card
from fairspec_bench.scoring.executors.serving.vllm_offline import DRAFTING, SETTINGS, Offline, check_offline
from fairspec_bench.scoring.executors.serving.vllm_server import Server

LOOKUP = ("ngram", "ngram_gpu")
"""vLLM's names of prompt lookup: what `lookup:3` may be run as."""


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
            given = side.options if side else {}
            passed = {name for name, value in given.items() if side is ask.drafter and _is_number(value)}
            unknown = sorted({*given} - {*known, ADDRESS, SHARED, "max_ngram"} - passed)
            if unknown:
                raise FairspecError(
                    f"{unknown[0]}: not an option of vLLM's here. Known: {ADDRESS}, {SHARED}, {', '.join(known)}."
                )
        if ADDRESS not in ask.verifier.options:
            check_offline(ask.device)

    def speculation(self, drafter: ModelSpec, gamma: int) -> Speculation:
        """The method as given, else as the checkpoint names it; a drafter that is no model is a method by its name.

        Which methods there are is vLLM's to say: it refuses those that it does not have.
        """
        options = {
            key: value for key, value in drafter.options.items() if key not in (ADDRESS, SHARED, "method", "max_ngram")
        }
        default = drafter_kind(drafter.kind).vllm_method
        by_name = drafter_kind(drafter.kind).needs_files and is_method(drafter.source)
        method = str(drafter.options.get("method") or (drafter.source if by_name else default))
        if by_name or method in LOOKUP:
            longest = {"prompt_lookup_max": drafter.options.get("max_ngram", 3), "prompt_lookup_min": 1}
            given = {**(longest if method in LOOKUP else {}), **options}
            return Speculation({"method": method, **given, "num_speculative_tokens": gamma}, None)
        weights = ADDRESS not in drafter.options
        card = read_card(drafter.name, drafter.source, drafter.revision, self.name, weights=weights, head=True)
        read = None if "method" in drafter.options else card.method
        method = read or method
        told = {"method": method, **options, "num_speculative_tokens": gamma, "model": str(card.folder)}
        noted = {"method": method} if read else {}
        return Speculation(told, card, shares_vocabulary=method == "draft_model", noted=noted)

    def start(self, ask: RunOptions, verifier: Card, drafter: Speculation | None, speculates: bool) -> Engine:
        side = ask.drafter if speculates else ask.verifier
        assert side is not None
        if (address := side.options.get(ADDRESS)) is not None:
            return Server(str(address), speculates=speculates, shared=bool(side.options.get(SHARED)))
        return Offline(
            str(verifier.folder),
            revision=None,
            dtype=ask.dtype,
            seed=ask.seed,
            settings=ask.verifier.options,
            speculation=drafter.options if drafter and speculates else None,
        )


def is_method(source: str) -> bool:
    """Whether a drafter is a method by its name, `mtp` or `suffix`, and no folder or Hub id (`owner/name`)."""
    return re.fullmatch(r"\w+", source) is not None and not Path(source).exists()


def _is_number(value: object) -> bool:
    """Whether a value of an option can name no weights and switch nothing on."""
    return isinstance(value, int | float) and not isinstance(value, bool)


VLLM = Vllm()
