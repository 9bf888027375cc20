"""Self-speculation: the verifier's own first layers, then its final norm and head, draft for it.

Zhang et al. (2024), *Draft & Verify*, and LayerSkip (Elhoushi et al. 2024) skip layers likewise; here without training.
The layers are shared with the verifier: beside it lies only a cache.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from fairspec_bench.engine.drafters.base import DrafterRequest
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.models.model import Model, wrap
from fairspec_bench.schemas.base import FairspecError


@dataclass(frozen=True)
class LayersDrafter(ModelDrafter):
    """The first layers of `verifier` as a model of their own."""

    kind: str = field(default="layers", init=False)


def first_layers(model: Model, count: int) -> Model:
    """A model of the first `count` layers of another, its embedding, final norm and head. Weights are shared.

    Raises `FairspecError` for more layers than there are, and a model whose passes are redirected.
    """
    if not 1 <= count <= model.layers:
        raise FairspecError(f"layers:{count}: {model.name} has {model.layers} layers. Give at most as many.")
    if "forward" in vars(model.hf):  # accelerate's hooks are bound to the whole model
        raise FairspecError(f"layers:{count}: {model.name} is loaded with device_map. Leave that out.")
    hf: Any = _shallow(model.hf)
    hf.config = copy.deepcopy(model.hf.config)
    text = hf.config.get_text_config(decoder=True)
    # The first list of as many modules as there are layers: those within a layer come later.
    path = next(
        name
        for name, module in hf.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == text.num_hidden_layers
    )
    *above, last = path.split(".")
    parent: nn.Module = hf
    for name in above:
        inner = _shallow(getattr(parent, name))
        if isinstance(inner, PreTrainedModel):
            inner.config = text if inner.config is model.hf.config.get_text_config(decoder=True) else hf.config
        parent._modules[name] = inner
        parent = inner
    parent._modules[last] = nn.ModuleList(list(getattr(parent, last))[:count])
    text.num_hidden_layers = count
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:count]
    return wrap(
        hf,
        f"layers:{count}",
        origin=f"{model.identity}+layers:{count}",
        vocabulary=model.vocabulary,
        home=model.home,
        attention=text._attn_implementation,
        backend=model.backend,
    )


def _shallow(module: nn.Module) -> nn.Module:
    """A copy that has the same children, in a table of its own."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made


def load(request: DrafterRequest, verifier: Model) -> LayersDrafter:
    """Options: `layers`, and `temperature` (1)."""
    given = request.parsed(request.options, layers=int, temperature=float)
    if "layers" not in given:
        raise FairspecError("layers: how many of the verifier's layers? Example: layers:8.")
    return LayersDrafter(first_layers(verifier, given.pop("layers")), verifier, **given)
