"""The cache and the packed attention against plain passes, long prompts included."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import VOCAB, family, noised, prompts, requests, stock
from torch.utils._pytree import tree_leaves
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from fairspec_bench.engine.backends.base import BlockFn
from fairspec_bench.engine.backends.eager import EagerSteps
from fairspec_bench.engine.backends.rehearsal import Rehearsal
from fairspec_bench.engine.batch import Batch
from fairspec_bench.engine.clock import Clock
from fairspec_bench.engine.drafters.lookup import LookupDrafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.speculative import Decoder, Request, decode
from fairspec_bench.models.kv_cache import RowCache, packed_sdpa
from fairspec_bench.models.model import PREFILL_CHUNK, Rows, wrap
from fairspec_bench.schemas.config import SamplingParams


def random_ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("length", [1, 5])
def test_packed_attention_is_the_stock_one(length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 8, length, 16, generator=generator)
    key, value = (torch.randn(3, 2, 20, 16, generator=generator) for _ in range(2))
    mask = torch.rand(3, 1, length, 20, generator=generator) < 0.5
    mask[..., 0] = True
    module = torch.nn.Module()
    module.num_key_value_groups = 4
    want, _ = sdpa_attention_forward(module, query, key, value, mask)
    got, _ = packed_sdpa(module, query, key, value, mask)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("left_out", ["softcap", "s_aux", "position_bias"])
def test_packed_attention_leaves_nothing_out_in_silence(left_out: str) -> None:
    x = torch.zeros(1, 1, 1, 4)
    with pytest.raises(ValueError, match=left_out):
        packed_sdpa(torch.nn.Module(), x, x, x, torch.ones(1, 1, 1, 1, dtype=torch.bool), **{left_out: 30.0})


@pytest.mark.parametrize("name", ["llama", "gemma3", "gemma2", "gpt2"])
def test_ragged_rows_with_junk_equal_plain_passes(name: str) -> None:
    """Three rows at their own positions, each with stale tokens beyond them, as after a rejected block."""
    model = wrap(family(name), name)
    texts = [random_ids(30)[:length] for length in (9, 21, 30)]
    rows = model.rows(3, 40)
    for row, text in enumerate(texts):
        rows.prefill(row, text[:-4].tolist())
    start = torch.tensor([len(text) - 4 for text in texts])
    rows.read(random_ids(3, 4), start, view=30, keep=1)
    got = rows.read(torch.stack([text[-4:] for text in texts]), start, view=30, keep=4)
    for row, text in enumerate(texts):
        with torch.no_grad():
            want = stock(model)(text[None], use_cache=False).logits[0, -4:]
        torch.testing.assert_close(got[row], want, atol=2e-5, rtol=1e-4)


def test_a_long_prompt_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """4,200 tokens through a sliding-window model: the same logits as one pass, never more than a chunk at a time."""
    model = wrap(family("gemma3", max_position_embeddings=8192, num_hidden_layers=2), "long")
    ids, widths, place = random_ids(4200), [], RowCache.place
    monkeypatch.setattr(RowCache, "place", lambda *args: widths.append(args[1].shape[1]) or place(*args))
    rows = Rows(model, 2, 4300)
    got = rows.prefill(1, ids.tolist())
    assert max(widths) == PREFILL_CHUNK
    assert sum(widths) == 4200
    with torch.no_grad():
        want = model.hf(ids[None], use_cache=False, logits_to_keep=1).logits
    torch.testing.assert_close(got, want, atol=5e-4, rtol=1e-3)


def test_eager_masks_are_additive() -> None:
    for name, dtype in [("gemma2", torch.float32), ("llama", torch.bool)]:
        model = wrap(family(name), name)
        cache = RowCache(model.hf.config, 1, 8, model.device, model.dtype)
        mask = cache.place(torch.tensor([[3, 4]]), cache.ruler[:6])
        one = mask["full_attention"] if isinstance(mask, dict) else mask
        assert one.dtype == dtype
        seen = one if dtype == torch.bool else one == 0
        assert seen[0, 0].tolist() == [[True] * 4 + [False] * 2, [True] * 5 + [False]]


def test_the_last_position_does_not_depend_on_gamma() -> None:
    """A text may end at the very last position: drafts beyond it must not crash learned positions."""
    verifier = wrap(family("gpt2", n_positions=32, eos_token_id=None), "short")
    request = Request("p", tuple(random_ids(20).tolist()), 12, 0)
    options = {"sampling": SamplingParams(), "batch_size": 1, "seed": 0}
    (alone,) = decode(verifier, None, [request], gamma=0, **options)
    for gamma in (1, 7):
        (done,) = decode(verifier, LookupDrafter(), [request], gamma=gamma, **options)
        assert done.ids == alone.ids
        assert len(done.ids) == 12


def largest_made_in_a_block(attention: str) -> float:
    """Numbers in the largest tensor that a block at long buffers allocates, over those in one layer's keys."""
    verifier = wrap(family("llama", max_position_embeddings=4096, eos_token_id=None), "v", attention=attention)
    pair = Decoder(
        verifier,
        ModelDrafter(noised(verifier, 0.02), verifier),
        sampling=SamplingParams(),
        gamma=3,
        batch_size=4,
        seed=0,
    )
    tape = Rehearsal()

    class Taped(EagerSteps):
        def block(self, body: BlockFn, batch: Batch) -> torch.Tensor:
            batch.view = state.slots
            with tape:
                return body(self)

    asked = requests(prompts(4, 20, 30), 2000)
    pair.reserve(asked)
    state = pair.state
    state.steps = Taped(Clock(torch.device("cpu")))
    next(pair.decode([replace(request, max_new_tokens=3) for request in asked]))
    made = [
        out.numel()
        for _, args, _, outs in tape.operations
        for out in tree_leaves(outs)
        if isinstance(out, torch.Tensor)
        and out.untyped_storage().data_ptr()
        not in {x.untyped_storage().data_ptr() for x in tree_leaves(args) if isinstance(x, torch.Tensor)}
    ]
    return max(made) / state.verifier.cache.layers[0].keys.numel()


def test_a_block_copies_no_cache() -> None:
    """Rows of any length, nothing realigned, no keys repeated for each head: as stock attention would."""
    assert largest_made_in_a_block("packed_sdpa") < 0.6
    assert largest_made_in_a_block("sdpa") > 1.5
