"""The verifier's own first layers as its drafter: lossless, all accept everything, replay = live, fine-tuned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from saved_models import refusal
from tiny_models import encode, family, prompts, requests
from tiny_pair import save_pair

import fairspec_bench as fairspec
from fairspec_bench.engine.drafters.layers import LayersDrafter, first_layers
from fairspec_bench.engine.drafters.registry import load_drafter
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.engine.speculative import as_request, decode
from fairspec_bench.metrics.acceptance import blocks_from_matches
from fairspec_bench.models.model import Model, load_model, wrap
from fairspec_bench.schemas.config import RunConfig, SamplingParams
from fairspec_bench.schemas.io import read_record
from fairspec_bench.scoring.reference import make_references
from fairspec_bench.scoring.replay import replay

LAYERS, GAMMA = 4, 3
PROMPTS = prompts(16, 3, 24)
GREEDY = {"sampling": SamplingParams(), "seed": 0}


@pytest.fixture(scope="module", params=["llama", "gemma3", "gpt2"])
def verifier(request: pytest.FixtureRequest) -> Model:
    """Among them layers of two kinds, and another name for the list of layers. Later layers change little."""
    deep = {"n_layer": LAYERS} if request.param == "gpt2" else {"num_hidden_layers": LAYERS}
    return wrap(family(request.param, **({} if request.param == "gemma3" else deep)), request.param)


def drafted(verifier: Model, count: int) -> LayersDrafter:
    made = load_drafter("layers", "layers", {"layers": count}, verifier)
    assert isinstance(made, LayersDrafter)
    return made


def test_its_logits_are_those_of_the_model_cut_there(verifier: Model) -> None:
    """Against Transformers' own hidden states: after the last kept layer, normed and headed."""
    ids = torch.tensor([PROMPTS[0]])
    kept = []
    layers = next(m for m in verifier.hf.modules() if isinstance(m, torch.nn.ModuleList))
    base = verifier.hf.base_model
    norm = getattr(base, "norm", None) or base.ln_f
    hook = layers[0].register_forward_hook(lambda m, given, out: kept.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        verifier.hf(ids, use_cache=False)
        hook.remove()
        want = verifier.hf.get_output_embeddings()(norm(kept[0]))
        got = first_layers(verifier, 1).hf(ids, use_cache=False).logits
    torch.testing.assert_close(got, want)
    assert verifier.layers == len(layers)


def test_weights_are_shared(verifier: Model) -> None:
    theirs = {id(weight) for weight in verifier.hf.parameters()}
    mine = first_layers(verifier, 1)
    assert {id(weight) for weight in mine.hf.parameters()} < theirs
    assert mine.layers == 1
    assert mine.parameters < verifier.parameters
    assert mine.identity == f"{verifier.identity}+layers:1"


@pytest.mark.parametrize("backend", ["eager", "graph"])
def test_lossless_and_all_layers_accept_everything(verifier: Model, backend: str) -> None:
    from dataclasses import replace

    verifier = replace(verifier, backend=backend)
    asked = requests(PROMPTS, 12)
    alone = {row.key: row.ids for row in decode(verifier, None, asked, gamma=GAMMA, batch_size=4, **GREEDY)}
    for count in (1, verifier.layers):
        done = list(decode(verifier, drafted(verifier, count), asked, gamma=GAMMA, batch_size=4, **GREEDY))
        assert {row.key: row.ids for row in done} == alone
        blocks = [block for row in done for block in row.blocks]
        whole = all(block.raw_accepted == GAMMA for block in blocks)
        assert whole is (count == verifier.layers)


def test_replay_sees_what_live_decoding_saw(verifier: Model) -> None:
    encoded, drafter = encode(PROMPTS, 16), drafted(verifier, 1)
    references = list(make_references(verifier, encoded, batch_size=8, chunk="s", **GREEDY))
    live = {
        row.key: row
        for row in decode(verifier, drafter, list(map(as_request, encoded)), gamma=GAMMA, batch_size=5, **GREEDY)
    }
    for line, reference in zip(
        replay(verifier, drafter, encoded, references, batch_size=5, chunk="s", **GREEDY), references, strict=True
    ):
        hits = [draft == token for draft, token in zip(line.draft_ids, reference.ids[1:], strict=True)]
        want = [(block.accepted, block.emitted) for block in live[line.key].blocks]
        assert [(block.accepted, block.emitted) for block in blocks_from_matches(hits, GAMMA)] == want


def test_refused_in_one_line(verifier: Model) -> None:
    assert drafter_spec("layers:2").options == {"layers": 2}
    assert f"has {verifier.layers} layers" in refusal(lambda: drafted(verifier, 99))
    assert "must be from 1" in refusal(lambda: drafter_spec("layers:0"))
    assert "Example: layers:8" in refusal(lambda: drafter_spec("layers:few"))
    assert "Example: layers:8" in refusal(lambda: load_drafter("layers", "layers", {}, verifier))


def test_scored_fine_tuned_and_scored_again(tmp_path: Path) -> None:
    verifier, _ = map(str, save_pair(tmp_path))
    options = {"languages": ("en", "te"), "limit": 2, "max_new_tokens": 8, "race_rounds": 0, "cache": None}
    fairspec.run(verifier, "layers:1", ["embedded_math"], tmp_path / "run", **options)
    config = read_record(tmp_path / "run" / "run.json", RunConfig)
    assert config.drafter is not None
    assert (config.drafter.kind, config.drafter.options) == ("layers", {"layers": 1})
    assert config.drafter.revision == f"{config.verifier.revision}+layers:1"
    tuned = fairspec.mitigate(
        verifier,
        "layers:1",
        "uniform",
        tmp_path / "tuned",
        prompts=("embedded_math",),
        languages=("en", "te"),
        limit=5,
        max_new_tokens=8,
        steps=2,
        cache=None,
    )
    made = load_model(str(tuned.folder))
    assert made.layers == 1
    assert made.vocabulary == load_model(verifier).vocabulary
    fairspec.run(verifier, str(tuned.folder), ["embedded_math"], tmp_path / "again", **options)
