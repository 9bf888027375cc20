"""From a pair and prompts to a mended drafter in a folder: the corpus made by the verifier, the method, the card.

Knows the order of things and what lies on disk. Killed anywhere, the same call goes on: texts come from the reference
cache, training from its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from fairspec_bench import hub
from fairspec_bench.codec import Codec
from fairspec_bench.engine.model import DTYPES, Model, check_vocabulary, load_model
from fairspec_bench.mitigation import fitted, methods
from fairspec_bench.mitigation.card import ASKED, CARD, RESULT, STATE, Asked, Result, card
from fairspec_bench.mitigation.corpus import Corpus, Text, count_texts
from fairspec_bench.mitigation.methods import Fitted, Trained
from fairspec_bench.mitigation.passes import Teacher, Trainee, check_head
from fairspec_bench.mitigation.trainer import Evaluation, Progress, Recipe, figures_of, train
from fairspec_bench.records import Encoded, FairspecError, Prompt, Rule, read_record, write_atomic, write_record
from fairspec_bench.score.environment import describe
from fairspec_bench.score.prepare import ModelAsk
from fairspec_bench.score.reference import continuations
from fairspec_bench.suite.training import refuse_suite_prompts, training_prompts

HELD_OUT_SHARE = 0.2
CHECKPOINTED = 100_000_000
"""Parameters beyond which a drafter's activations are made again instead of kept."""
GREEDY = Rule()
RECIPE = Recipe()


@dataclass(frozen=True)
class Ask:
    """Everything a user can say. `languages` keeps the tasks of these names; `limit` and `cap` as in a run.

    `shares` says how common each task is in the wild; by default as common as its prompts.
    """

    verifier: ModelAsk
    drafter: ModelAsk
    method: str
    prompts: tuple[str, ...]
    recipe: Recipe = RECIPE
    languages: tuple[str, ...] | None = None
    limit: int | None = None
    cap: int | None = None
    batch_size: int = 48
    dtype: str = "float32"
    device: str = "cpu"
    lora_rank: int | None = None
    chat_template: bool = False
    shares: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Watched:
    """How far a mending is: `done` of `total` of a stage, and what training last measured."""

    stage: str
    done: int
    total: int
    training: Progress | None = None

    @property
    def label(self) -> str:
        """The stage, and the latest held-out cost where there is one."""
        latest = self.training.evaluation if self.training else None
        return f"{self.stage}, held-out cost {latest.cost:.4f} before step {latest.step}" if latest else self.stage


Watch = Callable[[Watched], None]


def mend(ask: Ask, out: Path, *, cache: Path | None = None, watch: Watch = lambda seen: None) -> Result:
    """Mend the drafter into the folder `out`, loadable by Transformers; → what came of it.

    A finished folder is returned as it is. Raises `FairspecError`, also where `out` holds another mending.
    """
    method = methods.find(ask.method)
    verifier, student = load_both(ask)
    prompts = training_prompts(ask.prompts, languages=ask.languages, limit=ask.limit, cap=ask.cap)
    disjoint = refuse_suite_prompts(prompts)
    corpus = make_corpus(ask, verifier, student, prompts, cache, watch)
    asked = _asked(ask, verifier, student, corpus)
    _claim(out, asked)
    if (out / RESULT).exists():
        return read_record(out / RESULT, Result)
    started = time.monotonic()
    trainee = make_trainee(ask, verifier, student, corpus)
    if isinstance(method, Fitted):
        fitted.FITS[method.fit](trainee, verifier, out)
        evaluations, best, after = [figures_of(trainee)], 0, None
    else:
        evaluations, best = _train(trainee, method, ask, out, watch)
        after = figures_of(trainee, step=best)
    if not isinstance(method, Fitted) or method.keeps_weights:
        _save(ask, student, out)
    result = Result(
        asked=asked,
        checked_suites=disjoint.checked,
        unchecked_suites=disjoint.not_at_hand,
        before=evaluations[0],
        after=after,
        history=tuple(evaluations),
        best_step=best,
        verifier_sha256_after=replace(verifier).weights_sha256,
        seconds=round(time.monotonic() - started, 1),
        environment=describe(ask.device),
    )
    write_atomic(out / CARD, card(result))
    write_record(out / RESULT, result)
    (out / STATE).unlink(missing_ok=True)
    return result


