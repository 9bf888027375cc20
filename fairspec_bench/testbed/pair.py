"""Makes verifier/drafter pairs with a known language imbalance: the embedded pair and pairs on a user's own text.

The embedded pair's weights lie in `models/embedded/`; `python -m fairspec_bench.testbed.pair OUT` makes the pair again,
`… OUT tiny` a small one for tests, `… OUT balanced` a drafter of equal shares.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from fairspec_bench.models.checkpoint import save_model
from fairspec_bench.schemas.base import Record, Sha256
from fairspec_bench.schemas.io import write_atomic
from fairspec_bench.schemas.resumable import resumable
from fairspec_bench.testbed.corpus import source, tokenizer_texts, zipf
from fairspec_bench.testbed.text import packed_source, read_texts
from fairspec_bench.testbed.tokenizer import train_tokenizer
from fairspec_bench.testbed.trainer import Schedule, Shape, Source, build, train

Say = Callable[[str], None]
PLAN, RECIPE, STATE = "training-plan.json", "recipe.json", ".training.pt"
BUILT_IN_TEXT = "built in, split train"
ORDER = ("en", "zh", "es", "de", "fr", "ru", "ja", "th", "bn", "sw", "te")
"""Languages from most to least training text, roughly as on the web: the order along which a drafter is skewed."""


@dataclass(frozen=True)
class ModelRecipe:
    """How one model is trained: `skew` is the exponent of the Zipf mix over `ORDER`, 0 for equal shares."""

    shape: Shape
    schedule: Schedule
    batch: int
    skew: float
    seed: int


class TrainingPlan(Record):
    """Everything that decides a model's weights; another plan in the same folder is refused.

    `order` is of languages from most to least text, `text` what was read: `BUILT_IN_TEXT` or a hash.
    """

    recipe: ModelRecipe
    positions: int
    text: str
    order: tuple[str, ...]
    tokenizer_sha256: Sha256


@dataclass(frozen=True)
class PairRecipe:
    """A pair and its shared tokenizer's size and number of positions."""

    vocabulary: int
    positions: int
    verifier: ModelRecipe
    drafter: ModelRecipe


EMBEDDED = PairRecipe(
    vocabulary=2048,
    positions=512,
    verifier=ModelRecipe(Shape(192, 6, 4, 2, 64, 512), Schedule(100, 3400, 1600, 0.03, 6e-3), 32, 0.0, 0),
    drafter=ModelRecipe(Shape(128, 1, 2, 2, 64, 352), Schedule(20, 110, 70, 0.03, 6e-3), 32, 2.0, 1),
)
"""The pair that ships: see `models/embedded/` and docs/results/embedded-pair.md for what it was measured to do."""

TINY = PairRecipe(
    vocabulary=1024,
    positions=512,
    verifier=ModelRecipe(Shape(64, 2, 2, 1, 32, 128), Schedule(10, 60, 50, 0.03, 6e-3), 16, 0.0, 0),
    drafter=ModelRecipe(Shape(64, 1, 2, 1, 32, 128), Schedule(10, 30, 20, 0.03, 6e-3), 16, 2.0, 1),
)
"""Half a minute of one core, for tests: it writes the language and does no arithmetic."""

BALANCED = replace(EMBEDDED.drafter, schedule=Schedule(20, 380, 200, 0.03, 6e-3), skew=0.0, seed=7)
"""A drafter for the embedded verifier, trained on equal shares: a check that no unfairness is found."""

TEXT_SCALES = {
    "tiny": PairRecipe(
        vocabulary=2048,
        positions=8192,
        verifier=ModelRecipe(Shape(128, 4, 4, 2, 32, 352), Schedule(10, 70, 40, 0.02, 4e-3), 2, 0.0, 0),
        drafter=ModelRecipe(Shape(128, 1, 4, 2, 32, 352), Schedule(10, 40, 30, 0.02, 4e-3), 2, 0.0, 1),
    ),
    "small": PairRecipe(
        vocabulary=4096,
        positions=8192,
        verifier=ModelRecipe(Shape(192, 6, 6, 2, 32, 512), Schedule(30, 500, 270, 0.02, 4e-3), 2, 0.0, 0),
        drafter=ModelRecipe(Shape(128, 1, 4, 2, 32, 352), Schedule(20, 250, 130, 0.02, 4e-3), 2, 0.0, 1),
    ),
}
TRAIN_LENGTH = 4096
"""Tokens in one packed training sequence of real text: long enough for 8-shot prompts in every language."""


def train_embedded(out: Path, recipe: PairRecipe = EMBEDDED, say: Say = print) -> tuple[Path, Path]:
    """Train a pair on the built-in text into `out/verifier` and `out/drafter`. Resumable."""
    tokenizer = train_tokenizer(tokenizer_texts(), recipe.vocabulary, recipe.positions)

    def batches(member: ModelRecipe) -> Source:
        return source(tokenizer, zipf(ORDER, member.skew), member.batch, member.seed)

    return _train_pair(out, recipe, tokenizer, batches, BUILT_IN_TEXT, ORDER, say)


