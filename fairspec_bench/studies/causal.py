"""Is it the training share that slows a language, or the language? Drafters whose shares are set by us.

For one verifier, drafters are trained that differ only in how much of which language they saw: a skew, and the order of
languages along which it falls. Because every language has large and small shares, acceptance can be split into what
belongs to the language and what to its share. Knows training, scoring by replay and one regression; the folder it fills
can be left and continued at any drafter.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats

from fairspec_bench.codec import Codec
from fairspec_bench.engine.drafters import load_drafter
from fairspec_bench.engine.model import Model, load_model
from fairspec_bench.measure.bootstrap import TAIL, Array
from fairspec_bench.measure.show import cell
from fairspec_bench.measure.table import published, rounded
from fairspec_bench.records import (
    Encoded,
    Estimate,
    FairspecError,
    Record,
    Rule,
    Sha256,
    Trace,
    read_record,
    write_atomic,
    write_record,
)
from fairspec_bench.score.reference import continuations
from fairspec_bench.score.replay import replay
from fairspec_bench.suite.tasks import load_suite
from fairspec_bench.testbed.corpus import source, zipf
from fairspec_bench.testbed.pair import EMBEDDED, ORDER, Recipe, Say, save
from fairspec_bench.testbed.trainer import build, train

SKEWS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
ORDERS = 3
SHUFFLES = 2000
SUITE = "embedded_math"
REPLICATES = 10_000
GREEDY = Rule()
FLAT = 1e-9
"""A sum of squares of log shares that rounding alone may leave."""


class Drafted(Record):
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
    drafters: tuple[Drafted, ...]
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
    recipe: Recipe = EMBEDDED.drafter,
    batch_size: int = 48,
    replicates: int = REPLICATES,
    seed: int = 0,
    say: Say = print,
) -> Causal:
    """Sweep skews × orders, fit, and write `causal.json`, `causal.md` and `causal.svg` into `out`.

    `verifier` is the folder of a model and its tokenizer, `recipe` how each drafter is trained (its skew and seed are
    set here), `orders` default to three in which every language is common once and rare once. The same call goes on
    where it was stopped. Raises `FairspecError` for a sweep that can show nothing and for a folder of another one.
    """
    chosen = tuple(map(tuple, spread_orders(ORDER, ORDERS, seed) if orders is None else orders))
    _check(skews, chosen)
    bench = make_bench(verifier, sorted(chosen[0]), limit, cache=out / "references", batch_size=batch_size, say=say)
    drafters = sweep(bench, out / "drafters", skews=skews, orders=chosen, recipe=recipe, seed=seed, say=say)
    shares, acceptance, logits = outcomes(drafters)
    causal = Causal(
        verifier_sha256=bench.verifier.weights_sha256,
        suite=SUITE,
        limit=limit,
        steps=recipe.schedule.steps,
        batch=recipe.batch,
        languages=bench.languages,
        drafters=drafters,
        fits=(
            fit("acceptance", shares, acceptance, replicates, seed),
            fit("logit acceptance", shares, logits, replicates, seed),
        ),
        effects=_effects(bench.languages, shares, acceptance),
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
    """The order given and `count` − 1 shuffles of it, such that every language is both common and rare.

    Of many seeded sets of shuffles, that in which the language whose ranks spread least has the largest spread.
    Shuffles, not rotations: relatives that always moved together would share what one teaches about the other.
    """
    given, rng = tuple(languages), random.Random(seed)

    def shuffled() -> tuple[str, ...]:
        return tuple(rng.sample(given, len(given)))

    def least_spread(orders: Sequence[tuple[str, ...]]) -> int:
        ranks = [[order.index(language) for order in orders] for language in given]
        return min(max(each) - min(each) for each in ranks)

    return max(((given, *(shuffled() for _ in range(count - 1))) for _ in range(SHUFFLES)), key=least_spread)


# --------------------------------------------------------------------------- what all drafters are scored on


@dataclass(frozen=True)
class Bench:
    """The verifier, its tokenizer, and its own continuations of the test prompts."""

    verifier: Model
    codec: Codec
    languages: tuple[str, ...]
    encoded: tuple[Encoded, ...]
    traces: tuple[Trace, ...]
    batch_size: int

    @property
    def references_sha256(self) -> Sha256:
        """SHA-256 of all prompts and continuations."""
        lines = (f"{trace.key}\x1f{trace.prompt_sha}\x1f{trace.ids}\x1e" for trace in self.traces)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def make_bench(
    verifier: Path, languages: Sequence[str], limit: int, *, cache: Path, batch_size: int, say: Say
) -> Bench:
    """The first `limit` test prompts of each language, continued greedily by the verifier; kept in `cache`."""
    model, codec = load_model(str(verifier)), Codec(str(verifier))
    encoded: list[Encoded] = []
    traces: list[Trace] = []
    for language in languages:
        prompts = load_suite(SUITE, languages=[language], limit=limit).prompts
        asked = [codec.encode(prompt) for prompt in prompts]
        traces += continuations(
            model,
            codec,
            prompts,
            asked,
            rule=GREEDY,
            batch_size=batch_size,
            seed=0,
            shard=f"causal/{language}",
            cache=cache,
        )
        encoded += asked
        say(f"references: {language}, {len(prompts)} prompts")
    return Bench(model, codec, tuple(languages), tuple(encoded), tuple(traces), batch_size)


# --------------------------------------------------------------------------- the sweep


def sweep(
    bench: Bench,
    out: Path,
    *,
    skews: Sequence[float],
    orders: Sequence[tuple[str, ...]],
    recipe: Recipe,
    seed: int,
    say: Say,
) -> tuple[Drafted, ...]:
    """A drafter for every skew and order, trained and scored; what is finished in `out` is taken as it is.

    Each has a seed of its own, so that drafters differ by chance as well, also those of skew 0.
    """
    found = []
    cells = [(skew, place, order) for skew in skews for place, order in enumerate(orders, 1)]
    for number, (skew, place, order) in enumerate(cells, 1):
        own = zlib.crc32(f"{seed}/{skew}/{','.join(order)}".encode())
        name = f"skew-{skew:g}-order-{place}"
        member = replace(recipe, skew=float(skew), seed=own)
        weights = _trained(bench, out / name, member, order, say)
        found.append(_scored(bench, out / name, member, order, weights))
        means = [found[-1].alpha[each] / found[-1].contexts[each] for each in order]
        say(f"{name}: {number} of {len(cells)}; acceptance {means[0]:.2f} ({order[0]}) … {means[-1]:.2f} ({order[-1]})")
    return tuple(found)


def _trained(bench: Bench, folder: Path, member: Recipe, order: tuple[str, ...], say: Say) -> Sha256:
    """The hash of the drafter's weights, trained if need be. Raises `FairspecError` for another drafter there."""
    facts: dict[str, Any] = {
        "recipe": asdict(member),
        "order": list(order),
        "tokenizer_sha256": bench.codec.tokenizer_sha256,
    }
    path = folder / "recipe.json"
    if not path.exists():
        tokenizer, checkpoint = bench.codec.tokenizer, folder.parent / f".{folder.name}.pt"
        positions = int(bench.verifier.hf.config.max_position_embeddings)
        model = build(member.shape, len(tokenizer), positions, member.seed)
        batches = source(tokenizer, zipf(order, member.skew), member.batch, member.seed)
        train(model, batches, member.schedule, checkpoint=checkpoint, say=lambda line: say(f"{folder.name}: {line}"))
        save(model, tokenizer, folder, {**facts, "torch": torch.__version__})
        checkpoint.unlink(missing_ok=True)
    made = json.loads(path.read_text(encoding="utf-8"))
    for name, value in facts.items():
        if made.get(name) != value:
            raise FairspecError(f"{folder}: holds a drafter of another {name}. Choose another folder.")
    return str(made["weights_sha256"])


