"""Our engine as a model of lm-eval, `--model speculative`; lm-eval's own command line, with acceptance beside scores.

Prompts, their ids, truncation, chat templates, stop strings and the text of an answer are the `hf`
model's own code, so what differs from `--model hf` is how tokens are made, and not which. Names and definitions of the
figures are those of docs/METRICS.md.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import lm_eval
import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import hash_args
from lm_eval.api.registry import register_model
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.models.utils_hf import stop_sequences_criteria
from lm_eval.utils import simple_parse_args_string
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import GenerationConfig

from fairspec_bench.api import models as api_models
from fairspec_bench.engine.backends.registry import BACKENDS
from fairspec_bench.engine.batch import Request, as_request
from fairspec_bench.engine.drafters.oracle import OracleDrafter
from fairspec_bench.engine.speculative import Decoded, Decoder
from fairspec_bench.models.codec import load_tokenizer
from fairspec_bench.models.hub import local_folder
from fairspec_bench.schemas import generation_settings
from fairspec_bench.schemas.base import FairspecError, unknown
from fairspec_bench.schemas.config import MAX_GAMMA, SamplingParams
from fairspec_bench.schemas.io import ids_sha256
from fairspec_bench.schemas.lines import Block
from fairspec_bench.schemas.options import RunOptions, parameters, sampling_params
from fairspec_bench.schemas.prompts import Encoded, StopCheck
from fairspec_bench.scoring.backend import choose, most_steps

NAME = "speculative"
PASSED_ON = (
    "tokenizer",
    "truncation",
    "max_length",
    "add_bos_token",
    "prefix_token_id",
    "logits_cache",
    "softmax_dtype",
    "think_end_token",
    "enable_thinking",
    "chat_template_args",
)
"""Options of the `hf` model that mean here what they mean there."""
OTHER_TOP_K = 50
"""The top-k of Transformers' sampling where neither the task nor `generation_config.json` sets one."""

logger = logging.getLogger("lm_eval.speculative")


# --------------------------------------------------------------------------- acceptance


@dataclass(frozen=True)
class Acceptance:
    """What was accepted while texts were made. Sums, so that those of several texts add up.

    `tokens` output tokens, the first of each text included, which is no block's; `calls` of the verifier, prefills
    included; `drafts` proposed; `tested` and `accepted` drafts by position in the block, inside the texts.
    """

    tokens: int
    calls: int
    blocks: int
    drafts: int
    tested: tuple[int, ...]
    accepted: tuple[int, ...]

    @classmethod
    def of(cls, blocks: Sequence[Block], gamma: int) -> Acceptance:
        """That of one text."""
        places = range(1, gamma + 1)
        return cls(
            tokens=1 + sum(block.emitted for block in blocks),
            calls=1 + len(blocks),
            blocks=len(blocks),
            drafts=gamma * len(blocks),
            tested=tuple(sum(place <= block.emitted for block in blocks) for place in places),
            accepted=tuple(sum(place <= block.accepted for block in blocks) for place in places),
        )

    @classmethod
    def total(cls, parts: Sequence[Acceptance]) -> Acceptance:
        """Their sum; there must be one at least."""
        tokens, calls, blocks, drafts, tested, accepted = zip(*map(astuple, parts), strict=True)
        by_place = (tuple(map(sum, zip(*counts, strict=True))) for counts in (tested, accepted))
        return cls(sum(tokens), sum(calls), sum(blocks), sum(drafts), *by_place)

    def figures(self) -> dict[str, Any]:
        """Counts and ratios as written to samples and results; a ratio of nothing is `None`."""
        return {
            "tokens": self.tokens,
            "verifier_calls": self.calls,
            "blocks": self.blocks,
            "drafts": self.drafts,
            "tested_by_position": list(self.tested),
            "accepted_by_position": list(self.accepted),
            "acceptance_observed": _ratio(sum(self.accepted), sum(self.tested)),
            "draft_utilisation": _ratio(sum(self.accepted), self.drafts),
            "block_efficiency": _ratio(self.tokens - (self.calls - self.blocks), self.blocks),
            "tokens_per_verifier_call": _ratio(self.tokens, self.calls),
        }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


# --------------------------------------------------------------------------- the model


