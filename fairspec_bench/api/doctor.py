"""What `fairspec doctor` checks: device, versions, extras, embedded pair, data, Hub, cache; and what to do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec

from fairspec_bench.api.models import load_pair
from fairspec_bench.api.options import cache_folder
from fairspec_bench.api.suites import list_suites
from fairspec_bench.models.hub import EMBEDDED
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import CACHE_DIR

EXTRAS = (
    ("vllm", "--backend vllm", "In an environment of its own: pip install 'fairspec-bench[vllm]' (docs/VLLM.md)."),
    ("ray", "--executor ray", "pip install 'fairspec-bench[ray]' (docs/SCALING.md)."),
    ("peft", "adapters", "pip install 'fairspec-bench[lora]'."),
    ("gguf", "GGUF files", "pip install 'fairspec-bench[gguf]'."),
    ("accelerate", "device_map, lm-eval's hf", "pip install 'fairspec-bench[spread]'."),
)
"""What is not needed, what needs it, and how to get it."""


@dataclass(frozen=True)
class CheckResult:
    """One thing that `doctor` checked. `advice` says what to do where it is not `ok`."""

    name: str
    ok: bool
    needed: bool
    found: str
    advice: str = ""


def doctor() -> tuple[CheckResult, ...]:
    """What is here: device, versions, extras, the embedded pair, data, Hub, cache; and what to do about the rest."""
    from fairspec_bench.scoring.environment import describe

    here = describe("cpu")
    versions = ", ".join(f"{name} {version}" for name, version in here.packages.items())
    return (
        CheckResult("python", True, True, f"{here.python} on {here.platform}"),
        CheckResult("packages", True, True, versions),
        CheckResult("cpu", True, True, f"{here.processor}, {here.cores} cores, {here.threads} threads in use"),
        _cuda(),
        _compiler(),
        *(_extra(*each) for each in EXTRAS),
        _embedded_pair(),
        *(_suite(info.name) for info in list_suites()),
        _hub(),
        _token(),
        _cache(),
    )


def _cuda() -> CheckResult:
    import torch

    if not torch.cuda.is_available():
        return CheckResult(
            "cuda", False, False, "no CUDA device", "Without one, stay with --device cpu and small models."
        )
    free, total = torch.cuda.mem_get_info()
    memory = f"{free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    return CheckResult("cuda", True, False, f"{torch.cuda.get_device_name()}, {memory}")


def _compiler() -> CheckResult:
    from fairspec_bench.engine.backends.compiled import compiler_works

    if reason := compiler_works():
        return CheckResult("compiler", False, False, reason, "Long runs on a CPU are slower: their steps stay eager.")
    return CheckResult("compiler", True, False, "steps can be compiled")


def _extra(package: str, what: str, advice: str) -> CheckResult:
    if find_spec(package) is None:
        return CheckResult(package, False, False, f"not installed; {what} needs it", advice)
    return CheckResult(package, True, False, f"installed, for {what}")


def _embedded_pair() -> CheckResult:
    try:
        verifier, drafter = load_pair(f"{EMBEDDED}verifier", f"{EMBEDDED}drafter")
    except FairspecError as error:
        return CheckResult("embedded pair", False, True, str(error), "Install the package again.")
    sizes = " and ".join(f"{model.parameters / 1e6:.2f} M" for model in (verifier, drafter.model) if model)
    return CheckResult("embedded pair", True, True, f"loads and fits: {sizes} parameters")


def _suite(name: str) -> CheckResult:
    from fairspec_bench.suites import suite

    status = suite.describe(name)
    title = f"suite {name}"
    if status.problem:
        what, _, advice = status.problem.partition(": ")[2].partition(". ")
        return CheckResult(title, False, False, what, advice)
    changed = [language for language, same in status.as_published.items() if same is False]
    if changed:
        return CheckResult(
            title, False, False, f"not the published data in {', '.join(changed)}", "Fetch the data again."
        )
    return CheckResult(title, True, False, f"{sum(status.prompts.values())} prompts in {len(status.prompts)} languages")


def _hub() -> CheckResult:
    from fairspec_bench.models import hub

    if hub.offline():
        return CheckResult(
            "hub", False, False, "HF_HUB_OFFLINE is set", "Only cached models and data are used; unset it."
        )
    if hub.reachable():
        return CheckResult("hub", True, False, "answers")
    return CheckResult("hub", False, False, "cannot be reached", "Give folders instead of names, or connect.")


def _token() -> CheckResult:
    from huggingface_hub import get_token

    if get_token():
        return CheckResult("gated models", True, False, "a Hub token is set")
    advice = "Accept a gated model's licence on its page, then set HF_TOKEN."
    return CheckResult("gated models", False, False, "no Hub token", advice)


def _cache() -> CheckResult:
    import shutil

    folder = cache_folder()
    home = next(place for place in (folder, *folder.parents) if place.exists())
    free = f"{shutil.disk_usage(home).free / 2**30:.0f} GiB free"
    if os.access(home, os.W_OK):
        return CheckResult("reference cache", True, False, f"{folder}, {free}")
    advice = f"Set {CACHE_DIR} to a folder of yours."
    return CheckResult("reference cache", False, True, f"{folder} cannot be written", advice)
