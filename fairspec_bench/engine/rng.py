"""Randomness as a pure function of (seed, stream, position, purpose).

A counter-based generator (SplitMix64, Steele et al. 2014, chained once per argument) on int64 tensors. No state: the
same arguments give the same bits in any batch, order or γ and on any device.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor


class Purpose(IntEnum):
    """What a number is for. Draws at one position are independent only if their purposes differ."""

    DRAFT = 1
    ACCEPT = 2
    TARGET = 3
    ORACLE = 4


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


_STEP, _MIX1, _MIX2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift(bits: Tensor, by: int) -> Tensor:
    """Logical right shift: torch's keeps the sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def _absorb(state: Tensor, value: Tensor) -> Tensor:
    """Output number `value` of the SplitMix64 generator whose state is `state`."""
    bits = state + (value + 1) * _STEP
    bits = (bits ^ _shift(bits, 30)) * _MIX1
    bits = (bits ^ _shift(bits, 27)) * _MIX2
    return bits ^ _shift(bits, 31)


def keys(seed: int, stream: Tensor, position: Tensor, purpose: Purpose) -> Tensor:
    """64 random bits for each (stream, position): int64, broadcast, → int64 of their common shape."""
    state = _absorb(torch.zeros_like(stream), torch.full_like(stream, _signed(seed)))
    state = _absorb(_absorb(state, stream), position)
    return _absorb(state, torch.full_like(state, int(purpose)))


def uniform(key: Tensor) -> Tensor:
    """Uniform on [0, 1) in steps of 2⁻⁵³: int64 [...] → float64 [...]. Never 1, so `u < 1` always holds."""
    return _shift(key, 11).double() * 2.0**-53


def exponential(key: Tensor, size: int) -> Tensor:
    """`size` independent Exp(1) numbers per key, never 0: int64 [...] → float64 [..., size]."""
    bits = _absorb(key[..., None], torch.arange(size, device=key.device))
    return -((_shift(bits, 12).double() + 0.5) * 2.0**-52).log()