def load_both(ask: Ask) -> tuple[Model, Model]:
    """The verifier in the dtype asked for and the drafter in float32, to be trained. Raises `FairspecError`."""
    if ask.dtype == "float16":
        raise FairspecError("dtype=float16: gradients would vanish. Choose float32 or bfloat16.")
    verifier = _loaded(ask.verifier, ask.dtype, ask.device)
    verifier.hf.requires_grad_(False)
    check_head(verifier.hf, verifier.name)
    return verifier, load_student(ask, verifier)


def load_student(ask: Ask, verifier: Model) -> Model:
    """The drafter in float32, checked to fit the verifier. Raises `FairspecError`."""
    if ask.drafter.kind != "model":
        raise FairspecError(f"{ask.drafter.name}: only a drafter that is a model can be mended.")
    student = _loaded(ask.drafter, "float32", ask.device)
    if student.quantized:
        raise FairspecError(f"{student.name}: quantized weights cannot be trained. Give the drafter unquantized.")
    check_vocabulary(verifier, student)
    check_head(student.hf, student.name)
    return student


def _loaded(one: ModelAsk, dtype: str, device: str) -> Model:
    loaded = load_model(one.source, revision=one.revision, dtype=dtype, device=device, options=one.options)
    return replace(loaded, name=one.name)


# --------------------------------------------------------------------------- the corpus


def make_corpus(
    ask: Ask, verifier: Model, student: Model, prompts: Sequence[Prompt], cache: Path | None, watch: Watch
) -> Corpus:
    """The verifier's greedy continuations by task; the last fifth of each task's prompts is held out.

    Prompts that do not fit either model are left out. Raises `FairspecError` where a task then has too few.
    """
    codec = Codec(ask.verifier.source, revision=ask.verifier.revision, chat_template=ask.chat_template)
    by_task: dict[str, list[tuple[Prompt, Encoded]]] = {}
    for prompt in prompts:
        encoded = codec.encode(prompt)
        if not any(model.refusal(len(encoded.ids), prompt.cap) for model in (verifier, student)):
            by_task.setdefault(encoded.group, []).append((prompt, encoded))
    train: list[Text] = []
    held_out: list[Text] = []
    total = sum(map(len, by_task.values()))
    for task, pairs in by_task.items():
        texts = []
        for text in _continued(ask, verifier, codec, task, pairs, cache):
            texts.append(text)
            watch(Watched("texts", len(train) + len(held_out) + len(texts), total))
        cut = len(texts) - max(1, round(HELD_OUT_SHARE * len(texts)))
        train.extend(texts[:cut])
        held_out.extend(texts[cut:])
    shares = ask.shares or {task: float(count) for task, count in count_texts(train).items()}
    return Corpus(tuple(train), tuple(held_out), shares)


def _continued(
    ask: Ask,
    verifier: Model,
    codec: Codec,
    task: str,
    pairs: Sequence[tuple[Prompt, Encoded]],
    cache: Path | None,
) -> Sequence[Text]:
    prompts, encoded = zip(*pairs, strict=True)
    traces = continuations(
        verifier,
        codec,
        prompts,
        encoded,
        rule=GREEDY,
        batch_size=ask.batch_size,
        seed=ask.recipe.seed,
        shard=f"mend/{task}",
        cache=cache,
    )
    return [Text(task, one.ids, trace.ids) for one, trace in zip(encoded, traces, strict=True)]


# --------------------------------------------------------------------------- the method


