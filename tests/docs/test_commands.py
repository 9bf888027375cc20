"""The commands in README, CONTRIBUTING, docs and tutorials work: those of each page are run in a copy of the checkout.

`console`, `bash` and `python` blocks run from top to bottom, a process a command. The tables below say what is
replaced, what is added to make a command short, and what is only parsed. A command in none of them runs as written; an
entry that matches no command fails. A comment `…: exit 1` says the status. An `sh` block is a template
(a cluster, a script): parsed. Options of every `fairspec` command, in a block or in a sentence, must exist. docs/howto
has a test of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

import fairspec_bench as fairspec
from fairspec_bench.cli.main import app

ROOT = Path(__file__).parents[2]

# --------------------------------------------------------------------------- the tables

PLACEHOLDERS = {
    "VERIFIER DRAFTER": "embedded:verifier embedded:drafter",
    "fairspec run … ": "fairspec run embedded:verifier embedded:drafter --suite embedded_math ",
    "--suite mgsm": "--suite embedded_math",  # eight shots are more than the built-in pair can read
    "--prompts DIR": "--prompts prompts",
    "--private DIR": "--private prompts",
    "--drafter DIR": "--drafter embedded:drafter",
    "--drafter ./my-drafter": "--drafter embedded:drafter",
    "submissions/NAME": "submissions/named",
    "submissions/SLUG": "submissions/plain",
    '"runs/python", limit=10)': '"runs/python", limit=1, languages=["en"], race_rounds=0)',
}
"""What a document writes, and what is put there."""

LANGUAGES = ("en", "ja")
FEW = "--languages en,ja --limit 2"
PROMPTED = (
    '--name Mine --description Short. --author "A. Nother" --contact a@example.org --licence Apache-2.0 '
    "--url https://example.org/drafter --training_data None."
)
"""What `submit new` prompts for on a terminal."""
SWEPT = (
    "--languages en --limit 4 --batch_size 2,1 --max_new_tokens 16 --race_prompts 4 --race_rounds 1 --out runs/swept"
)
TUNED = "--languages en,ja --limit 5 --steps 1"
AUDIT = "--sample 1 --fresh 2 --seed 0"
CLAIMS = f"{FEW} --seeds 1 --steps 1 --training_limit 5 --race_rounds 0"

ADDED = (
    ("README.md", "fairspec run VERIFIER DRAFTER --suite mgsm --languages", "--limit 2 --race_rounds 0"),
    ("docs/COMMANDS.md", "fairspec run VERIFIER DRAFTER --suite mgsm --languages", "--limit 2 --race_rounds 0"),
    ("README.md", "fairspec plan", FEW),
    ("docs/COMMANDS.md", "fairspec plan", FEW),
    ("README.md", "fairspec mitigate", TUNED),
    ("docs/COMMANDS.md", "fairspec mitigate", TUNED),
    ("docs/COMMANDS.md", "fairspec submit new", PROMPTED),
    ("docs/COMMANDS.md", "fairspec run … --shard", f"{FEW} --race_rounds 0"),
    ("docs/COMMANDS.md", "fairspec run … --gamma", SWEPT),
    ("CONTRIBUTING.md", "fairspec submit audit", AUDIT),
    ("docs/LM-EVAL.md", "fairspec lm-eval", "--limit 1"),
    ("docs/SUBMITTING.md", "fairspec submit new", PROMPTED),
    ("docs/SUBMITTING.md", "fairspec submit score", "--race_rounds 0"),
    ("docs/tutorials/publish.md", "fairspec submit audit", AUDIT),
    ("docs/tutorials/publish.md", "fairspec run", "--limit 2"),
    ("docs/tutorials/reproduce.md", "fairspec reproduce --limit", CLAIMS),
    ("docs/tutorials/reproduce.md", "fairspec reproduce embedded:verifier,my-drafter", FEW),
    ("docs/tutorials/reproduce.md", "fairspec mitigate", TUNED),
    ("docs/tutorials/reproduce.md", "fairspec run embedded:verifier tuned", FEW),
    ("docs/tutorials/reproduce.md", "fairspec run embedded:verifier embedded:drafter", f"{FEW} --race_rounds 1"),
    ("docs/tutorials/submit.md", "fairspec mitigate", TUNED),
    ("docs/tutorials/submit.md", "fairspec run", "--limit 2"),
)
"""Document, start of a command, options added to it: the last value of an option counts."""

LOOKUP = "fairspec run embedded:verifier lookup --suite embedded_math"
FIRST = {"docs/COMMANDS.md": f"{LOOKUP} {FEW} --race_rounds 0 --out runs/y"}
"""What a document assumes was run before."""

LONGEST = 300
"""Seconds that one command may take on a busy machine; put a longer one into a table."""

HOURS, GPU, SERVER = "hours, or many minutes", "needs a GPU", "serves until it is stopped"
REMOTE, TUTORIAL = "needs a clone with a remote", "run, made short, in docs/tutorials/reproduce.md"
NETWORK, MAKE, VLLM = "needs the network", "run by .ci/run itself", "needs vLLM: run by make vllm"
OTHER_TRACK = "needs a track of data sets from elsewhere"
RACED = "needs a timed run: tests/metrics/test_advice.py"
PARSED = (
    ("*", "make ", MAKE),
    ("*", "fairspec site serve", SERVER),
    ("*", "git ", REMOTE),
    ("docs/tutorials/publish.md", "gh ", REMOTE),
    ("docs/tutorials/publish.md", "fairspec submit check --changed-from", REMOTE),
    ("CONTRIBUTING.md", 'fairspec submit audit submissions/SLUG --auditor "Your name" --private', OTHER_TRACK),
    ("README.md", "fairspec advise", RACED),
    ("docs/COMMANDS.md", "fairspec advise", RACED),
    ("docs/COMMANDS.md", "fairspec reproduce", TUTORIAL),
    ("docs/COMMANDS.md", "fairspec study", HOURS),
    ("docs/COMMANDS.md", "fairspec testbed", HOURS),
    ("docs/COMMANDS.md", "fairspec run … --backend compile", HOURS),
    ("docs/MODELS.md", "fairspec pin", NETWORK),
    ("docs/MODELS.md", "fairspec run BIG SMALL", NETWORK),
    ("docs/MODELS.md", "fairspec run big-q4_k_m.gguf", NETWORK),
    ("docs/REPRODUCING.md", "fairspec reproduce qwen2.5", GPU),
    ("docs/REPRODUCING.md", "fairspec reproduce", TUTORIAL),
    ("docs/VLLM.md", "", VLLM),
)
"""Document or `*`, start of a command, why it is not run here but only parsed."""

# --------------------------------------------------------------------------- reading documents

MARKDOWN = ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/tutorials/*.md")
FOLLOWED = sorted(str(path.relative_to(ROOT)) for pattern in MARKDOWN for path in ROOT.glob(pattern))
READ = sorted({*FOLLOWED, *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))})
FENCE = re.compile(r"^```(?P<kind>console|bash|sh|python)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"(?:^|\s+)# .*$")
STATUS = re.compile(r": exit (\d)$")
INLINE = re.compile(r"`(fairspec [^`]+)`")


class Command(NamedTuple):
    document: str
    kind: str
    text: str
    status: int = 0

    def begins(self, entry: tuple[str, str, str]) -> bool:
        return entry[0] in ("*", self.document) and " ".join(self.text.split()).startswith(entry[1])


def commands_of(document: str) -> Iterator[Command]:
    """The commands of a document's blocks; a Python block is one."""
    for block in FENCE.finditer((ROOT / document).read_text(encoding="utf-8")):
        if block["kind"] == "python":
            yield Command(document, "python", block["body"])
            continue
        for line in re.sub(r"\s*\\\n\s*", " ", block["body"]).splitlines():
            if text := COMMENT.sub("", line).strip():
                said = STATUS.search(line)
                yield Command(document, block["kind"], text, int(said[1]) if said else 0)


