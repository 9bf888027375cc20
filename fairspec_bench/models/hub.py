"""Where the files of a model are: in the package, a folder, or the Hugging Face Hub's cache (filled if reachable).

Loads nothing. Whether the Hub answers is found out in 1.5 s, where its own client retries for a minute.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fairspec_bench.models.gguf import check_header, file_sha256, is_gguf, unpack
from fairspec_bench.schemas.base import EMBEDDED as EMBEDDED
from fairspec_bench.schemas.base import FairspecError, unknown
from fairspec_bench.schemas.base import one_line as one_line

TIMEOUT_SECONDS = 1.5
HOME = "https://huggingface.co"
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
HUB_GGUF = re.compile(r"(\w[\w.-]*/\w[\w.-]*):((?:\w[\w.-]*/)*\w[\w.-]*\.gguf)")
GGUF_HASH = re.compile(r"gguf-sha256:[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_ADAPTER_BYTES = 2**20
_TEXT = ("*.json", "*.model", "*.txt", "*.jinja")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


class PickledWeightsError(FairspecError):
    """A model whose only weights are pickled."""


# --------------------------------------------------------------------------- is it reachable


def offline() -> bool:
    """Whether the user asked for no network (`HF_HUB_OFFLINE`): only what is cached may be used."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def endpoint() -> str:
    """The Hub's address (`HF_ENDPOINT`)."""
    return os.environ.get("HF_ENDPOINT") or HOME


def reachable(timeout: float = TIMEOUT_SECONDS) -> bool:
    """Whether the Hub (`HF_ENDPOINT`, proxies honoured) answers within `timeout` seconds; never when `offline()`."""
    if offline():
        return False
    answered = threading.Event()

    def ask() -> None:
        if _answers(endpoint(), timeout):
            answered.set()

    # A DNS look-up has no timeout, hence a thread that can be abandoned.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answered.is_set()


def _answers(address: str, timeout: float) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # A certificate that only the client's settings accept is still an answer.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):
        return False
    return True


# --------------------------------------------------------------------------- the files of a model


class ModelFiles(NamedTuple):
    """The folder that holds a model's files, and its commit on the Hub (`None` for a plain folder).

    Of a GGUF file: the folder that it was unpacked into, and `gguf-sha256:` with the file's hash.
    """

    folder: Path
    commit: str | None


class AdapterBase(NamedTuple):
    """The model that an adapter was made for, by its `adapter_config.json`; `None` where that names none."""

    name: str | None
    revision: str | None


def local_folder(name: str) -> Path | None:
    """The folder of an embedded model (`embedded:verifier`), a path or a GGUF file; `None` for a Hub id.

    Raises `FairspecError` for an embedded model that does not exist, and a GGUF file that cannot be unpacked.
    """
    if is_gguf(name):
        return unpack(_gguf_file(name)).folder
    if name.startswith(EMBEDDED):
        folders = {folder.name: folder for folder in sorted(Path(__file__).with_name("embedded").iterdir())}
        folder = folders.get(name.removeprefix(EMBEDDED))
        if folder is None:
            raise unknown("embedded model", name, (EMBEDDED + known for known in folders))
        return folder
    path = Path(name).expanduser()
    return path if path.is_dir() else None


def find_local(name: str) -> Path | None:
    """`local_folder`, but raises `FairspecError` for a name that is neither a folder nor a Hub id."""
    folder = local_folder(name)
    if folder is None and not HUB_ID.fullmatch(name):
        raise FairspecError(f"{name}: no such folder, and no Hub id (owner/name). Give one of the two.")
    return folder


def check_name(name: str) -> None:
    """Raise `FairspecError` for a name that can be no model's; unpacks nothing."""
    if not is_gguf(name):
        find_local(name)
    elif not HUB_GGUF.fullmatch(name):
        check_header(_gguf_file(name))


