"""Does a language's acceptance follow from the language, or from its share of training? Drafters with set shares.

For one verifier, drafters are trained that differ only in how much of which language they saw: a skew, and the order of
languages along which it falls. Every language has large and small shares, so one regression splits acceptance into what
belongs to the language and what to its share. Resumable at any drafter.
"""

from __future__ import annotations

import hashlib
import math
import random
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from fairspec_bench.engine.drafters.registry import load_drafter
from fairspec_bench.experiments.scorer import Scorer
from fairspec_bench.metrics.bootstrap import TAIL, Array
from fairspec_bench.metrics.measure import published, rounded
from fairspec_bench.reporting.svg import Axis, Series, hue, log_axis, scatter
from fairspec_bench.reporting.tables import cell, markdown_table
from fairspec_bench.schemas.base import FairspecError, Record, Sha256
from fairspec_bench.schemas.io import read_record, write_atomic, write_record
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Reference
from fairspec_bench.schemas.options import RunOptions, model_spec
from fairspec_bench.schemas.report import Estimate
from fairspec_bench.scoring.prepare import prepare
from fairspec_bench.testbed.corpus import source, zipf
from fairspec_bench.testbed.pair import BUILT_IN_TEXT, EMBEDDED, ORDER, ModelRecipe, Say, TrainingPlan, train_model

SKEWS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
ORDERS = 8
SHUFFLES = 2000
SUITE = "embedded_math"
REPLICATES = 10_000
FLAT = 1e-9
"""A sum of squares of log shares that rounding alone may leave."""


class SweptDrafter(Record):
    """One drafter of the sweep and its score: by language, the expected share of training documents, Σ alpha, contexts.

    `references_sha256` says on which texts, `seed` is that of its weights and batches.
    """

    name: str
    skew: float
    order: tuple[str, ...]
    seed: int
    weights_sha256: Sha256
    references_sha256: Sha256
    shares: dict[str, float]
    alpha: dict[str, float]
    contexts: dict[str, int]


class Fit(Record):
    """outcome of drafter j in language i = language i + `slope` · ln share.

    `slope` has its 95 % interval over drafters. `both` is the share of variance that the model explains, `by_language`
    and `by_share` what each adds to the other alone; `language_alone` what the languages explain without shares.
    """

    outcome: Literal["acceptance", "logit acceptance"]
    slope: Estimate
    both: float
    by_share: float
    by_language: float
    language_alone: float


class Causal(Record):
    """The sweep and what it says. `effects` are the languages' own acceptances at an equal share of training."""

    verifier_sha256: Sha256
    suite: str
    limit: int
    steps: int
    batch: int
    languages: tuple[str, ...]
    drafters: tuple[SweptDrafter, ...]
    fits: tuple[Fit, ...]
    effects: dict[str, float]
    replicates: int
    bootstrap_seed: int


def run_causal(
    out: Path,
    *,
    verifier: Path,
    limit: int = 50,
    skews: Sequence[float] = SKEWS,
    orders: Sequence[Sequence[str]] | None = None,
    recipe: ModelRecipe = EMBEDDED.drafter,
    batch_size: int = 48,
    replicates: int = REPLICATES,
    seed: int = 0,
    say: Say = print,
) -> Causal:
    """Sweep skews × orders, fit, and write `causal.json`, `causal.md` and `causal.svg` into `out`.

    `verifier` is the folder of a model and its tokenizer, `recipe` how each drafter is trained (its skew and seed are
    set here), `orders` default to eight in which languages take turns at being common and rare. The same call
    resumes. Raises `FairspecError` for a sweep that can show nothing and for a folder of another one.
    """
    chosen = tuple(map(tuple, spread_orders(ORDER, ORDERS, seed) if orders is None else orders))
    _check(skews, chosen)
    languages = tuple(sorted(chosen[0]))
    run_options = RunOptions(
        model_spec(str(verifier)),
        None,
        (SUITE,),
        languages,
        limit=limit,
        batch_size=batch_size,
        race_rounds=0,
        backend="eager",
    )
    scorer = Scorer(prepare(run_options), cache=out / "references")
    say(f"references: {len(scorer.references)} prompts")
    drafters = sweep(scorer, out / "drafters", skews=skews, orders=chosen, recipe=recipe, seed=seed, say=say)
    shares, acceptance, logits = outcomes(drafters)
    causal = Causal(
        verifier_sha256=scorer.context.verifier.weights_sha256,
        suite=SUITE,
        limit=limit,
        steps=recipe.schedule.steps,
        batch=recipe.batch,
        languages=languages,
        drafters=drafters,
        fits=(
            fit("acceptance", shares, acceptance, replicates, seed),
            fit("logit acceptance", shares, logits, replicates, seed),
        ),
        effects=_effects(languages, shares, acceptance),
        replicates=replicates,
        bootstrap_seed=seed,
    )
    write_record(out / "causal.json", causal)
    write_atomic(out / "causal.svg", plot(causal))
    write_atomic(out / "causal.md", describe(causal))
    return causal


