"""With FAIRSPEC_TEST_BACKEND=compile (or graph) every model of this folder's tests runs on that backend."""

from __future__ import annotations

import os

from fairspec_bench.models.model import wrap

assert wrap.__kwdefaults__ is not None
wrap.__kwdefaults__["backend"] = os.environ.get("FAIRSPEC_TEST_BACKEND", "eager")