def locate(name: str, revision: str | None = None) -> ModelFiles:
    """The files of a model or an adapter, by `embedded:` name, folder or Hub id; what is cached needs no network.

    Raises `FairspecError` in one line for one that is missing, gated, incomplete or without safetensors.
    """
    return _place(name, revision, (*_TEXT, "*.safetensors"), _require_safetensors)


def locate_tokenizer(name: str, revision: str | None = None) -> ModelFiles:
    """The tokenizer of a model; for an adapter without one its base's. Raises `FairspecError`."""
    place = _place(name, revision, _TEXT, _require_tokenizer)
    base = read_base(place.folder)
    if base is None or has_tokenizer(place.folder):
        return place
    if base.name is None:
        raise FairspecError(f"{name}: an adapter without a tokenizer, and {ADAPTER} names no base. Add its tokenizer.")
    return _place(base.name, base.revision, _TEXT, _require_tokenizer)


def read_base(folder: Path) -> AdapterBase | None:
    """The base of the adapter in a folder, `None` if there is no adapter. Raises `FairspecError` if damaged."""
    path = folder / ADAPTER
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_ADAPTER_BYTES:
        raise FairspecError(f"{path}: larger than {MAX_ADAPTER_BYTES} bytes. Save the adapter again.")
    try:
        said = json.loads(path.read_bytes())
        name, revision = said.get("base_model_name_or_path"), said.get("revision")
    except (ValueError, AttributeError, RecursionError) as error:
        raise FairspecError(f"{path}: damaged ({one_line(error)}). Save the adapter again.") from None
    if not all(isinstance(each, str | None) for each in (name, revision)):
        raise FairspecError(f"{path}: base_model_name_or_path and revision must be text. Save the adapter again.")
    return AdapterBase(name or None, revision or None)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a tokenizer."""
    return any((folder / file).is_file() for file in _TOKENIZERS)


def _place(name: str, revision: str | None, files: tuple[str, ...], require: Callable[[Path, str], None]) -> ModelFiles:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if is_gguf(name):
        by_hash = bool(GGUF_HASH.fullmatch(revision or ""))
        file = _gguf_file(name, None if by_hash else revision)
        found = f"gguf-sha256:{file_sha256(file)}"
        if by_hash and found != revision:
            raise FairspecError(f"{name}: its revision is {found}, not {revision}. Fetch that file, or correct this.")
        return ModelFiles(unpack(file).folder, found)
    local = find_local(name)
    if local is not None:
        require(local, name)
        return ModelFiles(local, None)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(files), local_files_only=True))
        require(folder, name)
    except HFValidationError as error:
        raise FairspecError(
            f"{name}: no such folder, and no Hub id ({one_line(error)}). Give one of the two."
        ) from None
    except (LocalEntryNotFoundError, FairspecError) as error:
        if isinstance(error, PickledWeightsError) and not reachable():
            raise
        folder = _download(name, revision, files)
        require(folder, name)
    return ModelFiles(folder, folder.name)


def _gguf_file(name: str, revision: str | None = None) -> Path:
    """A GGUF file by its path, or as `owner/name:file.gguf` of the Hub. Raises `FairspecError`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    path, on_hub = Path(name).expanduser(), HUB_GGUF.fullmatch(name)
    if path.is_file():
        return path
    if on_hub is None:
        raise FairspecError(f"{name}: no such file. Give a GGUF file, or one of the Hub (owner/name:file.gguf).")
    repository, file = on_hub.groups()
    with suppress(HFValidationError, LocalEntryNotFoundError):
        home = snapshot_download(repository, revision=revision, allow_patterns=[file], local_files_only=True)
        path = Path(home, file)
    if not path.is_file():
        path = _download(repository, revision, (file,)) / file
    if not path.is_file():
        raise FairspecError(f"{name}: {repository} has no such file. See {HOME}/{repository}.")
    return path


