"""The generator: fixed bits, uniform, independent between purposes, positions and streams, the same in any shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from fairspec_bench.engine.backends.compiled import COMPILE_OPTIONS
from fairspec_bench.engine.rng import Purpose, exponential, keys, uniform


def grid(seed: int, streams: int, positions: int, purpose: Purpose) -> torch.Tensor:
    return keys(seed, torch.arange(streams)[:, None].expand(-1, positions), torch.arange(positions)[None], purpose)


def python_key(*values: int) -> int:
    """The same chain in plain integers."""
    mask, state = 2**64 - 1, 0
    for value in values:
        state = (state + (value + 1) * 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, 2**64 + 5])
def test_bits_are_those_of_plain_integers(seed: int) -> None:
    for stream, position in [(0, 1), (7, 300), (2**59, 4096)]:
        key = keys(seed, torch.tensor([stream]), torch.tensor([position]), Purpose.ACCEPT)
        want = python_key(seed, stream, position, Purpose.ACCEPT)
        assert int(key) % 2**64 == want
        assert float(uniform(key)) == (want >> 11) / 2**53


def test_splitmix64_reference_output() -> None:
    """First outputs of SplitMix64 with state 0, as published with xoshiro."""
    assert [python_key(i) for i in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_uniform_and_exponential_laws() -> None:
    u = uniform(grid(3, 400, 500, Purpose.DRAFT)).numpy().ravel()
    assert (u >= 0).all()
    assert (u < 1).all()
    assert stats.kstest(u, "uniform").pvalue > 0.001
    e = exponential(grid(3, 40, 50, Purpose.TARGET), 100)
    assert bool((e > 0).all())
    assert stats.kstest(e.numpy().ravel(), "expon").pvalue > 0.001


def test_no_two_arguments_share_numbers() -> None:
    base = uniform(grid(0, 300, 300, Purpose.DRAFT)).numpy()
    others = {
        "purpose": uniform(grid(0, 300, 300, Purpose.ACCEPT)).numpy(),
        "seed": uniform(grid(1, 300, 300, Purpose.DRAFT)).numpy(),
        "stream": np.roll(base, 1, axis=0),
        "position": np.roll(base, 1, axis=1),
        "swapped": base.T.copy(),
    }
    for name, other in others.items():
        pair = base[~np.eye(300, dtype=bool)], other[~np.eye(300, dtype=bool)]
        assert not np.intersect1d(base, other).size or name in ("stream", "position", "swapped")
        assert abs(np.corrcoef(*pair)[0, 1]) < 4 / 300, name


def test_shape_does_not_matter() -> None:
    whole = grid(9, 5, 7, Purpose.TARGET)
    assert int(keys(9, torch.tensor([3]), torch.tensor([6]), Purpose.TARGET)) == int(whole[3, 6])
    assert torch.equal(exponential(whole, 11)[3, 6], exponential(whole[3, 6], 11))


def test_compiled_noise_is_the_same() -> None:
    """Sizes that fill no whole vector: where the compiler's own vectors are on, this ends in a broken heap."""
    key = grid(3, 8, 5, Purpose.TARGET)
    how = {"fullgraph": True, "dynamic": False, "options": COMPILE_OPTIONS}
    assert torch.equal(torch.compile(uniform, **how)(key), uniform(key))
    for size in (61, 7):
        got = torch.compile(exponential, **how)(key, size)
        torch.testing.assert_close(got, exponential(key, size), rtol=1e-13, atol=0)
