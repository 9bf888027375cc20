"""`fairspec mitigate`: from a pair and prompts to a fine-tuned drafter in a folder, with its model card.

    1. the verifier continues the prompts greedily: the corpus, by task           `make_corpus`
    2. the plan (models, corpus, method, recipe) is written; another is refused   `resumable`
    3. the method trains the drafter or fits something beside it                  `apply_method`
    4. weights, model card and held-out figures are written, the figures last     `finetune`

Killed anywhere, the same call resumes to the same weights: continuations come from the reference cache, training from
its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from fairspec_bench.engine.batch import with_prefixes
from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.engine.drafters.registry import load_drafter
from fairspec_bench.mitigation import methods
from fairspec_bench.mitigation.corpus import Corpus, Example, count_examples
from fairspec_bench.mitigation.methods import Fitted, Trained
from fairspec_bench.mitigation.model_card import CARD, PLAN, RESULT, STATE, FineTunePlan, FineTuneResult, model_card
from fairspec_bench.mitigation.passes import Teacher, TrainingSetup, check_head
from fairspec_bench.mitigation.trainer import Evaluation, TrainingProgress, TrainingRecipe, figures_of, train
from fairspec_bench.models import hub
from fairspec_bench.models.checkpoint import save_model
from fairspec_bench.models.codec import Codec
from fairspec_bench.models.model import DTYPES, Model, check_vocabulary, load_model
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.io import read_record, write_atomic, write_record
from fairspec_bench.schemas.options import ModelSpec
from fairspec_bench.schemas.prompts import Encoded, Prompt
from fairspec_bench.schemas.resumable import resumable
from fairspec_bench.scoring.environment import describe
from fairspec_bench.scoring.reference import continuations
from fairspec_bench.suites.training_prompts import refuse_suite_prompts, training_prompts

HELD_OUT_SHARE = 0.2
CHECKPOINTED = 100_000_000
"""Parameters beyond which a drafter's activations are recomputed in the backward pass instead of kept."""
GREEDY = SamplingParams()
RECIPE = TrainingRecipe()


@dataclass(frozen=True)
class FineTuneOptions:
    """Everything that can be chosen. `languages` keeps the tasks of these names; `limit` is prompts a task.

    `shares` says how common each task is in use; by default as common as its prompts.
    """

    verifier: ModelSpec
    drafter: ModelSpec
    method: str
    prompts: tuple[str, ...]
    recipe: TrainingRecipe = RECIPE
    languages: tuple[str, ...] | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    batch_size: int = 48
    dtype: str = "float32"
    device: str = "cpu"
    lora_rank: int | None = None
    chat_template: bool = False
    chat_template_args: Mapping[str, Any] | None = None
    shares: Mapping[str, float] | None = None


@dataclass(frozen=True)
class FineTuneProgress:
    """How far a fine-tuning is: `done` of `total` of a stage, and the training's latest evaluation."""

    stage: str
    done: int
    total: int
    training: TrainingProgress | None = None

    @property
    def label(self) -> str:
        """The stage, and the latest held-out cost where there is one."""
        latest = self.training.evaluation if self.training else None
        return f"{self.stage}, held-out cost {latest.cost:.4f} before step {latest.step}" if latest else self.stage


FineTuneCallback = Callable[[FineTuneProgress], None]


def _ignore(progress: FineTuneProgress) -> None:
    pass


def finetune(
    options: FineTuneOptions, out: Path, *, cache: Path | None = None, on_progress: FineTuneCallback = _ignore
) -> FineTuneResult:
    """Fine-tune the drafter into the folder `out`, which Transformers can load.

    Args:
        options: the pair, the method, the prompts and how to train.
        out: a new folder, or one that this same call began. A finished one is returned as it is.
        cache: of the verifier's continuations, shared with runs.
        on_progress: called after each continuation and each step.

    Raises:
        FairspecError: in one line; also where `out` holds another fine-tuning.
    """
    methods.find(options.method)
    verifier, student = load_pair(options)
    prompts = training_prompts(
        options.prompts, languages=options.languages, limit=options.limit, max_new_tokens=options.max_new_tokens
    )
    disjoint = refuse_suite_prompts(prompts)
    corpus = make_corpus(options, verifier, student, prompts, cache, on_progress)
    plan = _plan(options, verifier, student, corpus)
    with resumable(out, PLAN, plan, what="fine-tuning"):
        if (out / RESULT).exists():
            return read_record(out / RESULT, FineTuneResult)
        started = time.monotonic()
        setup = _setup(options, verifier, student, corpus)
        history, after = apply_method(options, setup, verifier, student, out, on_progress)
        result = FineTuneResult(
            plan=plan,
            checked_suites=disjoint.checked,
            unchecked_suites=disjoint.not_at_hand,
            before=history[0],
            after=after,
            history=tuple(history),
            best_step=after.step if after else 0,
            # A new object, so that the hash is of the weights as they are now, not the one kept from before.
            verifier_sha256_after=replace(verifier).weights_sha256,
            seconds=round(time.monotonic() - started, 1),
            environment=describe(options.device),
        )
        write_atomic(out / CARD, model_card(result))
        write_record(out / RESULT, result)
        (out / STATE).unlink(missing_ok=True)
        return result


