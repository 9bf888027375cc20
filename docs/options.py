"""Prints docs/OPTIONS.md from the commands and the declared options: `make options`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from fairspec_bench.cli.main import app
from fairspec_bench.schemas.options import Parameter, RunOptions, parameters

INTRODUCTION = """\
# Options

Made by `make options` from the declarations in [schemas/options.py](../fairspec_bench/schemas/options.py).
In Python the options of `run`, `plan`, `mitigate`, `reproduce`, `submit_score` and `submit_audit` have the same names;
what is `4,1,2`, `en,ja`, `k=v,k=v` or `1/4` on the command line is `(4, 1, 2)`, `("en", "ja")`, `{"k": "v"}` or
`(1, 4)` there. The last column is the field of `run.json` that holds an option.
"""


def commands(group: Any, path: str = "fairspec") -> Iterator[tuple[str, Any]]:
    """Every command with its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def row(parameter: Any, declared: Parameter | None) -> str:
    """A line of the table."""
    name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper()
    default = "required" if parameter.required else parameter.default
    shown = "" if default is None or default is False or default == [] else str(default)
    recorded = (declared.option.recorded if declared else None) or ""
    help_text = (parameter.help or "").replace("|", "\\|").replace("<", "&lt;")
    cells = (f"`{name}`", help_text, shown, declared.range if declared else "", f"`{recorded}`" if recorded else "")
    return f"| {' | '.join(cells)} |"


def table(title: str, command: Any, declared: dict[str, Parameter]) -> Iterator[str]:
    """The section of a command, `declared` being the options of a run."""
    yield f"\n## {title}\n\n{' '.join((command.help or '').split(chr(8))[0].split())}\n"
    shown = [each for each in command.params if each.name != "help"]
    if shown:
        yield "| | what | default | range | recorded |\n|---|---|---|---|---|"
        yield from (row(each, declared.get(each.name)) for each in shown)


if __name__ == "__main__":
    run = {each.name: each for each in parameters(RunOptions)}
    print(INTRODUCTION, end="")
    for title, command in commands(typer.main.get_command(app)):
        print("\n".join(table(title, command, run if title.endswith((" run", " plan")) else {})))
