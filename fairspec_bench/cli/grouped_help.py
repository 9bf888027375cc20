"""Help texts in groups: commands and options under the headings that they were declared with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup


class GroupedCommand(TyperCommand):
    """A command whose options stand under their groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _sections(
            formatter,
            (
                (getattr(each, "rich_help_panel", None) or _heading(each), record)
                for each in self.get_params(ctx)
                if (record := each.get_help_record(ctx)) is not None
            ),
        )


class GroupedCommands(TyperGroup):
    """A group whose commands stand under their groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = formatter.width - 6 - max(map(len, self.commands))
        _sections(
            formatter,
            (
                (getattr(command, "rich_help_panel", None) or "Commands", (name, command.get_short_help_str(width)))
                for name, command in self.commands.items()
            ),
        )


def _heading(parameter: Any) -> str:
    return "Arguments" if parameter.param_type_name == "argument" else "Options"


def _sections(formatter: Any, rows: Iterable[tuple[str, tuple[str, str]]]) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for heading, row in rows:
        sections.setdefault(heading, []).append(row)
    for heading, lines in sections.items():
        with formatter.section(heading):
            formatter.write_dl(lines)