# --------------------------------------------------------------------------- the pair


def load_pair(options: FineTuneOptions) -> tuple[Model, Model]:
    """The verifier in the dtype of the options, frozen, and the drafter in float32. Raises `FairspecError`."""
    if options.dtype == "float16":
        raise FairspecError("dtype=float16: gradients would vanish. Choose float32 or bfloat16.")
    verifier = _load(options.verifier, options.dtype, options.device)
    verifier.hf.requires_grad_(False)
    check_head(verifier.hf, verifier.name)
    return verifier, load_student(options, verifier)


def load_student(options: FineTuneOptions, verifier: Model) -> Model:
    """The drafter in float32, checked to fit the verifier. Raises `FairspecError`."""
    kind = drafter_kind(options.drafter.kind)
    if not kind.causal_lm and not kind.of_verifier:
        raise FairspecError(f"{options.drafter.name}: only a drafter that is a model can be fine-tuned.")
    files = _files(options)
    student = _load(replace(files, options={**files.options, "packing": "off"}), "float32", options.device)
    if kind.of_verifier:
        made = load_drafter(kind.name, kind.name, options.drafter.options, student).model
        assert made is not None
        student = made
    if student.quantized:
        raise FairspecError(f"{student.name}: quantized weights cannot be trained. Give the drafter unquantized.")
    check_vocabulary(verifier, student)
    check_head(student.hf, student.name)
    return student


def _files(options: FineTuneOptions) -> ModelSpec:
    """Where the drafter's weights and tokenizer come from."""
    return options.verifier if drafter_kind(options.drafter.kind).of_verifier else options.drafter


def _load(spec: ModelSpec, dtype: str, device: str) -> Model:
    loaded = load_model(spec.source, revision=spec.revision, dtype=dtype, device=device, options=spec.options)
    return replace(loaded, name=spec.name)


def _plan(options: FineTuneOptions, verifier: Model, student: Model, corpus: Corpus) -> FineTunePlan:
    return FineTunePlan(
        method=options.method,
        verifier=verifier.name,
        verifier_revision=verifier.identity,
        verifier_sha256=verifier.weights_sha256,
        drafter=student.name,
        drafter_revision=student.identity,
        drafter_sha256=student.weights_sha256,
        prompts=options.prompts,
        corpus_sha256=corpus.sha256,
        training_examples=count_examples(corpus.train),
        held_out_examples=count_examples(corpus.held_out),
        recipe=options.recipe,
        lora_rank=options.lora_rank,
        chat_template=options.chat_template,
        dtype=options.dtype,
        device=options.device,
    )


# --------------------------------------------------------------------------- the corpus