def to_run(command: Command) -> str | None:
    """What is run for a command; `None` if it is only parsed."""
    if command.kind == "sh" or any(command.begins(entry) for entry in PARSED):
        return None
    text = command.text
    for old, put in PLACEHOLDERS.items():
        text = text.replace(old, put)
    return " ".join([text, *(entry[2] for entry in ADDED if command.begins(entry))])


# --------------------------------------------------------------------------- the copy


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout whose track `embedded` is a few prompts long, its baseline, and a folder of prompts."""
    copy = tmp_path_factory.mktemp("checkout") / "fairspec-bench"
    for name in ("fairspec_bench", "tasks", "leaderboard"):
        shutil.copytree(ROOT / name, copy / name)
    shutil.copytree(ROOT / "docs", copy / "docs", ignore=shutil.ignore_patterns("results"))
    shutil.copy(ROOT / "CHANGELOG.md", copy)
    run, tracks, plain = copy / "runs" / "few", copy / "tasks" / "tracks", copy / "submissions" / "plain"
    pair, suites = ("embedded:verifier", "embedded:drafter"), ["embedded_math", "embedded_story"]
    fairspec.run(*pair, suites, run, languages=LANGUAGES, limit=2, race_rounds=0)
    for path in tracks.iterdir():
        path.unlink()
    fairspec.new_track(run, "embedded", title="Few", about="The built-in pair", baseline="plain", folder=tracks)
    described: dict[str, Any] = {"name": "Plain", "description": "Short.", "authors": ("A. Nother",)}
    described |= {"contact": "a@example.org", "licence": "Apache-2.0", "url": "https://example.org/drafter"}
    fairspec.submit_new(plain, "embedded", pair[1], training_data="None.", tracks=tracks, **described)
    fairspec.submit_score(plain, race_rounds=0, tracks=tracks)
    prompts = copy / "prompts"
    prompts.mkdir()
    for language in LANGUAGES:
        lines = [f"{language}: {number} sheep and {number + 3} sheep are?\n" for number in range(5)]
        (prompts / f"{language}.txt").write_text("".join(lines), encoding="utf-8")
    return copy


def done(command: str, kind: str, home: Path) -> subprocess.CompletedProcess[str]:
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(home),
        "FAIRSPEC_CACHE_DIR": str(home / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    asked = [sys.executable, "-c", command] if kind == "python" else ["bash", "-e", "-o", "pipefail", "-c", command]
    # `timeout` ends whatever the command started, too; its status is 124.
    asked = ["timeout", str(LONGEST), *asked]
    return subprocess.run(
        asked,
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("document", FOLLOWED)
def test_every_command_works(document: str, checkout: Path, tmp_path: Path) -> None:
    home = tmp_path / "fairspec-bench"
    shutil.copytree(checkout, home)
    first = [Command(document, "console", FIRST[document])] if document in FIRST else []
    for command in (*first, *commands_of(document)):
        text = to_run(command)
        if text is not None:
            found = done(text, command.kind, home)
            assert found.returncode == command.status, f"{document}: {text}\n{found.stdout}\n{found.stderr}"


# --------------------------------------------------------------------------- what is not run


def check_options(text: str) -> None:
    """Raise for a command or an option of ours that does not exist, in any part of a shell command."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;><")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in (*lexer, ";"):
        if set(word) <= set("|&;><"):
            _check_words(words)
            words = []
        else:
            words.append(word)


