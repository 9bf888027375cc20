"""Makes verifier/drafter pairs with a known language imbalance: the embedded pair and pairs on a user's own text.

Knows the recipes (sizes, schedules, seeds, mixes) and how a finished model is saved. The embedded pair's weights lie
beside this file in `pair/`; `python -m fairspec_bench.testbed.pair OUT` makes the pair again, `… OUT tiny` a small one
for tests, `… OUT balanced` a drafter that serves all languages alike.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from fairspec_bench.records import write_atomic
from fairspec_bench.testbed.corpus import source, tokenizer_texts, zipf
from fairspec_bench.testbed.text import packed_source, read_texts
from fairspec_bench.testbed.tokenizer import train_tokenizer
from fairspec_bench.testbed.trainer import Schedule, Shape, Source, build, train

Say = Callable[[str], None]
ORDER = ("en", "zh", "es", "de", "fr", "ru", "ja", "th", "bn", "sw", "te")
"""Languages from most to least training text, roughly as on the web: the order along which a drafter is skewed."""


@dataclass(frozen=True)
class Recipe:
    """How one model is trained: `skew` is the exponent of the Zipf mix over `ORDER`, 0 for equal shares."""

    shape: Shape
    schedule: Schedule
    batch: int
    skew: float
    seed: int


@dataclass(frozen=True)
class PairRecipe:
    """A pair and its shared tokenizer's size and number of positions."""

    vocabulary: int
    positions: int
    verifier: Recipe
    drafter: Recipe


EMBEDDED = PairRecipe(
    vocabulary=2048,
    positions=512,
    verifier=Recipe(Shape(192, 6, 4, 2, 64, 512), Schedule(100, 3400, 1600, 0.03, 6e-3), 32, 0.0, 0),
    drafter=Recipe(Shape(128, 1, 2, 2, 64, 352), Schedule(20, 110, 70, 0.03, 6e-3), 32, 2.0, 1),
)
"""The pair that ships: see `pair/` and docs/results/embedded-pair.md for what it was measured to do."""

TINY = PairRecipe(
    vocabulary=1024,
    positions=512,
    verifier=Recipe(Shape(64, 2, 2, 1, 32, 128), Schedule(10, 60, 50, 0.03, 6e-3), 16, 0.0, 0),
    drafter=Recipe(Shape(64, 1, 2, 1, 32, 128), Schedule(10, 30, 20, 0.03, 6e-3), 16, 2.0, 1),
)
"""Half a minute of one core, for tests: it writes the language and does no arithmetic."""

BALANCED = replace(EMBEDDED.drafter, schedule=Schedule(20, 380, 200, 0.03, 6e-3), skew=0.0, seed=7)
"""A drafter for the embedded verifier that serves all languages alike: there, unfairness must not be found."""

TEXT_SCALES = {
    "tiny": PairRecipe(
        vocabulary=2048,
        positions=8192,
        verifier=Recipe(Shape(128, 4, 4, 2, 32, 352), Schedule(10, 70, 40, 0.02, 4e-3), 2, 0.0, 0),
        drafter=Recipe(Shape(128, 1, 4, 2, 32, 352), Schedule(10, 40, 30, 0.02, 4e-3), 2, 0.0, 1),
    ),
    "small": PairRecipe(
        vocabulary=4096,
        positions=8192,
        verifier=Recipe(Shape(192, 6, 6, 2, 32, 512), Schedule(30, 500, 270, 0.02, 4e-3), 2, 0.0, 0),
        drafter=Recipe(Shape(128, 1, 4, 2, 32, 352), Schedule(20, 250, 130, 0.02, 4e-3), 2, 0.0, 1),
    ),
}
TRAIN_LENGTH = 4096
"""Tokens in one packed training sequence of real text: long enough for 8-shot prompts in every language."""


def embedded_pair() -> tuple[Path, Path]:
    """The folders of the embedded verifier and drafter, as every machine has them."""
    root = Path(str(files(__package__))) / "pair"
    return root / "verifier", root / "drafter"


def train_embedded(out: Path, recipe: PairRecipe = EMBEDDED, say: Say = print) -> tuple[Path, Path]:
    """Train a pair on the built-in text into `out/verifier` and `out/drafter`; a stopped training goes on."""
    tokenizer = train_tokenizer(tokenizer_texts(), recipe.vocabulary, recipe.positions)

    def batches(member: Recipe) -> Source:
        return source(tokenizer, zipf(ORDER, member.skew), member.batch, member.seed)

    return _train_pair(out, recipe, tokenizer, batches, {"text": "built in, split train"}, say)


def train_balanced(folder: Path, say: Say = print) -> None:
    """Train the drafter `BALANCED` for the embedded verifier into `folder`; a stopped training goes on."""
    tokenizer = train_tokenizer(tokenizer_texts(), EMBEDDED.vocabulary, EMBEDDED.positions)
    batches = source(tokenizer, zipf(ORDER, BALANCED.skew), BALANCED.batch, BALANCED.seed)
    _train_member(folder, BALANCED, tokenizer, EMBEDDED.positions, batches, {"text": "built in, split train"}, say)


def train_on_text(
    text: Path, out: Path, *, skew: float = 1.0, scale: str = "tiny", seed: int = 0, say: Say = print
) -> tuple[Path, Path]:
    """Train a pair on a folder of `<language>.txt`; the drafter's shares of the languages fall as `rank ** -skew`.

    Ranks follow `ORDER`, unlisted languages after it in alphabetical order. Raises `FairspecError` for unusable text.
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

    def batches(member: Recipe) -> Source:
        return packed_source(texts, tokenizer, zipf(order, member.skew), TRAIN_LENGTH, member.batch, member.seed)

    return _train_pair(out, recipe, tokenizer, batches, {"text_sha256": texts.sha256, "order": list(order)}, say)


def _train_pair(
    out: Path,
    recipe: PairRecipe,
    tokenizer: PreTrainedTokenizerFast,
    batches: Callable[[Recipe], Source],
    facts: dict[str, object],
    say: Say,
) -> tuple[Path, Path]:
    folders = out / "verifier", out / "drafter"
    for folder, member in zip(folders, (recipe.verifier, recipe.drafter), strict=True):
        _train_member(folder, member, tokenizer, recipe.positions, batches(member), facts, say)
    return folders


def _train_member(
    folder: Path,
    member: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    positions: int,
    batches: Source,
    facts: dict[str, object],
    say: Say,
) -> None:
    """One model of a pair, unless it is there."""
    if (folder / "recipe.json").exists():
        return
    model = build(member.shape, len(tokenizer), positions, member.seed)
    checkpoint = folder.parent / f".{folder.name}.pt"
    train(model, batches, member.schedule, checkpoint=checkpoint, say=_prefixed(folder.name, say))
    save(model, tokenizer, folder, {"recipe": asdict(member), "torch": torch.__version__, **facts})
    checkpoint.unlink(missing_ok=True)


def _prefixed(name: str, say: Say) -> Say:
    return lambda line: say(f"{name}: {line}")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, facts: dict[str, object]) -> None:
    """Save in bfloat16 safetensors with the tokenizer; `recipe.json`, written last, says how it was made."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    write_atomic(folder / "recipe.json", json.dumps({**facts, "weights_sha256": weights}, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "balanced" in sys.argv[2:]:
        train_balanced(Path(sys.argv[1]))
    else:
        train_embedded(Path(sys.argv[1]), TINY if "tiny" in sys.argv[2:] else EMBEDDED)