@register_model(NAME)
class Speculative(HFLM):
    """A verifier and a drafter as one lm-eval model; log-likelihoods, which no drafter speeds up, are the verifier's.

    `verifier` (or lm-eval's own word, `pretrained`) and `drafter` are named as for `fairspec run`. `dtype` auto:
    bfloat16 on a GPU, float32 on a CPU. `device`: as with `hf`, cpu where the GPU asked for is absent. Options called
    `drafter_…` are the drafter's (`drafter_revision`, `drafter_max_ngram`), those of `PASSED_ON` are `hf`'s, others
    the verifier's (`revision`, `attention`, `device_map`). Raises `FairspecError` for what is missing, unknown or does
    not fit.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        drafter: str | None = None,
        *,
        verifier: str | None = None,
        gamma: int = 4,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        backend: str = "auto",
        **options: Any,
    ) -> None:
        name = verifier or pretrained
        if name is None or drafter is None or (verifier and pretrained):
            raise FairspecError("model_args: need one verifier and one drafter. Give verifier=…,drafter=…,gamma=4.")
        self._gamma = _whole("gamma", gamma, MAX_GAMMA)
        rows = _whole("batch_size", batch_size)
        if backend not in ("auto", *BACKENDS):
            raise unknown("backend", backend, ("auto", *BACKENDS))
        passed = {option: options.pop(option) for option in PASSED_ON if option in options}
        theirs = [option for option in options if option.startswith("drafter_")]
        own = {option.removeprefix("drafter_"): options.pop(option) for option in theirs}
        revision = str(options.get("revision", "main"))
        tokenizer = passed.pop("tokenizer", None) or str(local_folder(name) or name)
        load_tokenizer(tokenizer, revision)  # its refusals come in one line
        self._verifier, self._drafter = api_models.load_pair(
            name, drafter, dtype=dtype, device=_device(device), model_args=options, drafter_args=own
        )
        self._asked_backend: Any = None if backend == "auto" else backend
        self._key = json.dumps(
            [self._verifier.identity, self._drafter.name, self._drafter.identity, own, self._gamma, dtype]
        )
        self.acceptance: dict[str, list[Acceptance]] = {}
        """Of every request of this session in order, by `request_key`."""
        self._streams: Counter[tuple[int, ...]] = Counter()
        level = logging.getLogger("lm_eval").level
        logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns that a loaded model was given
        try:
            super().__init__(self._verifier.hf, tokenizer=tokenizer, revision=revision, batch_size=rows, **passed)
        finally:
            logging.getLogger("lm_eval").setLevel(level)
        config = self._verifier.hf.generation_config
        self._unfollowed = generation_settings.not_followed(config)
        if word := generation_settings.warning(name, self._unfollowed):
            logger.warning("%s", word)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers, in order. Requests of the same sampling parameters are one queue, so that no row stays empty."""
        asked = [self._asking(instance, index) for index, instance in enumerate(requests)]
        queues: dict[SamplingParams, list[_Asked]] = {}
        for each in asked:
            queues.setdefault(each.sampling, []).append(each)
        texts, found = {}, {}
        with tqdm(total=len(asked), disable=disable_tqdm, desc="Running generate_until requests") as bar:
            for sampling, queue in queues.items():
                by_key = {each.key: each for each in queue}
                for decoded in self._decode(sorted(queue, key=lambda each: -len(each.encoded.ids)), sampling):
                    each = by_key[decoded.key]
                    texts[each.key] = self._text(decoded.ids, each.stops)
                    found[each.key] = Acceptance.of(decoded.blocks, self._gamma)
                    self.cache_hook.add_partial("generate_until", each.instance.args, texts[each.key])
                    if sampling.greedy:  # what is drawn anew each time is not cached, here as there
                        self.cache_hook.add_partial(self._key, each.instance.args, astuple(found[each.key]))
                    bar.update()
        for each in asked:
            self.acceptance.setdefault(request_key(each.task, each.instance.args), []).append(found[each.key])
        return [texts[each.key] for each in asked]

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes down of a model beside its arguments."""
        verifier, drafter = self._verifier, self._drafter
        return {
            "model_num_parameters": verifier.parameters,
            "model_dtype": str(verifier.dtype),
            "model_revision": verifier.revision or "",
            "model_sha": verifier.identity,
            "model_device": str(verifier.device),
            "drafter": drafter.name,
            "drafter_kind": drafter.kind,
            "drafter_sha": drafter.identity or "",
            "gamma": self._gamma,
            "generation_config_not_followed": self._unfollowed,
        }

    def remembered(self, args: tuple[Any, ...]) -> Acceptance | None:
        """What `--use_cache` holds of a request's acceptance with this very pair and γ; `None` if nothing."""
        cache = self.cache_hook.dbdict
        found = None if cache is None else cache.get(hash_args(self._key, args))
        return None if found is None else Acceptance(*found)

    def _asking(self, instance: Instance, index: int) -> _Asked:
        """A request as `hf` would read it."""
        context, given = instance.args
        key = f"{instance.task_name}/{instance.doc_id}#{index}"
        options = dict(normalize_gen_kwargs(given, self.max_gen_toks))
        stops = handle_stop_sequences(
            options.pop("until"), eos=self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        )
        max_new_tokens = int(options.pop("max_gen_toks"))
        if not 1 <= max_new_tokens < self.max_length:
            raise FairspecError(
                f"{key}: max_gen_toks={max_new_tokens}: must be from 1 to less than the {self.max_length} positions of "
                f"{self._verifier.name}. Give --gen_kwargs max_gen_toks=N."
            )
        ids, _ = self.tok_batch_encode(
            [context], left_truncate_len=self.max_length - max_new_tokens, truncation=bool(self.truncation)
        )
        tokens = tuple(ids[0].tolist())
        if not tokens:
            raise FairspecError(f"{key}: the prompt has no token. Give --num_fewshot, or another task.")
        sampling = _rule(options, self._verifier.hf.generation_config, key)
        stream = self._streams[tokens]
        self._streams[tokens] += 1
        encoded = Encoded(
            key=key,
            group=_group(str(instance.task_name)),
            ids=tokens,
            sha=ids_sha256(tokens),
            max_new_tokens=max_new_tokens,
        )
        return _Asked(instance, encoded, tuple(stops), sampling, stream)

    def _decode(self, queue: Sequence[_Asked], sampling: SamplingParams) -> Iterable[Decoded]:
        steps = most_steps((each.encoded.max_new_tokens for each in queue), self.batch_size, (), 0)
        verifier, word = choose(self._asked_backend, self._verifier, self._drafter, sampling, self._gamma, steps)
        if word:
            logger.info("backend %s: %s", verifier.backend, word)
        drafter = self._drafter
        given: dict[str, Any] = {
            "sampling": sampling,
            "gamma": self._gamma,
            "batch_size": self.batch_size,
            # Set by lm-eval's --seed.
            "seed": torch.initial_seed(),
        }

        def requests() -> list[Request]:
            return [each.request(self._stop_check(each.stops)) for each in queue]

        if isinstance(drafter, OracleDrafter):
            if not sampling.greedy:
                raise FairspecError(
                    f"{drafter.name}: works with greedy decoding only. Leave out sampling, or name a drafter."
                )
            alone = Decoder(verifier, None, **given).decode(requests())
            drafter = replace(drafter, reference={decoded.key: decoded.ids for decoded in alone})
        yield from Decoder(verifier, drafter, **given).decode(requests())

    def _stop_check(self, stops: Sequence[str]) -> StopCheck:
        """`hf`'s own criteria, asked after every token of a block as it asks them after every token."""
        criteria = stop_sequences_criteria(self.tokenizer, list(stops), 0, 1)
        clean = 0

        def check(ids: Sequence[int]) -> int | None:
            nonlocal clean
            tokens = torch.tensor([list(ids)])
            for count in range(clean + 1, len(ids) + 1):
                if any(criterion(tokens[:, :count], None) for criterion in criteria):
                    return count
            clean = len(ids)
            return None

        return check

    def _text(self, ids: Sequence[int], stops: Sequence[str]) -> str:
        """The answer, read off the output ids as `hf` does."""
        end, kept = self.think_end_token, list(ids)
        if isinstance(end, int) and end in kept:
            kept = kept[len(kept) - kept[::-1].index(end) :]
        text = self.tok_decode(kept)
        return postprocess_generated_text(
            text.lstrip() if isinstance(end, int) else text,
            stop=list(stops),
            think_end_token=end if isinstance(end, str) else None,
        )


