"""A made-up run whose truth is known: lines for tests of the report. No models, only numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fairspec_bench.metrics.acceptance import blocks_from_matches
from fairspec_bench.metrics.run_data import Lines
from fairspec_bench.schemas.config import Environment, ModelConfig, RunConfig, SamplingParams, SuiteConfig
from fairspec_bench.schemas.io import ids_sha256
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Answer, Reference, Replay, StepTimes, Timing
from fairspec_bench.schemas.stages import MODES

ENVIRONMENT = Environment(
    platform="test",
    python="3.11",
    processor="none",
    cores=1,
    threads=1,
    device="cpu",
    device_name="none",
    packages={},
    commit=None,
    dirty=None,
    started="2026-01-01T00:00:00Z",
)


def make_config(
    languages: Sequence[str],
    prompts: int,
    *,
    gamma: int = 3,
    suite: str = "toy",
    kind: str = "model",
    drafter: bool = True,
) -> RunConfig:
    """A run of one suite whose problem k is shared by all languages."""
    keys = [f"{suite}/{language}/{k}" for language in languages for k in range(prompts)]
    chosen = SuiteConfig(
        name=suite,
        version="1",
        languages=tuple(languages),
        limit=None,
        num_fewshot=None,
        max_new_tokens=64,
        data_sha256={},
        prompts_sha256={},
    )
    return RunConfig(
        verifier=ModelConfig(name="big"),
        drafter=ModelConfig(name="small", kind=kind, proper=kind == "model", answers=kind == "model")
        if drafter
        else None,
        suites=(chosen,),
        tokenizer_sha256="0",
        sampling=SamplingParams(),
        gamma=gamma,
        seed=0,
        batch_size=1,
        dtype="float32",
        device="cpu",
        race_prompts=None,
        race_rounds=0,
        chunks={"all": tuple(keys)},
        clusters={key: f"{suite}#{PromptKey(key).number}" for key in keys},
    )


def make_prompt(
    key: str, hits: Sequence[bool], *, kl: float | None = 0.5, finish: str = "eos"
) -> tuple[Reference, Replay]:
    """A greedy reference of `len(hits) + 1` tokens and the replay whose drafts hit where `hits` says."""
    ids = tuple(range(10, 11 + len(hits)))
    sha = ids_sha256([len(key)])
    reference = Reference(key=key, prompt_sha=sha, ids=ids, finish=finish, chunk="all")
    count = len(hits)
    replay = Replay(
        key=key,
        prompt_sha=sha,
        contexts=count,
        alpha=float(sum(hits)),
        overlap=0.9 * sum(hits) if kl is not None else None,
        kl=None if kl is None else kl * count,
        cross_entropy=None if kl is None else (kl + 1.0) * count,
        verifier_entropy=None if kl is None else 1.0 * count,
        draft_ids=tuple(token if hit else 0 for token, hit in zip(ids[1:], hits, strict=True)),
        beta=None,
        chunk="all",
    )
    return reference, replay


def make_answer(key: str, reference: Reference, **changes: object) -> Answer:
    """A correct answer in its own language, 4 characters a token."""
    size = 4 * len(reference.ids)
    fields = {"correct": True, "language": PromptKey(key).language, "looping": False, "chars": size, "bytes": size}
    return Answer.model_validate({"key": key, **fields, **changes})


def make_timings(
    reference: Reference, replay: Replay, gamma: int, rounds: int, *, context: int = 100, jitter: np.ndarray
) -> list[Timing]:
    """A race where a verifier step takes 100 ns (140 for a block), a drafter step 20, times `jitter` `[rounds, 3]`."""
    hits = [draft == token for draft, token in zip(replay.draft_ids, reference.ids[1:], strict=True)]
    blocks = blocks_from_matches(hits, gamma)
    found = []
    for turn in range(rounds):
        for order, mode in enumerate(MODES):
            pace = jitter[turn, order]
            steps = len(blocks) if mode == "speculative" else len(hits)
            pair = mode == "speculative"
            step_times = StepTimes(
                draft_first_ns=round(25 * steps * pace) if pair else 0,
                draft_first=steps if pair else 0,
                draft_next_ns=round(20 * (gamma - 1) * steps * pace) if pair else 0,
                draft_next=(gamma - 1) * steps if pair else 0,
                verify_ns=round((140 if pair else 100) * steps * pace),
                verify=steps,
                rest_ns=round(5 * steps * pace),
            )
            spent = step_times.draft_first_ns + step_times.draft_next_ns + step_times.verify_ns + step_times.rest_ns
            found.append(
                Timing(
                    key=reference.key,
                    prompt_sha=reference.prompt_sha,
                    mode=mode,
                    round=turn,
                    order=order,
                    context=context,
                    tokens=len(reference.ids),
                    prefill_ns=1000,
                    drafter_prefill_ns=200 if pair else 0,
                    decode_ns=spent,
                    step_times=step_times,
                    blocks=blocks if pair else (),
                    chunk="all",
                )
            )
    return found


def make_run(
    chances: Mapping[str, float],
    prompts: int,
    *,
    gamma: int = 3,
    seed: int = 0,
    rounds: int = 0,
    noise: float = 0.02,
    kl: Mapping[str, float] | None = None,
    defined: bool = True,
) -> tuple[RunConfig, Lines]:
    """A whole greedy run in which language L's drafts hit with chance `chances[L]`, independently."""
    generator = np.random.default_rng(seed)
    config = make_config(list(chances), prompts, gamma=gamma, kind="model" if defined else "lookup")
    references, replays, answers, drafted, timings = [], [], [], [], []
    for language, chance in chances.items():
        for k in range(prompts):
            hits = (generator.random(generator.integers(20, 60)) < chance).tolist()
            mean = (kl[language] if kl else 1 - chance) * generator.gamma(9, 1 / 9)
            reference, replay = make_prompt(f"toy/{language}/{k}", hits, kl=mean if defined else None)
            references.append(reference)
            replays.append(replay)
            answers.append(make_answer(reference.key, reference))
            drafted.append(make_answer(reference.key, reference, correct=bool(generator.random() < chance)))
            jitter = np.exp(noise * generator.standard_normal((rounds, 3)))
            timings += make_timings(reference, replay, gamma, rounds, jitter=jitter) if rounds else []
    return config, Lines(references, answers, drafted, replays, timings)
