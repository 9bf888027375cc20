"""Logits that are not finite are refused by model, prompt and output position; what is legal or unused is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import VOCAB, family, noised, prompts, requests

from fairspec_bench.engine import batch as batches
from fairspec_bench.engine.batch import DRAFTER, VERIFIER, Batch
from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.drafters.lookup import LookupDrafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.oracle import OracleDrafter
from fairspec_bench.engine.finite import check_finite
from fairspec_bench.engine.sampling import log_probs
from fairspec_bench.engine.speculative import Decoded, decode
from fairspec_bench.models.model import Model, wrap
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import Backend, SamplingParams

GREEDY, SAMPLED = SamplingParams(), SamplingParams(temperature=0.9)
NARROW = SamplingParams(temperature=0.7, top_k=12, top_p=0.9)
SAMPLINGS = pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, NARROW], ids=["greedy", "sampled", "narrow"])
BATCHES = pytest.mark.parametrize("batch_size", [1, 3])
PROMPTS = prompts(5, 4, 12, seed=11)
SOUND = wrap(family("llama"), "sound")
CAP = 20


def spoiled(token: int | list[int], name: str, model: Model = SOUND, value: float = torch.nan) -> Model:
    """A copy with NaN as a token's embedding, past the checks at loading: logits are NaN once the token was read."""
    hf = copy.deepcopy(model.hf)
    with torch.no_grad():
        hf.get_input_embeddings().weight[token] = value
    return replace(model, hf=hf, name=name)


def decoded(verifier: Model, drafter: Drafter | None, sampling: SamplingParams, **changes: object) -> list[Decoded]:
    asked = requests(changes.pop("prompts", PROMPTS), changes.pop("cap", CAP))
    options = {"sampling": sampling, "gamma": 3, "batch_size": 1, "seed": 0, **changes}
    return list(decode(verifier, drafter, asked, **options))


def says(key: str = r"p\d", *places: int) -> str:
    """The error of a model called `spoiled`, at one of these output positions."""
    where = "|".join(map(str, places)) or r"\d+"
    return f"^{key}, output position ({where}): the logits of spoiled are not finite"


@cache
def texts(sampling: SamplingParams) -> dict[str, tuple[int, ...]]:
    return {row.key: row.ids for row in decoded(SOUND, None, sampling)}


def mid_token(sampling: SamplingParams) -> tuple[str, int, int]:
    """A prompt, a token in its output that no prompt and no other output has, and the token's output position."""
    found = texts(sampling)
    for key, ids in found.items():
        others = {token for other, row in found.items() if other != key for token in row}
        others |= {token for row in PROMPTS for token in row}
        for place, token in enumerate(ids[2:-5], 3):
            if token not in others and token > 0 and ids.index(token) == place - 1:
                return key, token, place
    raise AssertionError("no such token: take other prompts")


# --------------------------------------------------------------------------- drafter and verifier, live


@SAMPLINGS
@BATCHES
@pytest.mark.parametrize("backend", ["eager", "graph"])
def test_a_drafter_is_refused_where_its_logits_become_nan(
    sampling: SamplingParams, batch_size: int, backend: Backend
) -> None:
    """Case C1: it has no error of its own, drafts id 0 from there on, and every draft is rejected."""
    key, token, place = mid_token(GREEDY)
    verifier = replace(SOUND, backend=backend)
    drafter = ModelDrafter(spoiled(token, "spoiled"), verifier)
    # The position after the token may be the verifier's own, after a block whose drafts were all accepted.
    wanted = says(key, place + 1, place + 2) if sampling.greedy else says()
    with pytest.raises(FairspecError, match=wanted):
        decoded(verifier, drafter, sampling, batch_size=batch_size)