def _check(skews: Sequence[float], orders: Sequence[tuple[str, ...]]) -> None:
    if len(set(skews)) < 2 or len(set(orders)) < 2:
        raise FairspecError("causal: needs at least 2 skews and 2 orders, else no language's share varies.")
    if min(skews) < 0:
        raise FairspecError(f"causal: skew {min(skews):g} is below 0. Give the languages in another order instead.")
    languages = set(orders[0])
    for order in orders:
        if set(order) != languages or len(order) != len(languages):
            raise FairspecError(f"causal: order {','.join(order)} does not hold each of the same languages once.")
    if len(languages) < 2:
        raise FairspecError("causal: needs at least 2 languages.")


def spread_orders(languages: Sequence[str], count: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """`languages` and `count` − 1 shuffles of them, such that every language is both common and rare.

    Of many seeded sets of shuffles, that in which the language whose ranks spread least has the largest spread.
    Shuffles, not rotations: relatives that always moved together would share what one teaches about the other.
    """
    first, rng = tuple(languages), random.Random(seed)

    def shuffled() -> tuple[str, ...]:
        return tuple(rng.sample(first, len(first)))

    def least_spread(orders: Sequence[tuple[str, ...]]) -> int:
        ranks = [[order.index(language) for order in orders] for language in first]
        return min(max(each) - min(each) for each in ranks)

    return max(((first, *(shuffled() for _ in range(count - 1))) for _ in range(SHUFFLES)), key=least_spread)


# --------------------------------------------------------------------------- the sweep


def sweep(
    scorer: Scorer,
    out: Path,
    *,
    skews: Sequence[float],
    orders: Sequence[tuple[str, ...]],
    recipe: ModelRecipe,
    seed: int,
    say: Say,
) -> tuple[SweptDrafter, ...]:
    """A drafter for every skew and order, trained and scored; what is finished in `out` is not repeated.

    Each has a seed of its own, so that drafters differ by chance as well, also those of skew 0.
    """
    found = []
    cells = [(skew, number, order) for skew in skews for number, order in enumerate(orders, 1)]
    for done, (skew, number, order) in enumerate(cells, 1):
        own = zlib.crc32(f"{seed}/{skew}/{','.join(order)}".encode())
        name = f"skew-{skew:g}-order-{number}"
        model = replace(recipe, skew=float(skew), seed=own)
        weights = _train(scorer, out / name, model, order, say)
        found.append(_score(scorer, out / name, model, order, weights))
        means = [found[-1].alpha[each] / found[-1].contexts[each] for each in order]
        say(f"{name}: {done} of {len(cells)}; acceptance {means[0]:.2f} ({order[0]}) … {means[-1]:.2f} ({order[-1]})")
    return tuple(found)


def _train(scorer: Scorer, folder: Path, recipe: ModelRecipe, order: tuple[str, ...], say: Say) -> Sha256:
    """The hash of the drafter's weights. Raises `FairspecError` where another drafter is there."""
    codec = scorer.context.codec
    plan = TrainingPlan(
        recipe=recipe,
        positions=int(scorer.context.verifier.hf.config.max_position_embeddings),
        text=BUILT_IN_TEXT,
        order=order,
        tokenizer_sha256=codec.tokenizer_sha256,
    )
    shares = zipf(order, recipe.skew)
    return train_model(
        folder, plan, codec.tokenizer, lambda: source(codec.tokenizer, shares, recipe.batch, recipe.seed), say
    )


def _score(scorer: Scorer, folder: Path, recipe: ModelRecipe, order: tuple[str, ...], weights: Sha256) -> SweptDrafter:
    """The drafter's score, from its folder if it is of these weights and references."""
    path, references = folder / "score.json", references_sha256(scorer.references)
    if path.exists():
        kept = read_record(path, SweptDrafter)
        if (kept.weights_sha256, kept.references_sha256) == (weights, references):
            return kept
    languages = sorted(order)
    alpha, contexts = dict.fromkeys(languages, 0.0), dict.fromkeys(languages, 0)
    for line in scorer.replay(load_drafter("model", str(folder), None, scorer.context.verifier)):
        language = PromptKey(line.key).language
        alpha[language] += line.alpha
        contexts[language] += line.contexts
    swept = SweptDrafter(
        name=folder.name,
        skew=recipe.skew,
        order=order,
        seed=recipe.seed,
        weights_sha256=weights,
        references_sha256=references,
        shares=zipf(order, recipe.skew),
        alpha=alpha,
        contexts=contexts,
    )
    write_record(path, swept)
    return swept


def references_sha256(references: Sequence[Reference]) -> Sha256:
    """SHA-256 of all prompts and continuations."""
    lines = (f"{reference.key}\x1f{reference.prompt_sha}\x1f{reference.ids}\x1e" for reference in references)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# --------------------------------------------------------------------------- the regression


def outcomes(drafters: Sequence[SweptDrafter]) -> tuple[Array, Array, Array]:
    """Log shares, acceptances and their logits, `[drafters, languages]`, languages in alphabetical order.

    The logit is of (Σ alpha + ½) / (contexts + 1), which is finite at 0 and 1.
    """
    languages = sorted(drafters[0].shares)

    def table(kept: Iterable[Mapping[str, float]]) -> Array:
        return np.array([[each[language] for language in languages] for each in kept], dtype=np.float64)

    shares = table(drafter.shares for drafter in drafters)
    alpha, contexts = table(drafter.alpha for drafter in drafters), table(drafter.contexts for drafter in drafters)
    smoothed = (alpha + 0.5) / (contexts + 1)
    return np.log(shares), alpha / contexts, np.log(smoothed / (1 - smoothed))


def fit(
    outcome: Literal["acceptance", "logit acceptance"], log_share: Array, value: Array, replicates: int, seed: int
) -> Fit:
    """The outcome `[drafters, languages]` on log shares with an own level for every language.

    The interval is by bootstrap over whole drafters, whose languages share one budget and one chance of training, its
    deviations stretched by √(n/(n−1))·t/z as for few clusters elsewhere (simulated: .93–.95 at 18 drafters; plain
    percentiles .91–.93).
    """
    count = len(value)
    total = float(((value - value.mean()) ** 2).sum())
    if total <= FLAT:
        raise FairspecError("causal: every drafter has one acceptance in every language. Train them longer.")
    x, y = log_share - log_share.mean(axis=0), value - value.mean(axis=0)
    slope = common_slope(log_share, value)
    drawn = _slopes(log_share, value, replicates, seed)
    stretch = math.sqrt(count / (count - 1)) * stats.t.isf(TAIL, count - 1) / stats.norm.isf(TAIL)
    low, high = slope + stretch * (np.quantile(drawn, [TAIL, 1 - TAIL]) - slope)
    both = 1 - float(((y - slope * x) ** 2).sum()) / total
    language_alone = 1 - float((y**2).sum()) / total
    share_alone = float(np.corrcoef(log_share.ravel(), value.ravel())[0, 1] ** 2)
    return Fit(
        outcome=outcome,
        slope=published(Estimate(value=slope, low=float(low), high=float(high))),
        both=rounded(both),
        by_share=rounded(both - language_alone),
        by_language=rounded(both - share_alone),
        language_alone=rounded(language_alone),
    )


def common_slope(log_share: Array, value: Array) -> float:
    """The least-squares slope within languages, a level of its own for each: `[drafters, languages]` → one number."""
    x, y = log_share - log_share.mean(axis=0), value - value.mean(axis=0)
    return float((x * y).sum() / (x**2).sum())


def _slopes(x: Array, y: Array, replicates: int, seed: int) -> Array:
    """The slope in each replicate of the drafters, those left out in which no share varies."""
    count = len(x)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)
    mean_x, mean_y = weights @ x / count, weights @ y / count
    above = weights @ (x * y).sum(axis=1) - count * (mean_x * mean_y).sum(axis=1)
    below = weights @ (x**2).sum(axis=1) - count * (mean_x**2).sum(axis=1)
    return np.asarray(above[below > FLAT] / below[below > FLAT])


