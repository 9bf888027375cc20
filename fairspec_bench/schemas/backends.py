"""What runs the steps of a decode: one entry of `BACKENDS` each, for those who only need to tell them apart.

A backend of this engine is a file of `engine.backends`, a serving engine one of `scoring.executors.serving`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class BackendKind:
    """A backend by its name in `run.json`.

    Attributes:
        title: what reports call it.
        records: whether a block is recorded as a whole, so that its steps are timed in a decode of their own.
        steps: `module:class` of the `StepRunner` of a backend of this engine, imported when a decoder needs it.
        engine: `module:name` of a `ServingEngine`, imported when a run needs it.
    """

    title: str
    steps: str | None = None
    records: bool = False
    engine: str | None = None

    @property
    def serves(self) -> bool:
        """Whether it is a serving engine: it shows no logits, so nothing is replayed."""
        return self.engine is not None


BACKENDS: Mapping[str, BackendKind] = {
    "eager": BackendKind("eager", "fairspec_bench.engine.backends.eager:EagerSteps"),
    "compile": BackendKind("compiled steps", "fairspec_bench.engine.backends.compiled:CompiledSteps"),
    "graph": BackendKind("CUDA graph", "fairspec_bench.engine.backends.cuda_graph:RecordedSteps", records=True),
    "vllm": BackendKind("vLLM", engine="fairspec_bench.scoring.executors.serving.vllm:VLLM"),
    "sglang": BackendKind("SGLang", engine="fairspec_bench.scoring.executors.serving.sglang:SGLANG"),
    "llamacpp": BackendKind("llama.cpp", engine="fairspec_bench.scoring.executors.serving.llama_cpp:LLAMA_CPP"),
}


def known(name: str) -> str:
    """The name, if there is a backend of it. Raises `ValueError`."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend. Known: {', '.join(BACKENDS)}")
    return name