def train_balanced(folder: Path, say: Say = print) -> None:
    """Train the drafter `BALANCED` for the embedded verifier into `folder`. Resumable."""
    recipe = replace(EMBEDDED, drafter=BALANCED)
    tokenizer = train_tokenizer(tokenizer_texts(), recipe.vocabulary, recipe.positions)
    plan = _plan(recipe, BALANCED, tokenizer, BUILT_IN_TEXT, ORDER)
    mix = zipf(ORDER, BALANCED.skew)
    train_model(folder, plan, tokenizer, lambda: source(tokenizer, mix, BALANCED.batch, BALANCED.seed), say)


def train_on_text(
    text: Path, out: Path, *, skew: float = 1.0, scale: str = "tiny", seed: int = 0, say: Say = print
) -> tuple[Path, Path]:
    """Train a pair on a folder of `<language>.txt`; the drafter's shares of the languages fall as `rank ** -skew`.

    Ranks follow `ORDER`, unlisted languages after it in alphabetical order. Resumable. Raises `FairspecError` for
    unusable text, and where `out` holds a pair of another recipe or text.
    """
    texts = read_texts(text)
    recipe = TEXT_SCALES[scale]
    order = tuple(sorted(texts.train, key=lambda x: (ORDER.index(x) if x in ORDER else len(ORDER), x)))
    recipe = replace(
        recipe,
        verifier=replace(recipe.verifier, seed=seed),
        drafter=replace(recipe.drafter, skew=skew, seed=seed + 1),
    )
    documents = [document for language in order for document in texts.train[language]]
    tokenizer = train_tokenizer(documents, recipe.vocabulary, recipe.positions)

    def batches(member: ModelRecipe) -> Source:
        return packed_source(texts, tokenizer, zipf(order, member.skew), TRAIN_LENGTH, member.batch, member.seed)

    return _train_pair(out, recipe, tokenizer, batches, f"sha256:{texts.sha256}", order, say)


def _train_pair(
    out: Path,
    recipe: PairRecipe,
    tokenizer: PreTrainedTokenizerFast,
    batches: Callable[[ModelRecipe], Source],
    text: str,
    order: tuple[str, ...],
    say: Say,
) -> tuple[Path, Path]:
    folders = out / "verifier", out / "drafter"
    for folder, member in zip(folders, (recipe.verifier, recipe.drafter), strict=True):
        plan = _plan(recipe, member, tokenizer, text, order)
        train_model(folder, plan, tokenizer, partial(batches, member), say)
    return folders


def _plan(
    recipe: PairRecipe, member: ModelRecipe, tokenizer: PreTrainedTokenizerFast, text: str, order: tuple[str, ...]
) -> TrainingPlan:
    sha256 = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    return TrainingPlan(recipe=member, positions=recipe.positions, text=text, order=order, tokenizer_sha256=sha256)


def train_model(
    folder: Path,
    plan: TrainingPlan,
    tokenizer: PreTrainedTokenizerFast,
    batches: Callable[[], Source],
    say: Say,
) -> Sha256:
    """Train and save one model, unless it is there; `recipe.json`, written last, says how it was made.

    Args:
        folder: a new folder, or one that this plan began.
        plan: everything that decides the weights.
        tokenizer: saved beside them.
        batches: makes the source of batches, if there is anything to train.
        say: called with a line of progress.

    Returns:
        The SHA-256 of the weights' file.

    Raises:
        FairspecError: `folder` holds another training.
    """
    with resumable(folder, PLAN, plan, what="training"):
        if not (folder / RECIPE).exists():
            member, checkpoint = plan.recipe, folder / STATE
            model = build(member.shape, len(tokenizer), plan.positions, member.seed)
            train(
                model,
                batches(),
                member.schedule,
                checkpoint=checkpoint,
                every=max(1, min(100, member.schedule.steps // 10)),
                say=lambda line: say(f"{folder.name}: {line}"),
            )
            save(model, tokenizer, folder, {**plan.model_dump(mode="json"), "torch": torch.__version__})
            checkpoint.unlink(missing_ok=True)
    return str(json.loads((folder / RECIPE).read_text(encoding="utf-8"))["weights_sha256"])


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, facts: dict[str, object]) -> None:
    """Save in bfloat16 safetensors with the tokenizer; `recipe.json` gets the facts and the hash of the weights."""
    model.to(torch.bfloat16)
    save_model(model, tokenizer, folder)
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    write_atomic(folder / RECIPE, json.dumps({**facts, "weights_sha256": weights}, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "balanced" in sys.argv[2:]:
        train_balanced(Path(sys.argv[1]))
    else:
        train_embedded(Path(sys.argv[1]), TINY if "tiny" in sys.argv[2:] else EMBEDDED)
