"""The model `speculative` beside lm-eval's own `hf`: the same prompts, ids, texts and scores, and what was accepted."""

from __future__ import annotations

import json
import logging
import math
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from scipy.stats import chi2_contingency
from tiny_pair import save_pair

from fairspec_bench.api import lm_eval
from fairspec_bench.api.lm_eval import Acceptance, Speculative, evaluate
from fairspec_bench.cli.main import main
from fairspec_bench.engine.speculative import Decoder
from fairspec_bench.models.hub import local_folder
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.lines import Block
from fairspec_bench.suites.listing import tasks_folder

LANGUAGES = ("en", "ja", "te")
TASKS = [f"fairspec_{suite}_{lang}" for suite in ("embedded_math", "embedded_story", "mgsm") for lang in LANGUAGES]
CAP = {"max_gen_toks": 40}
CHAT = "{% for turn in messages %}<eos>{{ turn.role }}: {{ turn.content }}\n{% endfor %}assistant:"

Pair = tuple[str, str]


class StockHF(HFLM):
    """lm-eval's `hf` in float32 at batch size 1; keeps the ids that it was given and made."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(pretrained=folder, device="cpu", dtype="float32", batch_size=1, **options)
        self.seen: dict[tuple[int, ...], int] = {}

    def _model_generate(self, context: torch.Tensor, **options: Any) -> torch.Tensor:
        made = super()._model_generate(context, **options)
        self.seen[tuple(context[0].tolist())] = made.shape[1] - context.shape[1]
        return made


class Spied:
    """What our decoders were asked and what they made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[tuple[int, ...], int] = {}
        self.rules: list[SamplingParams] = []
        self.groups: list[str] = []
        self.made: list[tuple[tuple[int, ...], int]] = []
        spied = self

        class Spy(Decoder):
            def decode(self, requests: Any, *given: Any, **options: Any) -> Iterator[Any]:
                asked = {request.key: request for request in requests}
                spied.rules.append(self.sampling)
                spied.groups += [request.group for request in asked.values()]
                for decoded in super().decode(list(asked.values()), *given, **options):
                    spied.seen[asked[decoded.key].ids] = len(decoded.ids)
                    spied.made.append((decoded.ids, len(decoded.blocks)))
                    yield decoded

        monkeypatch.setattr(lm_eval, "Decoder", Spy)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logger = logging.getLogger("lm_eval")
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    verifier, drafter = save_pair(tmp_path_factory.mktemp("pair"))
    (verifier / "chat_template.jinja").write_text(CHAT)
    return str(verifier), str(drafter)


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    return Spied(monkeypatch)


@pytest.fixture(scope="module")
def manager(data_dir: Path) -> TaskManager:
    return TaskManager(include_path=str(tasks_folder()), include_defaults=False)


def args(pair: Sequence[str], **more: Any) -> dict[str, Any]:
    return {"verifier": pair[0], "drafter": pair[1], **more}


def asked(manager: TaskManager, tasks: Sequence[str] = TASKS[:1], **more: Any) -> dict[str, Any]:
    return {
        **{"tasks": list(tasks), "task_manager": manager, "limit": 2, "bootstrap_iters": 0, "gen_kwargs": CAP},
        **more,
    }


def answers(results: Any, task: str) -> list[Any]:
    """All that is told of a task's answers, but for acceptance."""
    return [{key: value for key, value in one.items() if key != "speculative"} for one in results["samples"][task]]


def instance(context: str, *rest: Any, kind: Any = "generate_until", doc: int = 0) -> Instance:
    return Instance(kind, {}, (context, *rest), 0, metadata=("fairspec_mgsm_te", doc, 1))


# --------------------------------------------------------------------------- as hf has it


@pytest.mark.parametrize("name", ["embedded", "tiny"])
def test_three_tasks_in_three_languages_are_those_of_hf(
    name: str, tiny: Pair, manager: TaskManager, spied: Spied
) -> None:
    pair = ("embedded:verifier", "embedded:drafter") if name == "embedded" else tiny
    hf = StockHF(str(local_folder(pair[0])))
    theirs: Any = evaluate(hf, **asked(manager, TASKS))
    ours: Any = evaluate("speculative", args(pair), batch_size=4, **asked(manager, TASKS))
    assert spied.seen == hf.seen  # every prompt's ids, truncated where it is long, and how many tokens follow it
    assert max(map(len, hf.seen)) == 512 - CAP["max_gen_toks"]
    for task in TASKS:
        assert answers(ours, task) == answers(theirs, task)
        assert ours["results"][task] == theirs["results"][task]
        assert sum(len(text) for sample in ours["samples"][task] for (text,) in sample["resps"]) > 0
    assert ours["speculative"].keys() == set(TASKS)
    assert sum(told["tokens"] for told in ours["speculative"].values()) == sum(hf.seen.values())
    assert any(told["acceptance_observed"] > 0.1 for told in ours["speculative"].values())
    assert all(told["block_efficiency"] < 5 for told in ours["speculative"].values())


