"""Any drafter by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fairspec_bench.engine.drafters.base import Drafter, DrafterRequest
from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.models.model import Model


def load_drafter(
    kind: str,
    source: str,
    options: Mapping[str, Any] | None,
    verifier: Model,
    *,
    name: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> Drafter:
    """Load a drafter for a verifier.

    Args:
        kind: an entry of `DRAFTER_KINDS`; the `load` of its module says which options it takes.
        source: the folder or Hub id, or the kind's name where it needs no files.
        options: as given on the command line.
        verifier: the model that it is paired with.
        name: what reports call it, by default `source`.
        revision: commit, branch or tag on the Hub.
        dtype: an entry of `DTYPES`.
        device: torch's name of the device.

    Raises:
        FairspecError: for an unknown kind or option, and what cannot be loaded or paired.
    """
    request = DrafterRequest(kind, source, name or source, dict(options or {}), revision, dtype, device)
    drafter: Drafter = import_module(drafter_kind(kind).module).load(request, verifier)
    return drafter