@SAMPLINGS
@BATCHES
@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("kind", ["none", "model", "lookup"])
def test_a_verifier_is_refused_where_its_logits_become_nan(
    sampling: SamplingParams, batch_size: int, backend: Backend, kind: str
) -> None:
    """Case C2: its output would be id 0 to the cap."""
    key, token, place = mid_token(sampling)
    unread = sorted(set(range(VOCAB)) - {token for row in PROMPTS for token in row})
    verifier = replace(spoiled(token if kind == "none" else unread, "spoiled"), backend=backend)
    drafter = {"none": None, "model": ModelDrafter(noised(SOUND, 0.02), verifier), "lookup": LookupDrafter()}[kind]
    # A draft that is NaN in the cache spoils its whole pass: 0 × NaN is NaN.
    with pytest.raises(FairspecError, match=says(key, place + 1) if kind == "none" else says()):
        decoded(verifier, drafter, sampling, batch_size=batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("which", ["drafter", "verifier"])
def test_compiled_steps_are_guarded_too(which: str, sampling: SamplingParams) -> None:
    key, token, place = mid_token(sampling)
    sound, bad = (replace(model, backend="compile") for model in (SOUND, spoiled(token, "spoiled")))
    verifier, drafter = (sound, ModelDrafter(bad, sound)) if which == "drafter" else (bad, None)
    with pytest.raises(FairspecError, match=says(key, place + 1, place + 2)):
        decoded(verifier, drafter, sampling, batch_size=3, reference=texts(sampling))


@SAMPLINGS
@BATCHES
def test_a_prompt_that_cannot_be_read_is_refused_at_its_first_token(sampling: SamplingParams, batch_size: int) -> None:
    """The verifier at the prefill, the drafter at its first draft; infinity as well as NaN."""
    token, options = PROMPTS[1][2], {"batch_size": batch_size, "prompts": PROMPTS[1:2] * 3}
    for value in (torch.nan, torch.inf):
        bad = spoiled(token, "spoiled", value=value)
        with pytest.raises(FairspecError, match=says("p0", 1)):
            decoded(bad, None, sampling, **options)
        with pytest.raises(FairspecError, match=says("p0", 2)):
            decoded(SOUND, ModelDrafter(bad, SOUND), sampling, **options)
        payer = OracleDrafter(0.5, SOUND, payer=ModelDrafter(bad, SOUND))
        with pytest.raises(FairspecError, match=says("p0", 2)):
            decoded(SOUND, payer, sampling, **options, reference={f"p{row}": range(9, 19) for row in range(3)})


@SAMPLINGS
@BATCHES
@pytest.mark.parametrize("backend", ["eager", "graph"])
def test_a_race_on_reference_ids_is_guarded_too(sampling: SamplingParams, batch_size: int, backend: Backend) -> None:
    key, token, place = mid_token(sampling)
    sound, bad = (replace(model, backend=backend) for model in (SOUND, spoiled(token, "spoiled")))
    places = range(place - 3, place + 3)
    for verifier, drafter in ((bad, None), (bad, ModelDrafter(SOUND, bad)), (sound, ModelDrafter(bad, sound))):
        with pytest.raises(FairspecError, match=says(key, *places) if drafter else says(key, place + 1)):
            decoded(verifier, drafter, sampling, batch_size=batch_size, reference=texts(sampling))


@SAMPLINGS
@BATCHES
def test_what_lies_past_the_end_of_an_output_is_not_refused(sampling: SamplingParams, batch_size: int) -> None:
    """A drafter looks beyond the end: logits there are NaN and decide nothing. The next prompt in the row is sound."""
    key, token, place = mid_token(sampling)
    bad = spoiled(token, "spoiled")
    reference = {**texts(sampling), key: texts(sampling)[key][:place]}
    for verifier, drafter in ((SOUND, ModelDrafter(bad, SOUND)), (bad, None)):
        found = decoded(verifier, drafter, sampling, batch_size=batch_size, reference=reference)
        assert {row.key: row.ids for row in found} == reference
        assert all(block.accepted == block.emitted - 1 for row in found if drafter for block in row.blocks[:-1])


@SAMPLINGS
def test_without_the_guard_nobody_would_notice(sampling: SamplingParams, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that the guard is for, with the guard off: outputs as if nothing were wrong."""
    key, token, place = mid_token(sampling)
    bad = spoiled(token, "spoiled")
    monkeypatch.setattr(batches, "finite", torch.ones_like)
    (row,) = (row for row in decoded(bad, None, sampling) if row.key == key)
    assert row.ids == (*texts(sampling)[key][:place], *[0] * (CAP - place))
    found = decoded(SOUND, ModelDrafter(bad, SOUND), sampling, reference=texts(sampling))
    assert {row.key: row.ids for row in found} == texts(sampling)
    (row,) = (row for row in found if row.key == key)
    assert sum(block.accepted for block in row.blocks) < place


# --------------------------------------------------------------------------- loading, and what is legal


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_spoil_every_prompt_are_refused_at_loading(value: float) -> None:
    hf = family("llama")
    with torch.no_grad():
        hf.model.norm.weight[0] = value
    with pytest.raises(FairspecError, match=r"^broken: the logits of a short random prompt are not finite"):
        wrap(hf, "broken")


@SAMPLINGS
@BATCHES
def test_a_token_that_is_never_chosen_is_legal(sampling: SamplingParams, batch_size: int) -> None:
    hf = family("llama")
    banned = sorted(set(texts(sampling)["p0"]))[-2:]
    hf.lm_head.register_forward_hook(lambda module, args, out: out.index_fill(-1, torch.tensor(banned), -torch.inf))
    model = wrap(hf, "suppressed")
    plain = decoded(model, None, sampling, batch_size=batch_size)
    drafted = decoded(model, ModelDrafter(model, model), sampling, batch_size=batch_size)
    assert not {token for row in [*plain, *drafted] for token in row.ids} & set(banned)
    assert all(block.accepted == block.emitted - 1 for row in drafted for block in row.blocks[:-1])


# --------------------------------------------------------------------------- the guard itself

VALUES = {"nan": torch.nan, "inf": torch.inf, "all": -torch.inf}


@given(
    seed=st.integers(0, 2**31),
    faults=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 1), st.sampled_from(sorted(VALUES))), max_size=3
    ),
    suppressed=st.lists(st.integers(0, VOCAB - 2), max_size=30),
    sampling=st.sampled_from([GREEDY, SAMPLED, NARROW, SamplingParams(temperature=1.0, top_k=1)]),
    half=st.booleans(),
)
def test_the_first_fault_of_each_row_is_found(
    seed: int, faults: list[tuple[int, int, int, str]], suppressed: list[int], sampling: SamplingParams, half: bool
) -> None:
    """Faults planted by (row, place, model): `Batch.finite` counts up to the first, `check_finite` names it."""
    generator = torch.Generator().manual_seed(seed)
    logits = 9 * torch.randn(2, 3, 4, VOCAB, generator=generator).to(torch.float16 if half else torch.float32)
    logits[..., suppressed] = -torch.inf
    first = [8, 8, 8]
    for row, place, whose, fault in faults:
        where = slice(None) if fault == "all" else int(torch.randint(VOCAB, (), generator=generator))
        logits[whose, row, place, where] = VALUES[fault]
        first[row] = min(first[row], 2 * place + whose)
    batch = Batch.empty(3, 9, torch.device("cpu"), sampling=sampling, seed=0, vocab_size=VOCAB, forced=False)
    slots = batch.after(4)
    for whose in (DRAFTER, VERIFIER):
        if sampling.greedy:
            ids = batch.choose(whose, slots, logits[whose])
            assert ids.equal(logits[whose].argmax(-1))
        else:
            batch.note(whose, slots, log_probs(logits[whose], sampling).amax(-1))
    assert batch.finite(4).flatten().tolist() == first
    for count in range(5):
        bad = [row for row in range(3) if any((row, p) == (f[0], f[1]) and f[2] for f in faults for p in range(count))]
        if bad:
            place = min(p for row, p, whose, _ in faults if row == bad[0] and whose)
            with pytest.raises(
                FairspecError, match=f"^k{bad[0]}, output position {place + 5}: the logits of m are not"
            ):
                check_finite(logits[VERIFIER], [count] * 3, ["k0", "k1", "k2"], 5, "m")
        else:
            check_finite(logits[VERIFIER], [count] * 3, ["k0", "k1", "k2"], 5, "m")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda peak: torch.ones_like(peak, dtype=torch.bool),
        lambda peak: peak < torch.inf,  # lets a context of nothing but -inf through
        lambda peak: ~peak.isnan(),
        lambda peak: peak != torch.inf,
    ],
)
def test_each_planted_fault_of_the_guard_is_found(
    wrong: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "finite", wrong)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        test_the_first_fault_of_each_row_is_found()