def test_stop_strings_end_a_text_where_hf_ends_it(tiny: Pair, spied: Spied) -> None:
    contexts = [f"Ann has {n} apples. " for n in range(6)]
    hf, ours = StockHF(tiny[0]), Speculative(*tiny, gamma=5, batch_size=3)
    free = hf.generate_until([instance(text, {"until": [], **CAP}) for text in contexts], disable_tqdm=True)
    # Strings of one to seven characters from anywhere in the texts: inside a block, across tokens, at its very end.
    stops = [text[start : start + length] for text in free for start, length in ((2, 1), (9, 3), (17, 7), (-2, 2))]
    for until in ([stop] for stop in stops):
        requests = [
            instance(text, {"until": until, **CAP}, doc=doc) for doc, text in enumerate([*contexts, contexts[0]])
        ]
        hf.seen.clear()
        spied.seen.clear()
        texts = ours.generate_until(requests, disable_tqdm=True)
        assert texts == hf.generate_until(requests, disable_tqdm=True)
        assert spied.seen == hf.seen
    assert len(set(map(tuple, spied.seen.items()))) > 1


@pytest.mark.parametrize("special", ["additional_special_tokens", "eos_token"])
def test_a_special_token_may_end_a_text(special: str, tiny: Pair, spied: Spied) -> None:
    hf, ours = StockHF(tiny[0]), Speculative(*tiny)
    context = "Ann has 3 apples. "
    (free,) = hf.generate_until([instance(context, {"until": [], **CAP})], disable_tqdm=True)
    end = hf.tokenizer.convert_ids_to_tokens(hf.tok_encode(free)[12])  # made special it is in no answer's text any more
    for model in (hf, ours):  # the model's own eos stays what it was
        model.tokenizer.add_special_tokens({special: end if special == "eos_token" else [end]})
    asking = [instance(context, {"until": [] if special == "eos_token" else [end], **CAP})]
    hf.seen.clear()
    assert ours.generate_until(asking, disable_tqdm=True) == hf.generate_until(asking, disable_tqdm=True)
    assert spied.seen == hf.seen
    assert max(hf.seen.values()) < 40


@pytest.mark.parametrize(
    "options",
    [{"think_end_token": "e"}, {"think_end_token": 70}, {"max_length": 100}, {"max_length": 90, "truncation": True}],
)
def test_options_of_hf_mean_the_same(options: dict[str, Any], tiny: Pair, spied: Spied) -> None:
    hf, ours = StockHF(tiny[0], **options), Speculative(*tiny, **options)
    requests = [instance("Ann has 3 apples. " * n, {"until": ["zz"], **CAP}, doc=n) for n in (1, 2, 20)]
    texts = ours.generate_until(requests, disable_tqdm=True)
    assert texts == hf.generate_until(requests, disable_tqdm=True)
    assert spied.seen == hf.seen
    if "think_end_token" in options:
        plain = Speculative(*tiny).generate_until(requests, disable_tqdm=True)
        assert texts != plain
    else:
        assert max(map(len, hf.seen)) == options["max_length"] - CAP["max_gen_toks"]


def test_a_chat_template_is_applied_as_hf_applies_it(tiny: Pair, manager: TaskManager, spied: Spied) -> None:
    chat = {"apply_chat_template": True, "num_fewshot": 1, "system_instruction": "Count."}
    hf = StockHF(tiny[0])
    theirs: Any = evaluate(hf, **asked(manager, ["fairspec_mgsm_en"], **chat))
    ours: Any = evaluate("speculative", args(tiny), **asked(manager, ["fairspec_mgsm_en"], **chat))
    assert spied.seen == hf.seen
    assert answers(ours, "fairspec_mgsm_en") == answers(theirs, "fairspec_mgsm_en")
    assert ours["samples"]["fairspec_mgsm_en"][0]["arguments"][0][0].startswith("<eos>system: Count.")