def make_trainee(ask: Ask, verifier: Model, student: Model, corpus: Corpus) -> Trainee:
    """Both models over the corpus."""
    if student.parameters > CHECKPOINTED:
        student.hf.gradient_checkpointing_enable()
    train, held_out = (Teacher(verifier.hf, texts) for texts in (corpus.train, corpus.held_out))
    return Trainee(student.hf, train, held_out, corpus, None if ask.dtype == "float32" else DTYPES[ask.dtype])


def _train(trainee: Trainee, method: Trained, ask: Ask, out: Path, watch: Watch) -> tuple[list[Evaluation], int]:
    def seen(progress: Progress) -> None:
        watch(Watched("training", progress.step, progress.steps, progress))

    adapted = _with_lora(trainee, ask.lora_rank) if ask.lora_rank else None
    found = train(trainee, method, ask.recipe, keep=out / STATE, watch=seen)
    if adapted is not None:
        adapted.merge_and_unload()
    round_to(trainee, stored_dtype(ask))
    return found


@torch.no_grad()
def round_to(trainee: Trainee, dtype: torch.dtype) -> None:
    """Round the drafter's weights to the dtype it will be saved in, so that figures taken now are of what is saved."""
    for weight in trainee.student.parameters():
        weight.copy_(weight.to(dtype).to(weight.dtype))


def _with_lora(trainee: Trainee, rank: int) -> Any:
    """Freeze the drafter and train adapters of this rank inside its linear layers instead."""
    try:
        import peft
    except ModuleNotFoundError:
        raise FairspecError("--lora: needs the package peft. Install it: pip install 'fairspec-bench[lora]'.") from None
    torch.manual_seed(0)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(trainee.student, config)


def stored_dtype(ask: Ask) -> torch.dtype:
    """The dtype that the drafter lies in, and will lie in again."""
    folder = hub.locate(ask.drafter.source, ask.drafter.revision).folder
    base = hub.read_base(folder)
    if base is not None and base.name is not None:  # an adapter: what it was merged into
        folder = hub.locate(base.name, base.revision).folder
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return getattr(config.get_text_config(decoder=True), "dtype", None) or torch.float32


# --------------------------------------------------------------------------- the folder


def _asked(ask: Ask, verifier: Model, student: Model, corpus: Corpus) -> Asked:
    return Asked(
        method=ask.method,
        verifier=verifier.name,
        verifier_sha256=verifier.weights_sha256,
        drafter=student.name,
        drafter_sha256=student.weights_sha256,
        prompts=ask.prompts,
        corpus_sha256=corpus.sha256,
        training_texts=count_texts(corpus.train),
        held_out_texts=count_texts(corpus.held_out),
        recipe=ask.recipe,
        lora_rank=ask.lora_rank,
        chat_template=ask.chat_template,
        dtype=ask.dtype,
        device=ask.device,
    )


def _claim(out: Path, asked: Asked) -> None:
    """Write down what is asked before anything else; raise `FairspecError` where the folder holds something else."""
    if (out / ASKED).exists():
        before = read_record(out / ASKED, Asked)
        for field in Asked.model_fields:
            if getattr(before, field) != getattr(asked, field):
                raise FairspecError(
                    f"{out}: holds another mending ({field} is {str(getattr(before, field))[:60]}, "
                    f"now {str(getattr(asked, field))[:60]}). Choose another --out."
                )
    elif out.exists() and any(out.iterdir()):
        raise FairspecError(f"{out}: not empty and no mended drafter. Choose another --out.")
    else:
        write_record(out / ASKED, asked)


def _save(ask: Ask, student: Model, out: Path) -> None:
    """The drafter in its own dtype with its tokenizer."""
    student.hf.to(stored_dtype(ask)).save_pretrained(out)
    Codec(ask.drafter.source, revision=ask.drafter.revision).tokenizer.save_pretrained(out)
