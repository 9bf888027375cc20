"""The ways to mend a drafter, each one entry in `METHODS`: trained (weights × loss × sampling) or fitted without.

Knows their names and what each is made of. A method that must be told which task a prompt is of when the drafter is
*used*, not only when it is mended, is marked `task_aware`: it cannot serve mixed or unlabelled traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fairspec_bench.mitigation.losses import LOSSES, Loss
from fairspec_bench.mitigation.weights import WEIGHTS, Weigh
from fairspec_bench.records import FairspecError


@dataclass(frozen=True)
class Trained:
    """Gradient descent on Σ_T w_T · (mean loss of task T). `tau` None: stratified batches, else drawn by share."""

    title: str
    weights: str
    loss: str
    tau: float | None = None
    task_aware: Literal[False] = False

    @property
    def weigh(self) -> Weigh:
        """Its entry in `WEIGHTS`."""
        return WEIGHTS[self.weights]

    @property
    def loss_of(self) -> Loss:
        """Its entry in `LOSSES`."""
        return LOSSES[self.loss]


@dataclass(frozen=True)
class Fitted:
    """No training: numbers fitted to the corpus, kept beside the weights (`temperature`) or instead (`ngram`)."""

    title: str
    fit: Literal["temperature", "ngram"]
    keeps_weights: bool
    task_aware: Literal[True] = True


Method = Trained | Fitted

XLM_TAU = 1 / 0.3
"""Shares to the power .3, as XLM-R balanced its languages (1911.02116)."""

METHODS: Mapping[str, Method] = {
    "s-cdf": Trained("s-CDF: KL weighted by each task's excess misfit", "excess", "kl"),
    "s-cdf-raw": Trained("s-CDF with unnormalised weights", "excess_raw", "kl"),
    "s-cdf-floor": Trained("s-CDF with a tenth of the weight spread evenly", "excess_floor", "kl"),
    "s-cdf-ce": Trained("s-CDF with cross-entropy gaps", "excess", "cross_entropy"),
    "uniform": Trained("distillation: KL, every task alike", "equal", "kl"),
    "group-dro": Trained("KL, weight on the worst task (group DRO)", "group_dro", "kl"),
    "tv": Trained("total variation, every task alike", "equal", "tv"),
    "tv-excess": Trained("total variation weighted by each task's excess", "excess", "tv"),
    "log-alpha": Trained("−ln acceptance, every task alike", "equal", "neg_log_alpha"),
    "log-alpha-excess": Trained("−ln acceptance weighted by each task's excess", "excess", "neg_log_alpha"),
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
