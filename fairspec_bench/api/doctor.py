"""What `fairspec doctor` checks: device, versions, extras, embedded pair, data, Hub, cache; or a pair; what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fairspec_bench.api.models import load_pair
from fairspec_bench.api.options import cache_folder, run_options
from fairspec_bench.api.suites import list_suites
from fairspec_bench.models.hub import EMBEDDED
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import CACHE_DIR
from fairspec_bench.schemas.options import ModelSpec

if TYPE_CHECKING:
    from fairspec_bench.schemas.prompts import Prompt
    from fairspec_bench.scoring.executors.serving.model_files import Card

EXTRAS = (
    ("vllm", "--backend vllm", "In an environment of its own: pip install 'fairspec-bench[vllm]' (docs/VLLM.md)."),
    ("ray", "--executor ray", "pip install 'fairspec-bench[ray]' (docs/SCALING.md)."),
    ("peft", "adapters", "pip install 'fairspec-bench[lora]'."),
    ("gguf", "GGUF files", "pip install 'fairspec-bench[gguf]'."),
    ("accelerate", "device_map, lm-eval's hf", "pip install 'fairspec-bench[spread]'."),
)
"""What is not needed, what needs it, and how to get it."""
SUITE = "suite "


@dataclass(frozen=True)
class CheckResult:
    """One check. `advice` says what to do where it is not `ok`; nothing runs without what is `needed`."""

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


def runnable(findings: Iterable[CheckResult]) -> str:
    """One line: what can be run now, and what each other suite waits for."""
    found = list(findings)
    if broken := [each.name for each in found if each.needed and not each.ok]:
        return f"You can run nothing yet: {', '.join(broken)} above."
    suites = {each.name.removeprefix(SUITE): each for each in found if each.name.startswith(SUITE)}
    ready = [name for name, each in suites.items() if each.ok]
    waiting = [name for name, each in suites.items() if not each.ok]
    first = f"You can run: fairspec run VERIFIER DRAFTER --suite {ready[0]}" if ready else "You can run no suite"
    others = f" (or {', '.join(ready[1:])})" if ready[1:] else ""
    lacking = f" Without data: {', '.join(waiting)}; see above." if waiting else ""
    return f"{first}{others}.{lacking}"


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
    title = f"{SUITE}{name}"
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


# --------------------------------------------------------------------------- a pair


def examine_pair(verifier: str, drafter: str | None = None) -> tuple[CheckResult, ...]:
    """What would stop a run of a verifier and its drafter, by configurations and tokenizers; no weights are loaded.

    A check that is `needed` and not `ok` is what a run would refuse. Raises `FairspecError` for a name that is none.
    """
    options = run_options(verifier, drafter, ())
    sides = [("verifier", options.verifier), *([("drafter", options.drafter)] if options.drafter else [])]
    found: list[CheckResult] = []
    cards: list[Card] = []
    for side, spec in sides:
        if spec.kind != "model":
            found.append(CheckResult(side, True, True, f"{spec.name}: a drafter of kind {spec.kind}, without a model"))
            continue
        try:
            card = _card(spec)
            found.extend(_model(side, card))
            cards.append(card)
        except FairspecError as error:
            found.append(CheckResult(side, False, True, str(error)))
    if cards and cards[0].name == options.verifier.name:
        found.extend(_texts(cards[0]))
    if len(cards) == 2:
        found.extend(_fit(*cards))
    return tuple(found)


def _card(spec: ModelSpec) -> Card:
    """A model by its files; an adapter by its base's. On the Hub only small files are fetched."""
    from fairspec_bench.models import hub
    from fairspec_bench.scoring.executors.serving.model_files import read_card

    here = hub.find_local(spec.source) is not None or hub.offline()
    place = (hub.locate if here else hub.locate_tokenizer)(spec.source, spec.revision)
    base = hub.read_base(place.folder)
    source, revision = (base.name, base.revision) if base and base.name else (spec.source, spec.revision)
    return read_card(spec.name, source, revision, "eager", weights=here)


