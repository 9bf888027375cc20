"""Logits must be finite: the argmax of NaN is id 0, a comparison with NaN is False, and neither is an error by itself.

One logit of −inf is a token that is never chosen, which is legal; a context with nothing else, NaN or +inf is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fairspec_bench.schemas.base import FairspecError

NOT_FINITE = "not finite (NaN or infinity)"
HINT = "Try another --dtype, or check the weights."


def finite(peak: Tensor) -> Tensor:
    """Whether logits are finite by the greatest of each context, which NaN is too where there is any: same shape."""
    return peak.abs() < torch.inf


def not_finite(key: str, position: int, model: str, hint: str = HINT) -> FairspecError:
    """The error for the logits of an output position, from 1."""
    return FairspecError(f"{key}, output position {position}: the logits of {model} are {NOT_FINITE}. {hint}")


def check_finite(
    logits: Tensor, counts: Sequence[int], keys: Sequence[str], position: int, model: str, hint: str = HINT
) -> None:
    """Raise `FairspecError` for the first context that is not finite. Waits for the device.

    Args:
        logits: [B, T, V].
        counts: how many contexts of each row count, from its first; 0 or less for none.
        keys: the prompt of each row.
        position: the output position that the first context predicts.
        model: what the message calls the model.
        hint: what to do.
    """
    place = torch.arange(logits.shape[1], device=logits.device)
    wanted = place < torch.tensor(counts, device=logits.device)[:, None]
    bad = ~finite(logits.amax(-1)) & wanted
    if bool(bad.any()):
        row, first = bad.nonzero()[0].tolist()
        raise not_finite(keys[row], position + first, model, hint)