def test_log_likelihoods_are_the_verifiers(tiny: Pair) -> None:
    hf, ours = StockHF(tiny[0]), Speculative(*tiny, batch_size=2)
    pairs = [instance(f"Ann has {n} ", f"apples{'!' * n}", kind="loglikelihood") for n in range(5)]
    theirs, mine = hf.loglikelihood(pairs, disable_tqdm=True), ours.loglikelihood(pairs, disable_tqdm=True)
    assert [best for _, best in mine] == [best for _, best in theirs]
    assert [value for value, _ in mine] == pytest.approx([value for value, _ in theirs], abs=1e-3)
    rolling = [instance("Ann has 3 apples. " * 60, kind="loglikelihood_rolling")]
    assert ours.loglikelihood_rolling(rolling, disable_tqdm=True) == pytest.approx(
        hf.loglikelihood_rolling(rolling, disable_tqdm=True), rel=1e-5
    )


# --------------------------------------------------------------------------- acceptance


def test_acceptance_of_blocks_counted_by_hand() -> None:
    blocks = [Block(accepted=a, emitted=e, raw_accepted=r) for a, e, r in ((3, 4, 3), (0, 1, 0), (1, 2, 1), (2, 2, 3))]
    one = Acceptance.of(blocks, 3)
    assert one == Acceptance(tokens=10, calls=5, blocks=4, drafts=12, tested=(4, 3, 1), accepted=(3, 2, 1))
    none = Acceptance.of([], 3)
    assert none.figures()["block_efficiency"] is none.figures()["acceptance_observed"] is None
    assert Acceptance.total([one, none, one]) == Acceptance(21, 11, 8, 24, (8, 6, 2), (6, 4, 2))
    figures = Acceptance.total([one, none]).figures()
    assert figures["block_efficiency"] == 9 / 4
    assert figures["acceptance_observed"] == 6 / 8
    assert figures["draft_utilisation"] == 6 / 12
    assert figures["tokens_per_verifier_call"] == 11 / 6


@pytest.mark.parametrize("share", [0, 1])
def test_an_oracle_accepts_what_it_is_set_to(share: int, tiny: Pair, manager: TaskManager) -> None:
    results: Any = evaluate("speculative", args([tiny[0], f"oracle:{share}"], gamma=3), **asked(manager, TASKS[:2]))
    for task in TASKS[:2]:
        samples = results["samples"][task]
        for sample in samples:
            (told,) = sample["speculative"]
            tokens = told["tokens"]
            assert told["blocks"] == (math.ceil((tokens - 1) / 4) if share else tokens - 1)
            assert told["verifier_calls"] == told["blocks"] + 1
            assert told["drafts"] == 3 * told["blocks"]
            assert told["acceptance_observed"] == share
        told = results["speculative"][task]
        assert (told["answers"], told["answers_without"]) == (2, 0)
        for count in ("tokens", "blocks", "drafts", "verifier_calls"):
            assert told[count] == sum(sample["speculative"][0][count] for sample in samples)
        for place in range(3):
            for counts in ("tested_by_position", "accepted_by_position"):
                assert told[counts][place] == sum(sample["speculative"][0][counts][place] for sample in samples)


