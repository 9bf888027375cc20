"""Linear layers whose weights lie as oneDNN reads them fastest: for few rows, torch's own float32 product is slow.

The packed weights take the place of the plain ones. They are the same numbers; sums may round otherwise, as
they do between any two kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fairspec_bench.schemas.base import FairspecError

PACKS_FROM = 2**25
"""Weights in all linear layers of a model, in numbers, from which packing pays: 128 MiB, more than caches hold."""
ROWS_HINT = 32
"""The rows that oneDNN lays weights out for. Of 1, 5 and 32 the best or equal for 1 to 512 rows."""
CHOICES = ("auto", "on", "off")


class PackedLinear(nn.Linear):
    """A linear layer on weights packed by oneDNN, without gradients: its `weight`, or `beside` a plain one."""

    beside: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        packed = self.weight if self.beside is None else self.beside
        out: Tensor = torch.ops.mkldnn._linear_pointwise(input, packed, self.bias, "none", [], "")
        return out


def is_packed(hf: PreTrainedModel) -> bool:
    """Whether any layer's weights are packed."""
    return any(isinstance(module, PackedLinear) for module in hf.modules())


def packs(choice: str, name: str, hf: PreTrainedModel) -> bool:
    """Whether a loaded model is to be packed: by its option, kind, size and the number of threads, never by a clock.

    On one thread packing slows passes of one or two rows, which would flatter speculation; with several threads such
    passes are expected to be as fast as plain ones, and those of more rows faster (tests/bench/test_engine.py).

    Raises `FairspecError` for an unknown option, and one that cannot be followed.
    """
    if choice not in CHOICES:
        raise FairspecError(f"{name}: packing={choice}: unknown. Known: {', '.join(CHOICES)}.")
    plain = hf.device.type == "cpu" and hf.dtype == torch.float32 and getattr(hf, "hf_quantizer", None) is None
    able = plain and torch.backends.mkldnn.is_available()
    if choice == "on" and not able:
        raise FairspecError(f"{name}: packing=on: only unquantized float32 weights on a CPU are packed. Leave it out.")
    pays = torch.get_num_threads() > 1 and sum(each.weight.numel() for each in _linear(hf)) >= PACKS_FROM
    return able and choice != "off" and (choice == "on" or pays)


@torch.no_grad()
def pack(hf: PreTrainedModel) -> None:
    """Pack every linear layer of a model, one after the other. Weights tied to an embedding stay beside the packed."""
    shared = {id(module.weight) for module in hf.modules() if isinstance(module, nn.Embedding)}
    for layer in _linear(hf):
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().contiguous(), ROWS_HINT)
        tied = id(layer.weight) in shared
        layer.__class__ = PackedLinear
        if tied:
            layer.beside = packed
        else:
            layer.weight = nn.Parameter(packed, requires_grad=False)


def _linear(hf: PreTrainedModel) -> list[nn.Linear]:
    return [module for module in hf.modules() if type(module) is nn.Linear]
