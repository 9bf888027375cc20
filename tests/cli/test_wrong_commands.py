"""A wrong argument is answered in one line before torch or transformers is imported; so are commands that list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from fairspec_bench.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as left:
    print(*sys.modules)
    sys.exit(left.code)
"""
RUN = "run embedded:verifier embedded:drafter --suite embedded_math"
WRONG = {
    "run embedded:verifier embedded:drafter --suite mgms": "unknown suite 'mgms'. Did you mean mgsm?",
    f"{RUN} --languages tee": "embedded_math: unknown language 'tee'. Did you mean te?",
    f"{RUN} --gamma 65": "gamma=65: must be at most 64.",
    f"{RUN} --device gpu": "device=gpu: unknown. Known: cpu, cuda, cuda:N.",
    f"{RUN} --dtype bfloat": "unknown dtype 'bfloat'. Did you mean bfloat16?",
    f"{RUN} --backend eagre": "unknown backend 'eagre'. Did you mean eager?",
    f"{RUN} --executor rya": "unknown executor 'rya'. Did you mean ray?",
    f"{RUN} --log 3": "No such option: --log.",
    f"{RUN} --race_widht 0.1": "No such option: --race_widht. Did you mean --race_width? See fairspec run --help.",
    "run ./nowhere lookup --suite embedded_math": "./nowhere: no such folder",
    "run embedded:verifier embedded:drafer --suite embedded_math": "Did you mean embedded:drafter?",
    "plan embedded:verifier lookup:x --suite embedded_math": "'x' is no max_ngram. Example: lookup:3.",
    "mitigate embedded:verifier embedded:drafter --method scdf": "unknown method 'scdf'. Did you mean s-cdf?",
    "mitigate embedded:verifier embedded:drafter --steps 0": "steps=0: must be at least 1.",
    "reproduce qwen2.5-0.5b": "unknown pair 'qwen2.5-0.5b'. Did you mean",
    "report nowhere": "nowhere/run.json: no such file.",
    "report nowhere --format jsn": "unknown format 'jsn'. Did you mean json?",
    "run embedded:verifier oracle:2 --suite embedded_math": "drafter option acceptance=2.0: must be from 0 to 1.",
    "run embedded:verifier lokup --suite embedded_math": "unknown drafter 'lokup'. Did you mean lookup?",
    "reproduce --seeds -1": "seeds=-1: must be at least 0.",
    "reproduce --steps 0": "steps=0: must be at least 1.",
    "study causal --workers 0": "workers=0: must be at least 1.",
    "study casual": "unknown study 'casual'. Did you mean causal?",
    "submit new somewhere --track embeded --drafter lookup": "unknown track 'embeded'. Did you mean embedded?",
    "submit score nowhere": "nowhere: no submission.toml.",
}
LISTS = (
    "--help",
    "--version",
    "run --help",
    "tasks",
    "methods",
    "pairs",
    "track",
    "report docs/results/embedded-pair",
    "report docs/results/embedded-pair docs/results/embedded-pair",
    "report docs/results/embedded-pair --format csv",
    "submit check submissions/plain",
    "site build docs/results/embedded-pair --out {out}",
)
HEAVY = {"torch", "transformers", "lm_eval", "datasets"}


def fairspec(command: str) -> tuple[int, set[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command.split()], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return done.returncode, set(done.stdout.split("\n")[-2].split()), done.stderr


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_argument_is_answered_before_anything_heavy_is_imported(command: str) -> None:
    status, modules, err = fairspec(command)
    assert status == 2
    assert err.startswith("fairspec: ")
    assert err.count("\n") == 1
    assert WRONG[command] in err
    assert not modules & HEAVY


@pytest.mark.parametrize("command", LISTS)
def test_what_needs_no_model_imports_none(command: str, tmp_path: Path) -> None:
    status, modules, _ = fairspec(command.format(out=tmp_path / "site"))
    assert status == 0
    assert "fairspec_bench.cli.main" in modules
    assert not modules & HEAVY