@pytest.mark.slow
def test_each_answer_has_its_own_figures_whatever_the_filters_and_repeats(tiny: Pair, spied: Spied) -> None:
    rows = [{"question": f"Ann has {n} apples. "} for n in (1, 2, 1)]  # one is asked twice
    task = {
        "task": "toy", "custom_dataset": lambda **_: {"test": _dataset(rows)}, "output_type": "generate_until",
        "test_split": "test", "doc_to_text": "{{question}}", "doc_to_target": "{{question}}", "repeats": 2,
        "generation_kwargs": {"until": [], "do_sample": True, "temperature": 1.0, "max_gen_toks": 24},
        "filter_list": [{"name": "a", "filter": [{"function": "take_first"}]},
                        {"name": "b", "filter": [{"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    manager = TaskManager(include_defaults=False)
    ran = [
        evaluate("speculative", args(tiny), tasks=[dict(task)], task_manager=manager, bootstrap_iters=0, **more)
        for more in ({}, {"batch_size": 5}, {"torch_random_seed": 7})
    ]
    tokenizer = Speculative(*tiny).tokenizer
    blocks = {tokenizer.decode(ids, skip_special_tokens=True): count for ids, count in spied.made}
    assert len(set(blocks.values())) > 2
    for results in ran:
        assert results is not None
        samples = results["samples"]["toy"]
        assert len(samples) == 6
        texts = [text for sample in samples[:3] for text in sample["resps"][0]]
        assert len(set(texts)) == 6  # each drawn by itself
        for sample, again in zip(samples[:3], samples[3:], strict=True):
            assert sample["speculative"] == again["speculative"]
        for text, told in zip(texts, (told for one in samples[:3] for told in one["speculative"]), strict=True):
            assert told["blocks"] == blocks[text]
        assert results["speculative"]["toy"]["answers"] == 6
    drawn = [[sample["resps"] for sample in results["samples"]["toy"]] for results in ran if results]
    assert drawn[0] == drawn[1] != drawn[2]


def _dataset(rows: list[dict[str, str]]) -> Any:
    import datasets

    return datasets.Dataset.from_list(rows)


def test_a_cache_keeps_texts_and_what_was_accepted(
    tiny: Pair, manager: TaskManager, tmp_path: Path, spied: Spied
) -> None:
    run = partial(evaluate, "speculative", use_cache=str(tmp_path / "cache"), **asked(manager))
    task = TASKS[0]
    first: Any = run(args(tiny))
    spied.seen.clear()
    second: Any = run(args(tiny))
    assert not spied.seen
    assert second["samples"][task] == first["samples"][task]
    assert second["speculative"] == first["speculative"]
    other: Any = run(args(tiny, gamma=2))  # the texts are the same, what was accepted is not known
    assert not spied.seen
    assert answers(other, task) == answers(first, task)
    assert other["speculative"][task] == {"answers": 0, "answers_without": 2}
    assert [sample["speculative"] for sample in other["samples"][task]] == [[None], [None]]
    longer: Any = run(args(tiny), **{"limit": 3})
    assert len(spied.seen) == 1
    assert longer["speculative"][task]["answers"] == 3


def test_results_say_what_was_run(tiny: Pair, manager: TaskManager) -> None:
    results: Any = evaluate("speculative", args(tiny, gamma=2), **asked(manager, log_samples=False))
    assert "samples" not in results
    config = results["config"]
    assert (config["model"], config["drafter"], config["gamma"]) == ("speculative", tiny[1], 2)
    assert config["model_sha"].startswith("weights-sha256:") != config["drafter_sha"]
    assert results["speculative"][TASKS[0]]["answers"] == 2


# --------------------------------------------------------------------------- what is asked


def test_generation_options_become_the_rule(tiny: Pair, spied: Spied) -> None:
    ours = Speculative(*tiny)
    for given, sampling in (
        ({"do_sample": False, "temperature": 0.7}, SamplingParams()),
        ({"temperature": 0.0, "num_beams": 1}, SamplingParams()),
        ({"temperature": 0.7}, SamplingParams(temperature=0.7, top_k=50)),  # Transformers' own top-k
        ({"do_sample": True, "temperature": 1, "top_k": 0, "top_p": 0.9}, SamplingParams(temperature=1, top_p=0.9)),
    ):
        ours.generate_until([instance("Ann ", {"until": [], "max_new_tokens": 3, **given})], disable_tqdm=True)
        assert spied.rules.pop() == sampling
    assert set(spied.groups) == {"mgsm/te"}
    assert max(spied.seen.values()) == 3


@pytest.mark.slow
def test_drawn_texts_follow_the_law_of_hf(tiny: Pair) -> None:
    drawn = {"until": [], "do_sample": True, "temperature": 0.5, "top_p": 0.8, "max_gen_toks": 2}
    requests = [instance("Ann has 3 apples. ", dict(drawn), doc=doc) for doc in range(1500)]
    hf = HFLM(pretrained=tiny[0], device="cpu", dtype="float32", batch_size=500)
    torch.manual_seed(1)
    models = Speculative(*tiny, gamma=2, batch_size=100), hf
    counts = [Counter(model.generate_until(requests, disable_tqdm=True)) for model in models]
    common = [text for text, count in (counts[0] + counts[1]).most_common() if count >= 40]
    table = [
        [*(count[text] for text in common), len(requests) - sum(count[text] for text in common)] for count in counts
    ]
    assert len(common) > 8
    assert chi2_contingency(table).pvalue > 1e-3


def test_top_k_and_top_p_of_the_checkpoint_are_followed_and_what_is_not_is_told(
    tiny: Pair, spied: Spied, tmp_path: Path
) -> None:
    verifier = Path(shutil.copytree(tiny[0], tmp_path / "verifier"))
    config = json.loads((verifier / "generation_config.json").read_text())
    config |= {"do_sample": True, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1, "typical_p": 1.0}
    (verifier / "generation_config.json").write_text(json.dumps(config))
    ours = Speculative(str(verifier), tiny[1])
    ours.generate_until([instance("Ann ", {"temperature": 0.7, "max_gen_toks": 2})], disable_tqdm=True)
    assert spied.rules == [SamplingParams(temperature=0.7, top_k=20, top_p=0.8)]
    assert ours.get_model_info()["generation_config_not_followed"] == {"repetition_penalty": 1.1}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "need one verifier and one drafter"),
        ({"drafter": None}, "need one verifier and one drafter"),
        ({"pretrained": "x"}, "need one verifier and one drafter"),
        ({"gamma": 0}, "gamma=0: must be a whole number from 1 to 64"),
        ({"gamma": 65}, "gamma=65"),
        ({"batch_size": "auto"}, "batch_size=auto: must be a whole number from 1"),
        ({"device": "mps"}, "device=mps: unknown"),
        ({"backend": "causal"}, "unknown backend 'causal'. Known: auto, eager"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"load_in_8bit": True}, "unknown model option 'load_in_8bit'"),
        ({"trust_remote_code": True}, "trust_remote_code: code that comes with a model is never run"),
        ({"drafter_max_ngram": 3}, "unknown model option 'max_ngram'"),
        ({"drafter": "oracle:2"}, "must be from 0 to 1"),
        ({"drafter": "embedded:drafter"}, "its vocabulary"),
        ({"verifier": "nowhere/at/all"}, "no such folder"),
        ({"max_length": 600, "truncation": True}, "exceed the 512 positions"),
    ],
)
def test_pairs_that_do_not_fit_are_refused_in_one_line(
    given: dict[str, Any], reason: str, tiny: Pair, manager: TaskManager
) -> None:
    asking = {**args(tiny), **given} if given else {}
    options = asked(manager, ["fairspec_mgsm_te"]) | {
        "batch_size": asking.pop("batch_size", None),
        "device": asking.pop("device", None),
    }
    with pytest.raises(FairspecError, match=reason) as refused:
        evaluate("speculative", asking, **options)
    assert "\n" not in str(refused.value)


def test_a_prompt_too_long_for_the_drafter_is_refused(tiny: Pair, tmp_path: Path) -> None:
    drafter = Path(shutil.copytree(tiny[1], tmp_path / "drafter"))
    config = json.loads((drafter / "config.json").read_text())
    (drafter / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 50}))
    ours = Speculative(tiny[0], str(drafter))
    with pytest.raises(FairspecError, match=r"mgsm_te/7#0: .* exceed the 50 positions of .*drafter"):
        ours.generate_until([instance("Ann has 3 apples. " * 3, dict(CAP), doc=7)], disable_tqdm=True)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"num_beams": 4}, r"mgsm_te/0#0: num_beams=4: speculative decoding has no such option"),
        ({"max_length": 99}, "max_length=99"),
        ({"do_sample": True}, "needs a temperature above 0"),
        ({"temperature": 1, "top_p": 2}, "top_p=2"),
        ({"max_gen_toks": 512}, "must be from 1 to less than the 512 positions"),
        ({"max_gen_toks": 0}, "max_gen_toks=0"),
    ],
)
def test_generation_options_that_cannot_be_had_are_refused(given: dict[str, Any], reason: str, tiny: Pair) -> None:
    with pytest.raises(FairspecError, match=reason) as refused:
        Speculative(*tiny).generate_until([instance("Ann ", {"until": [], **given})], disable_tqdm=True)
    assert "\n" not in str(refused.value)


