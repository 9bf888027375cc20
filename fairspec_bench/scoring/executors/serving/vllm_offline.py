"""vLLM without a server: its `LLM`, stepped from here, so that every block of a single request is seen.

vLLM is imported here alone. An engine keeps its model in a process of its own.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Counters
from fairspec_bench.scoring.executors.serving.engine import EngineRequest, RequestBatch, ServedRequest, count

SETTINGS = (
    "async_scheduling",
    "attention_backend",
    "block_size",
    "distributed_executor_backend",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "kv_cache_dtype",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "pipeline_parallel_size",
    "quantization",
    "tensor_parallel_size",
)
"""What `--model_args` may say to vLLM: how to run a model. Never what to load: that is given by the run."""
DRAFTING = (
    "draft_tensor_parallel_size",
    "max_model_len",
    "parallel_drafting",
    "prompt_lookup_max",
    "prompt_lookup_min",
    "quantization",
)
"""What `--drafter_args` may say beside `method`."""
HALF_OF_THE_DEVICE = 0.45
QUIET: Mapping[str, str] = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def check_offline(device: str) -> None:
    """Raise `FairspecError` unless vLLM is here and runs on that device."""
    if find_spec("vllm") is None:
        raise FairspecError(
            "backend=vllm: vLLM is not installed here. pip install 'fairspec-bench[vllm]' in an environment of its "
            "own, or name a running server: --model_args base_url=http://HOST:PORT."
        )
    if ":" in device:
        raise FairspecError(f"device={device}: vLLM takes the devices it sees. Set CUDA_VISIBLE_DEVICES instead.")
    _hush()
    from vllm.platforms import current_platform

    if (kind := current_platform.device_type) != device:
        raise FairspecError(f"device={device}: this vLLM runs on {kind}. Give --device {kind}.")


def _hush() -> None:
    """vLLM reads its environment when it is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_NO_USAGE_STATS"] = "1"


class Offline:
    """One vLLM engine. The engine with a drafter must be made last: vLLM counts per process, from its latest start."""

    def __init__(
        self,
        model: str,
        *,
        revision: str | None,
        dtype: str,
        seed: int,
        settings: Mapping[str, Any],
        speculation: Mapping[str, Any] | None,
    ):
        """`speculation` is vLLM's `speculative_config`. Raises `FairspecError`, one line, where vLLM refuses."""
        _hush()
        from vllm import LLM

        given = {"enable_prefix_caching": False, "gpu_memory_utilization": HALF_OF_THE_DEVICE, **settings}
        try:
            self.llm = LLM(
                model,
                revision=revision,
                dtype=dtype,
                seed=seed,
                trust_remote_code=False,
                load_format="safetensors",
                skip_tokenizer_init=True,
                generation_config="vllm",
                disable_log_stats=False,
                speculative_config=dict(speculation) if speculation else None,
                **given,
            )
        except Exception as error:  # vLLM raises what its parts raise
            raise FairspecError(f"{model}: vLLM refuses it ({_line(error)}). See --debug, or --model_args.") from error
        self.speculates = speculation is not None
        self.number = 0

    def serve(self, wanted: Sequence[EngineRequest], at_once: int) -> RequestBatch:
        """As the protocol says; each step of the engine brings every live request a block."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = self.llm.llm_engine
        queue, live, done = deque(wanted), dict[str, ServedRequest](), dict[str, ServedRequest]()
        while queue or live:
            while queue and len(live) < at_once:
                each = queue.popleft()
                params = SamplingParams(
                    temperature=0.0,
                    max_tokens=each.tokens,
                    ignore_eos=True,
                    detokenize=False,
                    output_kind=RequestOutputKind.DELTA,
                )
                self.number += 1
                live[name := str(self.number)] = ServedRequest(each, time.perf_counter_ns())
                try:
                    engine.add_request(name, {"prompt_token_ids": list(each.ids)}, params)
                except Exception as error:  # vLLM raises what it likes
                    raise FairspecError(f"{each.key}: vLLM refuses it ({_line(error)}). Shorten or drop it.") from error
            for output in engine.step():
                if (one := live.get(output.request_id)) is None:
                    continue
                ended = one.arrive(output.outputs[0].token_ids, time.perf_counter_ns())
                if output.finished and not ended:
                    raise FairspecError(
                        f"{one.wanted.key}: vLLM ended it after {len(one.ids)} of {one.wanted.tokens} tokens. "
                        "Raise max_model_len in --model_args, or leave it out."
                    )
                if ended:
                    done[one.wanted.key] = live.pop(output.request_id)
                    if not output.finished:
                        engine.abort_request([output.request_id])
        return RequestBatch(tuple(done[each.key] for each in wanted))

    def counters(self) -> Counters | None:
        """From vLLM's own metrics; `None` where it has none of speculation."""
        found = {metric.name: metric for metric in self.llm.get_metrics()} if self.speculates else {}
        if "vllm:spec_decode_num_drafts" not in found:
            return None

        def total(name: str) -> int:
            return count(name, found[f"vllm:spec_decode_{name}"].value)

        positions = found["vllm:spec_decode_num_accepted_tokens_per_pos"].values
        return Counters(
            rounds=total("num_drafts"),
            drafts=total("num_draft_tokens"),
            accepted=total("num_accepted_tokens"),
            accepted_by_position=tuple(count("accepted tokens by position", value) for value in positions),
        )

    def close(self) -> None:
        """End the engine's process."""
        self.llm.llm_engine.engine_core.shutdown()


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