@dataclass(frozen=True)
class _Asked:
    """A request as read: `stream` counts earlier ones of the same prompt."""

    instance: Instance
    encoded: Encoded
    stops: tuple[str, ...]
    sampling: SamplingParams
    stream: int

    @property
    def key(self) -> str:
        return self.encoded.key

    @property
    def task(self) -> str:
        return str(self.instance.task_name)

    def request(self, stop: StopCheck) -> Request:
        asked = as_request(self.encoded, stop)
        return replace(asked, stream=asked.stream + self.stream)


def request_key(task: str, args: tuple[Any, ...]) -> str:
    """What tells the requests of a session apart: task, prompt and generation options."""
    return hash_args(task, args)


def _rule(options: Mapping[str, Any], config: GenerationConfig, key: str) -> SamplingParams:
    """The sampling parameters of normalised generation options; what they leave open is as `hf` has it."""
    given = dict(options)
    sampled, temperature = given.pop("do_sample"), float(given.pop("temperature", 0.0))
    top_k, top_p = given.pop("top_k", config.top_k), given.pop("top_p", config.top_p)
    for option, value in given.items():
        neutral = generation_settings.NEUTRAL
        if option not in neutral or neutral[option] != value:
            raise FairspecError(
                f"{key}: {option}={value}: speculative decoding has no such option. Known: until, max_gen_toks, "
                "do_sample, temperature, top_k, top_p. Override it by --gen_kwargs, or use --model hf."
            )
    if not sampled:
        return sampling_params()
    if temperature == 0:
        raise FairspecError(f"{key}: do_sample=True needs a temperature above 0. Give --gen_kwargs temperature=1.")
    return sampling_params(temperature, OTHER_TOP_K if top_k is None else top_k, 1.0 if top_p is None else top_p)