def _effects(languages: Sequence[str], log_share: Array, value: Array) -> dict[str, float]:
    """Each language's acceptance at an equal share, by the fitted slope."""
    slope = common_slope(log_share, value)
    levels = value.mean(axis=0) + slope * (math.log(1 / len(languages)) - log_share.mean(axis=0))
    return {language: rounded(float(level)) for language, level in zip(languages, levels, strict=True)}


# --------------------------------------------------------------------------- page and plot


def describe(causal: Causal) -> str:
    """The result as Markdown: the fits, the languages, the drafters."""
    doubling = Estimate(**{name: None if v is None else v * math.log(2) for name, v in causal.fits[0].slope})
    fits = [
        (f.outcome, cell(f.slope), *(f"{v:.2f}" for v in (f.both, f.by_share, f.by_language, f.language_alone)))
        for f in causal.fits
    ]
    languages = [
        (language, f"{causal.effects[language]:.3f}", *_range(causal, language)) for language in causal.languages
    ]
    drafters = [(d.name, str(d.seed), " ".join(d.order), d.weights_sha256[:12]) for d in causal.drafters]
    return f"""# Training share and acceptance

{len(causal.drafters)} drafters of one recipe ({causal.steps} steps × {causal.batch} documents), scored on the \
verifier's own answers to {causal.limit} {causal.suite} problems in each of {len(causal.languages)} languages.
Doubling a language's share of training adds {cell(doubling)} to its acceptance, the language held fixed.

![Acceptance by training share](causal.svg)

{markdown_table(("outcome", "slope per ln share", "R²", "share adds", "language adds", "language alone"), fits)}

{markdown_table(("language", "acceptance at an equal share", "smallest share", "largest share"), languages)}

{markdown_table(("drafter", "seed", "languages, most to least", "weights"), drafters)}

Intervals: 95 %, {causal.replicates:,} replicates of drafters, seed {causal.bootstrap_seed}. One verifier: the result \
holds for its languages and this recipe.
"""


def _range(causal: Causal, language: str) -> tuple[str, str]:
    shares = [drafter.shares[language] for drafter in causal.drafters]
    return f"{min(shares):.1%}", f"{max(shares):.1%}"


def plot(causal: Causal) -> str:
    """A dot for every drafter and language, and each language's fitted line; an SVG that stands alone."""
    shares, acceptance, _ = outcomes(causal.drafters)
    slope, series = causal.fits[0].slope.value or 0.0, []
    for number, language in enumerate(causal.languages):
        x, y = shares[:, number], acceptance[:, number]
        ends = [(100 * math.exp(at), float(y.mean() + slope * (at - x.mean()))) for at in (x.min(), x.max())]
        points = [(100 * math.exp(at), level) for at, level in zip(x.tolist(), y.tolist(), strict=True)]
        series.append(Series(language, points, hue(number, len(causal.languages)), trend=(ends[0], ends[1])))
    return scatter(
        f"Acceptance by training share, {len(causal.drafters)} drafters",
        "A dot for each drafter and language, lines of one slope and a level for each language.",
        log_axis("share of training", (100 * np.exp(shares)).ravel().tolist(), " %"),
        Axis("acceptance", 0.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        series,
    )
