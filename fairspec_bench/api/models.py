"""Models and pairs: loaded, listed, pinned to a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairspec_bench.api.options import check_model, run_options
from fairspec_bench.schemas.base import unknown
from fairspec_bench.schemas.options import Arguments, check_values

if TYPE_CHECKING:
    from fairspec_bench.engine.drafters.base import Drafter
    from fairspec_bench.models.model import Model
    from fairspec_bench.suites.pairs import Pair, Pinned


def load_pair(
    verifier: str,
    drafter: str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    model_args: Arguments | None = None,
    drafter_args: Arguments | None = None,
) -> tuple[Model, Drafter]:
    """A verifier and its drafter, checked to fit each other. Raises `FairspecError`."""
    given: dict[str, Any] = {"model_args": model_args, "drafter_args": drafter_args, "dtype": dtype, "device": device}
    options = run_options(verifier, drafter, (), **given)
    check_values(options)
    check_model(verifier)
    from fairspec_bench.scoring.prepare import load_run_drafter, load_run_verifier

    loaded = load_run_verifier(options)
    found = load_run_drafter(options, loaded)
    assert found is not None
    return loaded, found


def list_pairs() -> tuple[Pair, ...]:
    """The pairs of models that `reproduce` takes by name. Raises `FairspecError` for a file that is none."""
    from fairspec_bench.suites import pairs

    return pairs.list_pairs()


def pin(name: str) -> tuple[Pinned, ...]:
    """The commits that the models' branches point to on the Hub; those of a pair are written into its file.

    Models of a pair that name a commit keep it and are left out. Raises `FairspecError`.
    """
    from fairspec_bench.models import hub
    from fairspec_bench.suites import pairs

    if name in {pair.name for pair in pairs.list_pairs()}:
        return pairs.pin(name)
    if "/" not in name or not hub.HUB_ID.fullmatch(name):
        raise unknown("pair or Hub id (owner/name)", name, (pair.name for pair in pairs.list_pairs()))
    return (pairs.Pinned(name, hub.resolve(name)),)