def _download(name: str, revision: str | None, files: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if not reachable():
        raise FairspecError(_not_here(name, revision))
    page = f"{HOME}/{name}"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except GatedRepoError:
        raise FairspecError(f"{name}: gated model. Accept its licence at {page}, then set HF_TOKEN.") from None
    except RevisionNotFoundError:
        raise FairspecError(f"{name}: no revision {revision!r} at {page}.") from None
    except RepositoryNotFoundError:
        raise FairspecError(f"{name}: neither a folder nor a model at {page} (a private one needs HF_TOKEN).") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise FairspecError(f"{name}: cannot be fetched from {page} ({one_line(error)}). Try again.") from error


def _not_here(name: str, revision: str | None) -> str:
    """Why a model cannot be found without the Hub."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    home = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    kept = sorted(str(path.relative_to(home / "refs")) for path in (home / "refs").rglob("*") if path.is_file())
    kept += sorted(path.name for path in (home / "snapshots").glob("*"))
    if not kept:
        return (
            f"{name}: no such folder, not in the Hub cache, and the Hub cannot be reached. "
            "Give a folder, or fetch the model on a connected machine."
        )
    wanted = f"revision {revision!r}" if revision else "main"
    return (
        f"{name}: {wanted} is not whole in the Hub cache (revisions there: {', '.join(kept[:6])}), and the Hub cannot "
        "be reached. Give one of these with revision=, or fetch it on a connected machine."
    )


def _require_safetensors(folder: Path, name: str) -> None:
    if (folder / ADAPTER).is_file():
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise FairspecError(f"{name}: an adapter without {ADAPTER_WEIGHTS}; other formats are refused. Convert it.")
        return
    if not (folder / "config.json").is_file():
        raise FairspecError(f"{name}: no config.json in {folder}. Give a folder saved by save_pretrained.")
    index = folder / "model.safetensors.index.json"
    try:
        wanted = sorted(set(json.loads(index.read_bytes())["weight_map"].values())) if index.is_file() else []
    except (ValueError, KeyError, AttributeError) as error:
        raise FairspecError(f"{index}: damaged ({one_line(error)}). Fetch the model again.") from error
    if lost := [file for file in wanted if not (folder / file).is_file()]:
        raise FairspecError(f"{name}: {lost[0]} is missing in {folder}. Fetch the model again.")
    if not any(folder.glob("*.safetensors")):
        if pickled := sorted(path.name for kind in _PICKLED for path in folder.glob(kind)):
            raise PickledWeightsError(
                f"{name}: its weights are pickled ({pickled[0]}), and loading a pickle may run its code. Convert them: "
                "load them with Transformers where you trust them, then save_pretrained, which writes safetensors."
            )
        raise FairspecError(f"{name}: no *.safetensors in {folder}; other formats are refused. Convert it first.")


def _require_tokenizer(folder: Path, name: str) -> None:
    if not has_tokenizer(folder) and not (folder / ADAPTER).is_file():
        raise FairspecError(f"{name}: no tokenizer could be loaded: none in {folder}. Save the model's there too.")


# --------------------------------------------------------------------------- commits


def resolve(model: str, revision: str | None = None) -> str:
    """The commit, 40 hex digits, that a branch or tag of a model on the Hub now means. Raises `FairspecError`."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if not reachable():
        raise FairspecError(f"{model}: the Hub cannot be reached ({endpoint()}). A revision is pinned where it can.")
    page = f"{HOME}/{model}"
    try:
        found = HfApi(endpoint=endpoint()).model_info(model, revision=revision, timeout=30).sha
    except RevisionNotFoundError:
        raise FairspecError(f"{model}: no revision {revision!r} at {page}.") from None
    except GatedRepoError:
        raise FairspecError(f"{model}: gated model. Accept its licence at {page}, then set HF_TOKEN.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise FairspecError(f"{model}: no model at {page} (a private one needs HF_TOKEN).") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise FairspecError(f"{model}: no answer from {page} ({one_line(error)}). Try again.") from error
    if not COMMIT.fullmatch(found or ""):
        raise FairspecError(f"{model}: the Hub gave no commit ({found!r}). Try again.")
    return str(found)
