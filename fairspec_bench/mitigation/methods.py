"""The mitigation methods, each one entry in `METHODS`: trained (weights × loss × sampling) or fitted without training.

An entry names its parts; the functions themselves are looked up when they are needed, so that names and titles can be
read without torch. A method that needs each prompt's task when the drafter is *used*, not only when it is fine-tuned,
is marked `task_aware`: it cannot serve mixed or unlabelled traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fairspec_bench.schemas.base import FairspecError

if TYPE_CHECKING:
    from fairspec_bench.mitigation.fitted import FitFunction
    from fairspec_bench.mitigation.losses import Loss
    from fairspec_bench.mitigation.weights import WeightFunction


@dataclass(frozen=True)
class Trained:
    """Gradient descent on Σ_T w_T · (mean loss of task T).

    `weights` and `loss` are names in `WEIGHTS` and `LOSSES`. `tau` None: stratified batches; else tasks are drawn with
    probability ∝ share^(1/tau), and w_T is multiplied by how many of the batch's examples are of T: drawn twice, a task
    counts twice.
    """

    title: str
    weights: str
    loss: str
    tau: float | None = None
    task_aware: Literal[False] = False

    @property
    def weight_function(self) -> WeightFunction:
        """Its entry in `WEIGHTS`."""
        from fairspec_bench.mitigation.weights import WEIGHTS

        return WEIGHTS[self.weights]

    @property
    def loss_function(self) -> Loss:
        """Its entry in `LOSSES`."""
        from fairspec_bench.mitigation.losses import LOSSES

        return LOSSES[self.loss]


@dataclass(frozen=True)
class Fitted:
    """No training: `fit`, a name in `FITS`, writes a file beside the drafter's weights or instead of them."""

    title: str
    fit: str
    keeps_weights: bool
    task_aware: bool = True

    @property
    def fit_function(self) -> FitFunction:
        """Its entry in `FITS`."""
        from fairspec_bench.mitigation.fitted import FITS

        return FITS[self.fit]


Method = Trained | Fitted

XLM_TAU = 1 / 0.3
"""Shares to the power .3, as XLM-R balanced its languages (1911.02116)."""

METHODS: Mapping[str, Method] = {
    "s-cdf": Trained("s-CDF: KL weighted by each task's excess misfit", "excess", "kl"),
    "s-cdf-raw": Trained("s-CDF with unnormalised weights", "excess_raw", "kl"),
    "s-cdf-floor": Trained("s-CDF with a tenth of the weight spread evenly", "excess_floor", "kl"),
    "s-cdf-full": Trained("s-CDF with the gradient of the least misfit kept", "excess_full", "kl"),
    "s-cdf-ce": Trained("s-CDF with cross-entropy gaps", "excess", "cross_entropy"),
    "uniform": Trained("distillation: KL, every task alike", "equal", "kl"),
    "group-dro": Trained("KL, weight on the worst task (group DRO)", "group_dro", "kl"),
    "tv": Trained("total variation, every task alike", "equal", "tv"),
    "tv-excess": Trained("total variation weighted by each task's excess", "excess", "tv"),
    "log-alpha": Trained("−ln acceptance, every task alike", "equal", "neg_log_alpha"),
    "log-alpha-excess": Trained("−ln acceptance weighted by each task's excess", "excess", "neg_log_alpha"),
    "rkl": Trained("reverse KL, every task alike", "equal", "rkl"),
    "jsd": Trained("Jensen–Shannon divergence, every task alike", "equal", "jsd"),
    "kl-tv": Trained("KL and total variation blended by acceptance (LK losses), every task alike", "equal", "kl_tv"),
    "balanced-ce": Trained("cross-entropy on the verifier's tokens, every task alike", "equal", "token"),
    "resample": Trained("KL, tasks drawn by share^0.3 (data balancing)", "equal", "kl", XLM_TAU),
    "natural": Trained("KL, tasks drawn by their natural share", "equal", "kl", 1.0),
    "temperature": Fitted("a drafter temperature for each task", "temperature", True),
    "ngram": Fitted("a smoothed n-gram model for each task", "ngram", False),
}


def find(name: str) -> Method:
    """The method of this name. Raises `FairspecError`."""
    if name not in METHODS:
        raise FairspecError(f"--method {name}: unknown. Known: {', '.join(METHODS)}.")
    return METHODS[name]