def _scored(bench: Bench, folder: Path, member: Recipe, order: tuple[str, ...], weights: Sha256) -> Drafted:
    """The drafter's score on the bench, made if need be."""
    path, references = folder / "score.json", bench.references_sha256
    if path.exists():
        kept = read_record(path, Drafted)
        if (kept.weights_sha256, kept.references_sha256) == (weights, references):
            return kept
    drafter = load_drafter("model", str(folder), None, bench.verifier)
    alpha, contexts = dict.fromkeys(bench.languages, 0.0), dict.fromkeys(bench.languages, 0)
    replays = replay(
        bench.verifier,
        drafter,
        bench.encoded,
        bench.traces,
        rule=GREEDY,
        seed=0,
        batch_size=bench.batch_size,
        shard="causal",
    )
    for line in replays:
        language = line.key.split("/")[1]
        alpha[language] += line.alpha
        contexts[language] += line.contexts
    drafted = Drafted(
        name=folder.name,
        skew=member.skew,
        order=order,
        seed=member.seed,
        weights_sha256=weights,
        references_sha256=references,
        shares=zipf(order, member.skew),
        alpha=alpha,
        contexts=contexts,
    )
    write_record(path, drafted)
    return drafted


# --------------------------------------------------------------------------- the regression


def outcomes(drafters: Sequence[Drafted]) -> tuple[Array, Array, Array]:
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