def test_empty_prompts_and_drawing_oracles_are_refused(tiny: Pair) -> None:
    with pytest.raises(FairspecError, match="the prompt has no token"):
        Speculative(*tiny).generate_until([instance("", dict(CAP))], disable_tqdm=True)
    with pytest.raises(FairspecError, match="works with greedy decoding only"):
        Speculative(tiny[0], "oracle:1").generate_until([instance("Ann", {"temperature": 1})], disable_tqdm=True)


# --------------------------------------------------------------------------- the command


@pytest.fixture
def fairspec(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `fairspec lm-eval` in this process, on our own tasks: lm-eval's 13,000 take seconds to list."""
    monkeypatch.setattr("lm_eval.tasks.TaskManager", partial(TaskManager, include_defaults=False))

    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["lm-eval", *map(str, arguments)])
        return (int(left.value.code or 0), *capsys.readouterr())

    return command


def test_the_command_writes_what_lm_eval_writes_and_acceptance(
    tiny: Pair, data_dir: Path, tmp_path: Path, fairspec: Any
) -> None:
    asking = ["--include_path", tasks_folder(), "--tasks", "fairspec_mgsm_sw,fairspec_embedded_math_sw", "--limit", 2]
    asking += ["--gen_kwargs", "max_gen_toks=24", "--log_samples", "--num_fewshot", 1, "--device", "cpu"]
    models = {"speculative": f"verifier={tiny[0]},drafter={tiny[1]},gamma=3", "hf": f"pretrained={tiny[0]}"}
    found = {}
    for model, given in models.items():
        out = tmp_path / model
        status, shown, _ = fairspec("--model", model, "--model_args", given, "--output_path", out, *asking)
        assert status == 0
        assert ("acceptance observed" in shown) == (model == "speculative")
        (folder,) = out.iterdir()
        (results,) = folder.glob("results_*.json")
        samples = {
            path.name.split("_2")[0]: [json.loads(line) for line in path.read_text().splitlines()]
            for path in folder.glob("samples_*.jsonl")
        }
        found[model] = folder.name, json.loads(results.read_text()), samples
    (name, results, samples), (like, theirs, expected) = found.values()
    assert name == like  # the verifier's name
    assert results["results"] == theirs["results"]
    assert (results["model_source"], results["config"]["gamma"]) == ("speculative", 3)
    assert samples.keys() == expected.keys()
    for task, lines in samples.items():
        told = [line.pop("speculative") for line in lines]
        assert lines == expected[task]
        summed = results["speculative"][task.removeprefix("samples_")]
        assert summed["tokens"] == sum(one["tokens"] for (one,) in told)
        assert summed["accepted_by_position"] == [
            sum(counts) for counts in zip(*(one["accepted_by_position"] for (one,) in told), strict=True)
        ]