def _group(task: str) -> str:
    """The prompts a task belongs to, as drafters know them: `mgsm/te` of `fairspec_mgsm_te`."""
    return "/".join(filter(None, task.removeprefix("fairspec_").rpartition("_")[::2]))


def _whole(option: str, value: Any, most: int | None = None) -> int:
    if not re.fullmatch(r"\d+", str(value)) or int(value) < 1 or (most and int(value) > most):
        raise FairspecError(f"{option}={value}: must be a whole number from 1{f' to {most}' if most else ''}.")
    return int(value)


def _device(asked: str | None) -> str:
    """lm-eval's default is a GPU; without one its `hf` model takes the CPU, and so does this."""
    if asked is not None:
        parameters(RunOptions, ("device",))[0].check(asked)
    return (asked or "cuda") if torch.cuda.is_available() else "cpu"


# --------------------------------------------------------------------------- evaluation


def evaluate(model: Any, model_args: str | Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any] | None:
    """lm-eval's `simple_evaluate`; with the model `speculative` its results also say what was accepted.

    Each sample gets `speculative`: a list, the figures of each of its answers (`None`: from a cache that does not hold
    them). Results get `speculative`: by task the figures of all its answers, how many these are, and how many more had
    none. Raises `FairspecError` for a pair or an option that does not fit, and for code that comes with a model.
    """
    given = simple_parse_args_string(model_args) if isinstance(model_args, str) else dict(model_args or {})
    if given.get("trust_remote_code"):
        raise FairspecError("trust_remote_code: code that comes with a model is never run. Leave it out.")
    if model != NAME:
        return simple_evaluate(model, model_args, **options)
    own = {option: options.get(option) for option in ("batch_size", "max_batch_size", "device")}
    lm = Speculative.create_from_arg_obj(given, own)
    # By `pretrained` lm-eval names the folder of its results.
    named = {"pretrained": given.get("verifier"), **given}
    named.pop("verifier", None)
    results = simple_evaluate(lm, named, **{**options, "log_samples": True})
    results["config"]["model"] = NAME
    if tracker := options.get("evaluation_tracker"):
        tracker.general_config_tracker.model_source = NAME
    results[NAME] = {
        task: summed for task, samples in results["samples"].items() if (summed := _tell(lm, task, samples)) is not None
    }
    if not options.get("log_samples", True):
        del results["samples"]
    return results


def _tell(lm: Speculative, task: str, samples: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Write into the samples of a task what was accepted; → the same of the task, `None` for one without answers."""
    acceptances: list[Acceptance | None] = []
    given: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        mine: list[Acceptance | None] = []
        for args, answers in zip(sample["arguments"], sample["resps"], strict=True):
            if len(args) != 2 or not isinstance(args[1], dict):
                continue  # a log-likelihood
            key = request_key(task, args)
            # The same prompt may be asked again: samples come in the order of the requests, once for each filter.
            place = sample["filter"], key
            first, given[place] = given[place], given[place] + len(answers)
            known = lm.acceptance.get(key, [])[first : given[place]]
            mine += [*known, *[lm.remembered(args)] * (len(answers) - len(known))]
        if mine:
            sample[NAME] = [None if each is None else each.figures() for each in mine]
            acceptances += mine if sample["filter"] == samples[0]["filter"] else []
    if not acceptances:
        return None
    parts = [each for each in acceptances if each is not None]
    counts = {"answers": len(parts), "answers_without": len(acceptances) - len(parts)}
    return {**counts, **(Acceptance.total(parts).figures() if parts else {})}


def run(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """lm-eval's own command line with these arguments; → by task what `evaluate` says, nothing for other models.

    Raises `FairspecError`; lm-eval itself leaves by `SystemExit` for arguments it does not know.
    """
    acceptances: dict[str, dict[str, Any]] = {}

    def evaluated(**options: Any) -> dict[str, Any] | None:
        results = evaluate(**options)
        acceptances.update((results or {}).get(NAME, {}))
        return results

    before = sys.argv
    sys.argv = ["lm-eval", *arguments]
    lm_eval.simple_evaluate = evaluated  # where its command line looks it up: it offers no other way in
    try:
        cli_evaluate()
    except FairspecError:
        raise
    except (ValueError, OSError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise FairspecError(f"lm-eval: {line}. See fairspec lm-eval run --help; --debug shows where.") from error
    finally:
        sys.argv = before
        del lm_eval.simple_evaluate
    return acceptances