# --------------------------------------------------------------------------- for eyes


def describe(causal: Causal) -> str:
    """The result as Markdown: the fits, the languages, the drafters."""
    plain = causal.fits[0]
    doubling = Estimate(**{name: None if v is None else v * math.log(2) for name, v in plain.slope})
    lines = [
        "# Training share and acceptance",
        "",
        f"{len(causal.drafters)} drafters of one recipe ({causal.steps} steps × {causal.batch} documents), scored on "
        f"the verifier's own answers to {causal.limit} {causal.suite} problems in each of {len(causal.languages)} "
        "languages.",
        f"Doubling a language's share of training adds {cell(doubling)} to its acceptance, the language held fixed.",
        "",
        "![Acceptance by training share](causal.svg)",
        "",
        *_table(
            ("outcome", "slope per ln share", "R²", "share adds", "language adds", "language alone"),
            [
                (f.outcome, cell(f.slope), *(f"{v:.2f}" for v in (f.both, f.by_share, f.by_language, f.language_alone)))
                for f in causal.fits
            ],
        ),
        "",
        *_table(
            ("language", "acceptance at an equal share", "smallest share", "largest share"),
            [(language, f"{causal.effects[language]:.3f}", *_range(causal, language)) for language in causal.languages],
        ),
        "",
        *_table(
            ("drafter", "seed", "languages, most to least", "weights"),
            [(d.name, str(d.seed), " ".join(d.order), d.weights_sha256[:12]) for d in causal.drafters],
        ),
        "",
        f"Intervals: 95 %, {causal.replicates:,} replicates of drafters, seed {causal.bootstrap_seed}. One verifier: "
        "what is said is of its languages and this recipe.",
    ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _range(causal: Causal, language: str) -> tuple[str, str]:
    shares = [drafter.shares[language] for drafter in causal.drafters]
    return f"{min(shares):.1%}", f"{max(shares):.1%}"


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 56, 44, 14, 46


def plot(causal: Causal) -> str:
    """A dot for every drafter and language, and each language's fitted line; an SVG that stands alone."""
    shares, acceptance, _ = outcomes(causal.drafters)
    slope = causal.fits[0].slope.value or 0.0
    first, last = float(shares.min()), float(shares.max())

    def across(log_share: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (log_share - first) / (last - first)

    def down(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(value, 0.0), 1.0))

    body = _axes(first, last, across, down)
    ends = []
    for place, language in enumerate(causal.languages):
        x, y = shares[:, place], acceptance[:, place]
        colour = f"hsl({round(360 * place / len(causal.languages))} 65% 45%)"
        line = [(at, float(y.mean() + slope * (at - x.mean()))) for at in (float(x.min()), float(x.max()))]
        (x1, y1), (x2, y2) = ((across(at), down(level)) for at, level in line)
        body.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>')
        body += [
            f'<circle cx="{across(at):.1f}" cy="{down(level):.1f}" r="3" fill="{colour}">'
            f"<title>{escape(language)}: share {math.exp(at):.2%}, acceptance {level:.3f}</title></circle>"
            for at, level in zip(x.tolist(), y.tolist(), strict=True)
        ]
        ends.append((y2, language, colour))
    body += _labels(ends)
    said = f"Acceptance by training share, {len(causal.drafters)} drafters"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="12" '
        f'font-family="system-ui, sans-serif" fill="currentColor"><title>{said}</title>'
        "<desc>A dot for each drafter and language, lines of one slope and a level for each language.</desc>"
        f"{''.join(body)}</svg>\n"
    )


def _axes(first: float, last: float, across: Callable[[float], float], down: Callable[[float], float]) -> list[str]:
    bottom = down(0.0)
    parts = []
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        y = down(tick)
        parts.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="currentColor" opacity=".15"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    ticks = (share for share in (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0))
    for share in (share for share in ticks if first <= math.log(share) <= last):
        x = across(math.log(share))
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{100 * share:g} %</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">share of training (log)</text>')
    parts.append(f'<text x="14" y="{down(0.5):.1f}" transform="rotate(-90 14 {down(0.5):.1f})">acceptance</text>')
    return parts


def _labels(ends: Sequence[tuple[float, str, str]]) -> list[str]:
    """The languages' names at the right, moved down where they would touch."""
    parts, free = [], -math.inf
    for y, language, colour in sorted(ends):
        y = max(y, free)
        free = y + 12
        parts.append(f'<text x="{WIDTH - RIGHT + 6}" y="{y + 4:.1f}" fill="{colour}">{escape(language)}</text>')
    return parts