def test_the_command_says_what_is_wrong_in_one_line(tiny: Pair, tmp_path: Path, fairspec: Any) -> None:
    pair = ["--model", "speculative", "--model_args", f"verifier={tiny[0]},drafter={tiny[1]}"]
    for more, reason in (
        (["--tasks", "no_such_task"], "lm-eval: Tasks not found: no_such_task. See"),
        (["--tasks", "fairspec_embedded_math_en", "--trust_remote_code"], "trust_remote_code"),
        (["--tasks", "fairspec_embedded_math_en", "--log_samples"], "lm-eval: Specify --output_path"),
        (["--tasks", "fairspec_embedded_math_en", "--gen_kwargs", "num_beams=2"], "num_beams=2"),
    ):
        status, _, shown = fairspec(*pair, "--include_path", tasks_folder(), *more)
        assert status == 2
        assert [line for line in shown.splitlines() if line.startswith("fairspec: ")] == [shown.splitlines()[-1]]
        assert reason in shown.splitlines()[-1]


def test_help_says_what_is_added_and_where_the_rest_is(fairspec: Any) -> None:
    status, shown, _ = fairspec("--help")
    assert status == 0
    assert "--model speculative" in shown
    assert "lm-eval ls tasks" in shown
    status, shown, _ = fairspec("run", "--help")
    assert status == 0
    assert "--num_fewshot" in shown


def test_what_is_not_installed_is_named(fairspec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("fairspec_bench.api.lm_eval", "lm_eval.models.huggingface"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("fairspec_bench.api.lm_eval")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    status, _, shown = fairspec("ls", "tasks")
    assert (status, shown) == (2, "fairspec: lm-eval: its hf model needs accelerate. pip install accelerate.\n")


def test_help_loads_no_engine() -> None:
    code = (
        "import sys; from fairspec_bench.cli.main import main\n"
        "try: main(['lm-eval', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'lm_eval', 'transformers'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
