"""Hub ids and revisions without a network, from a cache laid out as the Hub's client does; commits are what is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from huggingface_hub import constants
from tiny_pair import save_pair
from transformers import AutoModelForCausalLM

from fairspec_bench.cli.main import main
from fairspec_bench.models import hub
from fairspec_bench.models.adapters import adapter_sha256
from fairspec_bench.models.codec import Codec
from fairspec_bench.models.model import load_model
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.io import read_record

OLD, NEW, DRAFT, PEFT = (digit * 40 for digit in "1234")


class Cache:
    """The folder `models--OWNER--NAME` with `refs` and `snapshots` of each model."""

    def __init__(self, root: Path):
        self.root = root

    def put(self, name: str, commit: str, files: Path, *refs: str) -> Path:
        """Keep a folder's files under a commit, which branches or tags then mean."""
        home = self.root / f"models--{name.replace('/', '--')}"
        snapshot = home / "snapshots" / commit
        shutil.copytree(files, snapshot)
        for ref in refs:
            self.point(name, ref, commit)
        return snapshot

    def point(self, name: str, ref: str, commit: str) -> None:
        path = self.root / f"models--{name.replace('/', '--')}" / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Two pairs of the same tokenizer."""
    return [save_pair(tmp_path_factory.mktemp("pair"), seed=seed) for seed in (0, 1)]


@pytest.fixture
def cache(pairs: list[tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """The verifier's first commit is its tag `v1`, its second its branches `main` and `pr/1`."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    made = Cache(tmp_path / "hub")
    made.put("org/verifier", OLD, pairs[0][0], "v1")
    made.put("org/verifier", NEW, pairs[1][0], "main", "pr/1")
    made.put("org/drafter", DRAFT, pairs[0][1], "main")
    return made


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(FairspecError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("revision", "commit"), [(None, NEW), ("main", NEW), ("pr/1", NEW), ("v1", OLD), (OLD, OLD), (NEW, NEW)]
)
def test_a_revision_is_the_commit_it_means(
    cache: Cache, pairs: list[tuple[Path, Path]], revision: str | None, commit: str
) -> None:
    model = load_model("org/verifier", revision=revision)
    assert model.revision == model.identity == commit
    folder = pairs[0 if commit == OLD else 1][0]
    assert model.weights_sha256 == load_model(str(folder)).weights_sha256
    assert Codec("org/verifier", revision=revision).tokenizer_sha256 == Codec(str(folder)).tokenizer_sha256


def test_model_and_tokenizer_are_of_one_commit(cache: Cache) -> None:
    for revision in (None, "v1", OLD):
        assert hub.locate("org/verifier", revision) == hub.locate_tokenizer("org/verifier", revision)


def test_what_is_not_in_the_cache_is_one_line(cache: Cache) -> None:
    for call in (load_model, Codec):
        message = refusal(lambda call=call: call("org/verifier", revision="v9"))
        assert message.startswith("org/verifier: revision 'v9' is not whole in the Hub cache")
        assert f"main, pr/1, v1, {OLD}, {NEW}" in message
        assert "not in the Hub cache" in refusal(lambda call=call: call("org/other"))
        assert "no Hub id" in refusal(lambda call=call: call("org/x/y"))
        assert "no Hub id" in refusal(lambda call=call: call("org/a--b"))


def test_a_snapshot_that_was_not_fetched_whole_is_no_model(cache: Cache) -> None:
    snapshot = cache.root / "models--org--verifier/snapshots" / NEW
    (snapshot / "model.safetensors").unlink()
    assert "main is not whole in the Hub cache" in refusal(lambda: load_model("org/verifier"))
    assert load_model("org/verifier", revision="v1").revision == OLD


def test_pickled_weights_alone_are_refused(cache: Cache, pairs: list[tuple[Path, Path]], tmp_path: Path) -> None:
    """In a folder and in the cache, where they are not taken for a download that broke off."""
    folder = shutil.copytree(pairs[0][1], tmp_path / "old")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    cache.put("org/old", OLD, folder, "main")
    for name in (str(folder), "org/old"):
        message = refusal(lambda name=name: load_model(name))
        assert message.startswith(f"{name}: its weights are pickled (pytorch_model.bin)")
        assert "save_pretrained, which writes safetensors" in message
    (folder / "pytorch_model.bin").unlink()
    assert "no *.safetensors" in refusal(lambda: load_model(str(folder)))


def test_an_adapter_names_its_base_by_id_and_revision(
    cache: Cache, pairs: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    """Both are found in the cache: the base at the adapter's own revision of it, not at `main`."""
    base = AutoModelForCausalLM.from_pretrained(pairs[0][0])
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    said = json.loads((tmp_path / "adapter" / hub.ADAPTER).read_text())
    said |= {"base_model_name_or_path": "org/verifier", "revision": "v1"}
    (tmp_path / "adapter" / hub.ADAPTER).write_text(json.dumps(said))
    snapshot = cache.put("org/adapter", PEFT, tmp_path / "adapter", "main")
    model = load_model("org/adapter")
    assert model.revision == PEFT
    assert model.identity == f"{OLD}+adapter-sha256:{adapter_sha256(snapshot)}"
    assert model.vocabulary == load_model("org/verifier").vocabulary
    assert Codec("org/adapter").tokenizer_sha256 == Codec("org/verifier").tokenizer_sha256


# --------------------------------------------------------------------------- a whole run


def run(out: Path, *more: str) -> int | str | None:
    options = "--suite embedded_math --languages en --limit 3 --max_new_tokens 12 --batch_size 2 --race_rounds 0"
    with pytest.raises(SystemExit) as ended:
        main(["run", "org/verifier", "org/drafter", *options.split(), "--out", str(out), *more])
    return ended.value.code


def test_a_run_writes_down_commits_and_refuses_to_go_on_with_others(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRSPEC_CACHE_DIR", str(tmp_path / "cache"))
    assert run(tmp_path / "tag", "--model_args", "revision=v1", "--drafter_args", f"revision={DRAFT}") == 0
    config = read_record(tmp_path / "tag/run.json", RunConfig)
    assert config.drafter is not None
    assert (config.verifier.revision, config.drafter.revision) == (OLD, DRAFT)
    assert (config.verifier.name, config.verifier.options) == ("org/verifier", {})

    assert run(tmp_path / "branch") == 0
    assert read_record(tmp_path / "branch/run.json", RunConfig).verifier.revision == NEW
    cache.point("org/verifier", "main", OLD)
    capsys.readouterr()
    assert run(tmp_path / "branch") == 2
    assert "verifier" in capsys.readouterr().err
    assert run(tmp_path / "branch", "--model_args", f"revision={NEW}") == 0
    capsys.readouterr()
    assert run(tmp_path / "other", "--model_args", "revision=v9") == 2
    assert capsys.readouterr().err.count("\n") == 1


# --------------------------------------------------------------------------- the embedded pair


def test_an_embedded_model_is_located_like_any_other() -> None:
    place = hub.locate("embedded:drafter")
    assert (place.folder.name, place.commit) == ("drafter", None)
    assert hub.locate_tokenizer("embedded:verifier").folder == hub.local_folder("embedded:verifier")
    assert load_model("embedded:drafter").home == place.folder
    for unknown in ("embedded:", "embedded:large", "embedded:../embedded/drafter"):
        with pytest.raises(FairspecError, match=r"embedded model .* Known: embedded:drafter, embedded:verifier\."):
            hub.locate(unknown)
