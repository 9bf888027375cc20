"""vLLM started as advised: a server with the drafter, one without, and the languages of each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.metrics.advice import Advice, sentence
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import ModelConfig

NOT_VLLMS = ("served", "shared", "method", "max_ngram")
"""Options of a recorded drafter that vLLM's configuration does not have under this name."""


def vllm_commands(advice: Advice) -> str:
    """`vllm serve` with the drafter for the languages that it pays for, without it for those that it does not.

    Languages that are not known are named with neither. Raises `FairspecError` for a drafter that vLLM does not have.
    """
    lines = []
    for suite in advice.suites:
        lines += [f"# {suite.suite}, {advice.requests} at once: {sentence(each)}" for each in suite.tasks]
    lines += _server("8001", advice, "pays", _speculation(advice))
    lines += _server("8000", advice, "does not pay", None)
    if unknown := _languages(advice, "not known"):
        lines.append(f"# Not known, so neither is advised: {unknown}. Time more prompts or rounds.")
    return "\n".join(lines) + "\n"


def _languages(advice: Advice, verdict: str) -> str:
    return ", ".join(f"{each.task}" for suite in advice.suites for each in suite.tasks if each.verdict == verdict)


def _server(port: str, advice: Advice, verdict: str, speculation: str | None) -> list[str]:
    if not (served := _languages(advice, verdict)):
        return []
    command = ["vllm", "serve", advice.config.verifier.name, "--port", port]
    with_drafter = ["--speculative-config", speculation] if speculation else []
    return [f"# {'With' if speculation else 'Without'} the drafter: {served}", shlex.join([*command, *with_drafter])]


def _speculation(advice: Advice) -> str:
    """vLLM's `--speculative-config` of the run's drafter with the γ to take, JSON."""
    drafter, gammas = advice.config.drafter, {suite.gamma for suite in advice.suites}
    if drafter is None or (method := _method(drafter)) is None:
        raise FairspecError(
            f"--format vllm: vLLM has no such drafter as {drafter and drafter.name}. Take another --format."
        )
    if len(gammas) > 1:
        raise FairspecError("--format vllm: the suites advise different γ, a server has one. Run one suite by itself.")
    weights = {"model": drafter.name} if drafter.revision is not None else {}
    lookup = {"prompt_lookup_max": drafter.options.get("max_ngram", 3)} if drafter.kind == "lookup" else {}
    kept: Mapping[str, object] = {key: value for key, value in drafter.options.items() if key not in NOT_VLLMS}
    return json.dumps({"method": method, **weights, **lookup, **kept, "num_speculative_tokens": gammas.pop()})


def _method(drafter: ModelConfig) -> str | None:
    if given := drafter.options.get("method"):
        return str(given)
    kind = drafter_kind(drafter.kind)
    return drafter.name if kind.needs_files and drafter.revision is None else kind.vllm_method