def _check_words(words: list[str]) -> None:
    if "fairspec" not in words:
        return
    command, rest = typer.main.get_command(app), words[words.index("fairspec") + 1 :]
    context = command.context_class(command, **command.context_settings)
    while True:
        rest = command.make_parser(context).parse_args(list(rest))[1]
        if not hasattr(command, "get_command") or not rest or "…" in rest[0]:
            return
        name, *rest = rest
        found = command.get_command(context, name)
        assert found is not None, f"no such command: fairspec {name}"
        command, context = found, found.context_class(found, parent=context, **found.context_settings)


@pytest.mark.parametrize("document", READ)
def test_every_option_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    shell = [command.text for command in commands_of(document) if command.kind != "python"]
    for command in (*shell, *(" ".join(found.split()) for found in INLINE.findall(text))):
        try:
            check_options(command)
        except Exception as error:
            pytest.fail(f"{document}: {command}: {getattr(error, 'format_message', lambda error=error: error)()}")


def test_a_wrong_option_is_seen() -> None:
    check_options("FAIRSPEC_DATA_DIR=x fairspec run A B --suite mgsm && fairspec submit check x | head -3")
    for wrong in ("make x; fairspec run A B --suit mgsm", "fairspec submit chek x", "fairspec site build --limit 3"):
        with pytest.raises(Exception, match=r"(?i)no such"):
            check_options(wrong)


def test_no_exception_is_stale() -> None:
    known = [command for document in FOLLOWED for command in commands_of(document)]
    stale = [str(entry) for entry in (*ADDED, *PARSED) if not any(command.begins(entry) for command in known)]
    stale += [old for old in PLACEHOLDERS if not any(old in command.text for command in known)]
    assert [*stale, *(FIRST.keys() - set(FOLLOWED))] == []
