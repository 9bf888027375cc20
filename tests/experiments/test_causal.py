"""The regression on planted effects, the orders, and a small sweep that is resumed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fairspec_bench.experiments import causal
from fairspec_bench.experiments.causal import SKEWS, Causal, common_slope, fit, run_causal, spread_orders
from fairspec_bench.models.hub import locate
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import read_record
from fairspec_bench.testbed.corpus import zipf
from fairspec_bench.testbed.pair import ORDER, ModelRecipe
from fairspec_bench.testbed.trainer import Schedule, Shape

LEVELS = np.linspace(0.4, 0.8, len(ORDER))
SPREAD = spread_orders(ORDER, 3, 0)
MIXES = [zipf(order, skew) for skew in SKEWS for order in SPREAD]
SHARES = np.log([[mix[language] for language in sorted(ORDER)] for mix in MIXES])


def made_up(slope: float, *, levels: np.ndarray = LEVELS, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Log shares of the default sweep and acceptances of a planted slope; noise of a drafter and of each language."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(0, 0.02, (len(SHARES), 1)) + generator.normal(0, 0.02, SHARES.shape)
    return SHARES, levels + slope * SHARES + noise


# --------------------------------------------------------------------------- the regression


def test_a_planted_slope_is_recovered() -> None:
    slopes = [common_slope(*made_up(0.05, seed=seed)) for seed in range(50)]
    assert np.mean(slopes) == pytest.approx(0.05, abs=0.002)
    found = fit("acceptance", *made_up(0.05), 2000, 0)
    assert found.slope.value == pytest.approx(slopes[1])
    assert found.slope.low is not None
    assert found.slope.high is not None
    assert 0.03 < found.slope.low < 0.05 < found.slope.high < 0.07
    assert found.both > 0.9
    assert found.by_share > 0.15


def test_where_acceptance_depends_on_the_language_only_the_slope_covers_0() -> None:
    found = fit("acceptance", *made_up(0.0), 2000, 0)
    assert found.slope.low is not None
    assert found.slope.high is not None
    assert found.slope.low < 0 < found.slope.high
    assert found.by_share < 0.01
    assert found.by_language > 0.8


def test_language_identity_is_held_apart() -> None:
    """Languages that are common in most orders are good anyway: a fit without their levels would blame the share."""
    shares, value = made_up(0.0, levels=0.3 * SHARES.mean(axis=0))
    pooled = np.polyfit(shares.ravel(), value.ravel(), 1)[0]
    assert pooled > 0.02
    assert common_slope(shares, value) == pytest.approx(0, abs=0.005)


def test_the_slope_is_that_of_least_squares_with_a_dummy_for_each_language() -> None:
    shares, value = made_up(0.03, seed=5)
    drafters, languages = shares.shape
    dummies = np.tile(np.eye(languages), (drafters, 1))
    solved, residue, _, _ = np.linalg.lstsq(np.column_stack([shares.ravel(), dummies]), value.ravel(), rcond=None)
    found = fit("acceptance", shares, value, 100, 0)
    assert found.slope.value == pytest.approx(solved[0])
    assert found.both == pytest.approx(1 - residue[0] / ((value - value.mean()) ** 2).sum())
    assert 0 <= found.by_share <= found.both
    assert found.by_share + found.language_alone == pytest.approx(found.both)


def test_the_interval_is_over_drafters() -> None:
    covered, wide = 0, []
    for seed in range(200):
        slope = fit("acceptance", *made_up(0.04, seed=seed), 400, seed).slope
        assert slope.low is not None
        assert slope.high is not None
        covered += slope.low <= 0.04 <= slope.high
        wide.append(slope.high - slope.low)
    assert 0.91 <= covered / 200 <= 0.985
    assert np.mean(wide) < 0.012


def test_the_same_everywhere_is_refused() -> None:
    shares, value = made_up(0.0)
    with pytest.raises(FairspecError, match="Train them longer"):
        fit("acceptance", shares, np.full_like(value, 0.5), 10, 0)


def test_every_language_is_common_in_one_order_and_rare_in_another() -> None:
    assert SPREAD[0] == ORDER
    assert spread_orders(ORDER, 3, 0) == SPREAD
    assert {frozenset(order) for order in SPREAD} == {frozenset(ORDER)}
    for language in ORDER:
        ranks = [order.index(language) for order in SPREAD]
        assert max(ranks) - min(ranks) >= 5, language
        shares = [zipf(order, 2.0)[language] for order in SPREAD]
        assert max(shares) / min(shares) > 3, language


# --------------------------------------------------------------------------- a small sweep

SMALL = ModelRecipe(Shape(32, 1, 2, 1, 16, 64), Schedule(2, 24, 10, 0.03, 6e-3), 8, 0.0, 0)
LANGUAGES = ("de", "en", "te")
TWO_ORDERS = (("de", "en", "te"), ("te", "en", "de"))
OPTIONS = {"limit": 3, "skews": (0.5, 2.5), "orders": TWO_ORDERS, "recipe": SMALL, "replicates": 200}


@pytest.fixture(scope="module")
def verifier() -> Path:
    return locate("embedded:verifier").folder


@pytest.fixture(scope="module")
def swept(verifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("causal")
    run_causal(out, verifier=verifier, say=lambda line: None, **OPTIONS)  # type: ignore[arg-type]
    return out


def test_the_sweep_holds_every_cell_and_what_it_was_made_of(swept: Path) -> None:
    found = read_record(swept / "causal.json", Causal)
    assert [(each.skew, each.order) for each in found.drafters] == [(s, o) for s in (0.5, 2.5) for o in TWO_ORDERS]
    assert len({each.seed for each in found.drafters}) == 4
    assert len({each.weights_sha256 for each in found.drafters}) == 4
    assert found.languages == LANGUAGES
    for each in found.drafters:
        assert each.shares == zipf(each.order, each.skew)
        assert all(0 <= each.alpha[one] <= each.contexts[one] for one in LANGUAGES)
        assert each.contexts == found.drafters[0].contexts, "the same prompts for all"
        recipe = json.loads((swept / "drafters" / each.name / "recipe.json").read_text())
        assert recipe["weights_sha256"] == each.weights_sha256
        assert recipe["recipe"]["skew"] == each.skew
        assert recipe["order"] == list(each.order)


def test_the_fits_are_those_of_the_recorded_scores(swept: Path) -> None:
    found = read_record(swept / "causal.json", Causal)
    shares = np.log([[each.shares[one] for one in LANGUAGES] for each in found.drafters])
    value = np.array([[each.alpha[one] / each.contexts[one] for one in LANGUAGES] for each in found.drafters])
    assert found.fits[0] == fit("acceptance", shares, value, 200, 0)
    assert found.fits[1].outcome == "logit acceptance"


def test_table_and_plot_show_every_drafter_and_language(swept: Path) -> None:
    words = (swept / "causal.md").read_text(encoding="utf-8")
    assert "| skew-2.5-order-2 |" in words
    assert all(f"| {language} |" in words for language in LANGUAGES)
    assert "(causal.svg)" in words
    picture = ElementTree.parse(swept / "causal.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    assert len(list(picture.iter(f"{name}circle"))) == 4 * len(LANGUAGES)
    assert {text.text for text in picture.iter(f"{name}text")} >= set(LANGUAGES)
    assert "http" not in (swept / "causal.svg").read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")


def test_what_is_finished_is_not_made_again(
    verifier: Path, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "again"
    shutil.copytree(swept, out)
    lost = out / "drafters" / "skew-2.5-order-1"
    shutil.rmtree(lost)
    trained: list[object] = []
    real = causal.source

    def seen(tokenizer: object, mix: object, batch: int, seed: int) -> object:
        trained.append(mix)
        return real(tokenizer, mix, batch, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(causal, "source", seen)
    run_causal(out, verifier=verifier, say=lambda line: None, **OPTIONS)  # type: ignore[arg-type]
    assert trained == [zipf(TWO_ORDERS[0], 2.5)], "the missing drafter alone, on its own mix"
    for name in ("causal.json", "causal.md", "causal.svg", "drafters/skew-2.5-order-1/model.safetensors"):
        assert (out / name).read_bytes() == (swept / name).read_bytes()
    fewer = dict(OPTIONS, limit=2)
    found = run_causal(out, verifier=verifier, say=lambda line: None, **fewer)  # type: ignore[arg-type]
    assert len(trained) == 1, "other prompts need no other drafters"
    assert found.drafters[0].contexts != read_record(swept / "causal.json", Causal).drafters[0].contexts


def test_another_recipe_in_the_folder_is_refused(verifier: Path, swept: Path) -> None:
    other = dict(OPTIONS, recipe=replace(SMALL, batch=4))
    with pytest.raises(FairspecError, match=r"holds another training \(recipe.batch: 8 there, 4 here\)") as caught:
        run_causal(swept, verifier=verifier, say=lambda line: None, **other)  # type: ignore[arg-type]
    assert "skew-0.5-order-1" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"skews": (1.0,)}, "at least 2 skews"),
        ({"orders": TWO_ORDERS[:1]}, "2 orders"),
        ({"skews": (-1.0, 1.0)}, "below 0"),
        ({"orders": (("de", "en"), ("de", "te"))}, "does not hold each"),
        ({"orders": (("de", "en"), ("de", "en", "en"))}, "does not hold each"),
        ({"orders": (("de", "en"), ("xx", "de"))}, "does not hold each"),
    ],
)
def test_a_sweep_that_can_show_nothing_is_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    with pytest.raises(FairspecError, match=says):
        run_causal(tmp_path, verifier=tmp_path, say=lambda line: None, **{**OPTIONS, **change})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