def _model(side: str, card: Card) -> Iterator[CheckResult]:
    """What one model is. Raises `FairspecError` for one that cannot be decoded."""
    from transformers import AutoConfig

    from fairspec_bench.models.model import check_config
    from fairspec_bench.schemas.generation_settings import not_followed, warning

    whole = AutoConfig.from_pretrained(card.folder, local_files_only=True, trust_remote_code=False)
    check_config(whole, card.name)
    config = whole.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    kind = f"sliding windows of {window} tokens, exact at any gamma" if _slides(config) else "full attention"
    limit = "any length" if card.max_positions is None else f"{card.max_positions:,} positions"
    yield CheckResult(side, True, True, f"{card.name}: {config.model_type}, {kind}, {limit}, {card.vocab_size:,} ids")
    if card.parameters is None:
        yield CheckResult(f"{side} memory", False, False, "no weights here, so their size is unknown", "Fetch them.")
    else:
        sizes = " and ".join(f"{card.parameters * width / 1e9:.2g} GB in {dtype}" for dtype, width in _WIDTHS.items())
        count = f"{card.parameters / 1e6:,.2f} M parameters"
        yield CheckResult(f"{side} memory", True, False, f"{count}: weights of {sizes}, and the cache beside them")
    ignored = warning(card.name, not_followed(card.generation_config, greedy=True))
    if side == "verifier" and ignored:
        yield CheckResult("generation_config.json", False, False, ignored)


_WIDTHS = {"float32": 4, "bfloat16": 2}


def _slides(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    return "sliding_attention" in kinds if kinds else bool(getattr(config, "sliding_window", None))


def _texts(card: Card) -> Iterator[CheckResult]:
    """How the verifier's texts begin and end: chat template, end-of-text ids, stop strings of the suites here."""
    from fairspec_bench.models.codec import Codec
    from fairspec_bench.scoring.prepare import lost_stops, unused_end
    from fairspec_bench.suites.suite import load_suite

    try:
        codec = Codec(str(card.home))
    except FairspecError as error:
        yield CheckResult("tokenizer", False, True, str(error))
        return
    has = "has one: --apply_chat_template uses it" if codec.tokenizer.chat_template else "none: prompts are plain text"
    yield CheckResult("chat template", True, False, has)
    ends = unused_end(card.eos_ids, codec, card.name)
    yield from (CheckResult("end of text", False, False, line) for line in ends)
    if not ends:
        yield CheckResult("end of text", True, False, f"id {', '.join(map(str, sorted(card.eos_ids)))}")
    prompts: list[Prompt] = []
    for info in list_suites():
        try:
            prompts.extend(load_suite(info.name, limit=1).prompts)
        except FairspecError:  # its data is not here
            continue
    lost = lost_stops(prompts, codec, card.name)
    yield from (CheckResult("stop strings", False, False, line) for line in lost)
    if not lost:
        suites = ", ".join(dict.fromkeys(prompt.suite for prompt in prompts))
        yield CheckResult("stop strings", True, False, f"the tokenizer writes those of {suites}")


def _fit(verifier: Card, drafter: Card) -> Iterator[CheckResult]:
    """Whether the drafter drafts for the verifier."""
    from fairspec_bench.models.model import check_vocabulary, renaming_warning

    try:
        renamed = check_vocabulary(verifier, drafter)
    except FairspecError as error:
        yield CheckResult("vocabulary", False, True, str(error))
        return
    warnings = renaming_warning(verifier, drafter, renamed)
    yield from (CheckResult("vocabulary", False, False, line) for line in warnings)
    if not warnings:
        yield CheckResult("vocabulary", True, True, "the same token by the same id")
    shorter = drafter.max_positions is not None and drafter.max_positions < (verifier.max_positions or 2**31)
    if shorter:
        advice = f"Prompts that need more than {drafter.max_positions:,} with their output are left out."
        yield CheckResult(
            "positions", False, False, f"the drafter has {drafter.max_positions:,}, the verifier more", advice
        )