def make_corpus(
    options: FineTuneOptions,
    verifier: Model,
    student: Model,
    prompts: Sequence[Prompt],
    cache: Path | None,
    on_progress: FineTuneCallback = _ignore,
) -> Corpus:
    """The verifier's greedy continuations by task; the last fifth of each task's prompts is held out.

    Prompts that do not fit either model are left out. Raises `FairspecError` where a task then has too few.
    """
    codec = Codec(
        options.verifier.source,
        revision=options.verifier.revision,
        chat_template=options.chat_template,
        chat_template_args=options.chat_template_args,
    )
    by_task: dict[str, list[tuple[Prompt, Encoded]]] = {}
    for prompt in prompts:
        encoded = codec.encode(prompt)
        if not any(model.refusal(len(encoded.ids), prompt.max_new_tokens) for model in (verifier, student)):
            by_task.setdefault(encoded.group, []).append((prompt, encoded))
    train: list[Example] = []
    held_out: list[Example] = []
    total = sum(map(len, by_task.values()))
    for task, pairs in by_task.items():
        task_prompts = [prompt for prompt, _ in pairs]
        task_encoded = with_prefixes(encoded for _, encoded in pairs)
        references = continuations(
            verifier,
            codec,
            task_prompts,
            task_encoded,
            sampling=GREEDY,
            batch_size=options.batch_size,
            seed=options.recipe.seed,
            chunk=f"mitigation/{task}",
            cache=cache,
        )
        examples: list[Example] = []
        for encoded, reference in zip(task_encoded, references, strict=True):
            examples.append(Example(task, encoded.ids, reference.ids, encoded.key))
            on_progress(FineTuneProgress("references", len(train) + len(held_out) + len(examples), total))
        cut = len(examples) - max(1, round(HELD_OUT_SHARE * len(examples)))
        train.extend(examples[:cut])
        held_out.extend(examples[cut:])
    shares = options.shares or {task: float(count) for task, count in count_examples(train).items()}
    return Corpus(tuple(train), tuple(held_out), shares)


# --------------------------------------------------------------------------- the method


def _setup(options: FineTuneOptions, verifier: Model, student: Model, corpus: Corpus) -> TrainingSetup:
    if student.parameters > CHECKPOINTED:
        student.hf.gradient_checkpointing_enable()
    train_teacher, held_out_teacher = (Teacher(verifier.hf, examples) for examples in (corpus.train, corpus.held_out))
    autocast = None if options.dtype == "float32" else DTYPES[options.dtype]
    return TrainingSetup(student.hf, train_teacher, held_out_teacher, corpus, autocast)


def apply_method(
    options: FineTuneOptions,
    setup: TrainingSetup,
    verifier: Model,
    student: Model,
    out: Path,
    on_progress: FineTuneCallback = _ignore,
) -> tuple[list[Evaluation], Evaluation | None]:
    """Train or fit, and write the drafter's files into `out`, from which it is loaded like any other drafter.

    Returns:
        The evaluations, the first of the drafter as it was; and one of the weights as saved, `None` of a fit.
    """
    method = methods.find(options.method)
    after = None
    if isinstance(method, Fitted):
        method.fit_function(setup, verifier, out)
        history = [figures_of(setup)]
    else:
        history, best_step = _train(options, setup, method, out / STATE, on_progress)
        after = figures_of(setup, step=best_step)
    if isinstance(method, Trained) or method.keeps_weights:
        student.hf.to(stored_dtype(options))
        files = _files(options)
        save_model(student.hf, Codec(files.source, revision=files.revision).tokenizer, out)
    return history, after


def _train(
    options: FineTuneOptions, setup: TrainingSetup, method: Trained, checkpoint: Path, on_progress: FineTuneCallback
) -> tuple[list[Evaluation], int]:
    def report(progress: TrainingProgress) -> None:
        on_progress(FineTuneProgress("training", progress.step, progress.steps, progress))

    adapted = _add_lora(setup, options.lora_rank) if options.lora_rank else None
    trained = train(setup, method, options.recipe, checkpoint=checkpoint, on_progress=report)
    if adapted is not None:
        adapted.merge_and_unload()
    _round(setup, stored_dtype(options))
    return trained


@torch.no_grad()
def _round(setup: TrainingSetup, dtype: torch.dtype) -> None:
    """Round the weights to the dtype they will be saved in, so that figures taken now are of what is saved."""
    for weight in setup.student.parameters():
        weight.copy_(weight.to(dtype).to(weight.dtype))


def _add_lora(setup: TrainingSetup, rank: int) -> Any:
    """Freeze the drafter and add trainable adapters of this rank to its linear layers."""
    try:
        import peft
    except ModuleNotFoundError:
        raise FairspecError("--lora: needs the package peft. Install it: pip install 'fairspec-bench[lora]'.") from None
    torch.manual_seed(0)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(setup.student, config)


def stored_dtype(options: FineTuneOptions) -> torch.dtype:
    """The dtype that the drafter is stored in, and will be stored in again."""
    files = _files(options)
    folder = hub.locate(files.source, files.revision).folder
    base = hub.read_base(folder)
    if base is not None and base.name is not None:  # an adapter: what it was merged into
        folder = hub.locate(base.name, base.revision).folder
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return getattr(config.get_text_config(decoder=True), "dtype", None) or torch.float32
