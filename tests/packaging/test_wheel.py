"""What is published: wheel and source distribution are complete, and the wheel alone does the main job.

Installed into an empty folder elsewhere, never seen through the checkout.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CARRIED = {
    "tasks": "_tasks",
    "leaderboard": "_leaderboard",
    "CHANGELOG.md": "_docs/CHANGELOG.md",
    "docs/GLOSSARY.md": "_docs/GLOSSARY.md",
    "docs/METRICS.md": "_docs/METRICS.md",
    "docs/REPRODUCING.md": "_docs/REPRODUCING.md",
    "docs/RULES.md": "_docs/RULES.md",
    "docs/SUBMITTING.md": "_docs/SUBMITTING.md",
}
"""What lies beside the package in a checkout, and where in the package the wheel has it."""


def run(*command: str, cwd: Path, status: int = 0, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def build(*options: str, out: Path) -> None:
    run(sys.executable, "-m", "build", *options, "--no-isolation", "--outdir", str(out), str(ROOT), cwd=out.parent)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout."""
    out = tmp_path_factory.mktemp("built") / "wheel"
    build("--wheel", out=out)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("built") / "sdist"
    build(out=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def files_below(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if "__pycache__" not in name}


def unzipped(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def unpacked(sdist: Path) -> dict[str, bytes]:
    with tarfile.open(sdist) as opened:
        files = [(member.name.partition("/")[2], opened.extractfile(member)) for member in opened if member.isfile()]
        return {name: file.read() for name, file in files if file is not None}


def test_the_wheel_has_everything(wheel: Path) -> None:
    found = unzipped(wheel)
    wanted = {f"fairspec_bench/{name}": body for name, body in files_below(ROOT / "fairspec_bench").items()}
    for source, place in CARRIED.items():
        path = ROOT / source
        bodies = {"": path.read_bytes()} if path.is_file() else {f"/{n}": b for n, b in files_below(path).items()}
        wanted |= {f"fairspec_bench/{place}{name}": body for name, body in bodies.items()}
    assert "fairspec_bench/py.typed" in wanted
    about = {name for name in found if ".dist-info/" in name}
    assert {name: body for name, body in found.items() if name not in about} == wanted
    assert {name.partition("/")[2] for name in about} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip


def test_the_source_distribution_has_all_but_lines_of_runs_and_builds_the_same_wheel(
    published: tuple[Path, Path], wheel: Path
) -> None:
    sdist, again = published
    assert unzipped(again) == unzipped(wheel)
    found = unpacked(sdist)
    assert sum(map(len, found.values())) < 16 * 2**20
    assert not any(name.startswith("submissions/") for name in found)
    for folder in ("fairspec_bench", "tasks", "leaderboard", "tests", "docs"):
        wanted = {f"{folder}/{name}": body for name, body in files_below(ROOT / folder).items()}
        left = (
            r"docs/results/(.+\.jsonl(\.gz)?|[^/]+/report\.json)"  # reports are made from the lines and never committed
        )
        wanted = {name: body for name, body in wanted.items() if not re.fullmatch(left, name)}
        assert {name: body for name, body in found.items() if name.startswith(f"{folder}/")} == wanted
    alone = {
        "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "constraints.txt",
        "pyproject.toml",
    }  # fmt: skip
    assert {name for name in found if "/" not in name} - {".gitignore", "PKG-INFO"} == alone
    assert all(found[name] == (ROOT / name).read_bytes() for name in alone)
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", found["README.md"].decode())
    assert {"docs/demo.png", "docs/board.png"} <= set(linked)
    assert [name for name in linked if name not in found] == []


USER = """
import fairspec_bench as fairspec

report = fairspec.report("runs/x")
reveal_type(report)
languages: list[str] = [task.language for suite in report.suites for task in suite.tasks]
fairspec.report(3)
"""


def test_a_users_checker_sees_the_types(wheel: Path, tmp_path: Path) -> None:
    """An environment that has nothing but the wheel: its `py.typed` is what mypy goes by."""
    home = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(home), cwd=tmp_path)
    python = str(home / "bin" / "python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", str(wheel), cwd=tmp_path)
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    options = ("--python-executable", python, "--ignore-missing-imports", "--config-file", os.devnull)
    said = run(sys.executable, "-m", "mypy", *options, "user.py", cwd=tmp_path, status=1)
    assert 'Revealed type is "fairspec_bench.schemas.report.Report"' in said
    errors = [line for line in said.splitlines() if ": error:" in line]
    assert len(errors) == 1
    assert 'Argument 1 to "report" has incompatible type "int"' in errors[0]


@pytest.mark.slow
def test_demo_runs_from_the_wheel_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site), str(wheel), cwd=empty)
    where = {"PYTHONPATH": str(site), "FAIRSPEC_CACHE_DIR": str(tmp_path / "cache")}
    found = run(sys.executable, "-c", "import fairspec_bench; print(fairspec_bench.__file__)", cwd=empty, **where)
    assert Path(found.strip()).is_relative_to(site), "the test must not see the checkout"
    said = run(sys.executable, "-m", "fairspec_bench", "demo", "--quick", "--out", "made", cwd=empty, **where)
    page = empty / "made" / "site" / "index.html"
    assert str(page.relative_to(empty)) in said
    assert "embedded:verifier" in page.read_text(encoding="utf-8")
