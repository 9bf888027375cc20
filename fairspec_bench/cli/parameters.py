"""From declared options to a command's parameters, and from the texts given on a command line to their values."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.options import Parameter

Command = Callable[..., None]


def declared(*parameters: Parameter) -> Callable[[Command], Command]:
    """Give a command the declared options before its own; it takes their values as the dictionary `options`."""

    def give(command: Command) -> Command:
        own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name != "options"]

        @wraps(command)
        def parsed(**given: Any) -> None:
            options = {each.name: parse(each, given.pop(each.name)) for each in parameters}
            command(options=options, **given)

        shown = [*map(_parameter, parameters), *(each.replace(kind=each.KEYWORD_ONLY) for each in own)]
        parsed.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        return parsed

    return give


def parse(parameter: Parameter, given: Any) -> Any:
    """The value of an option that was given as text. Raises `FairspecError`."""
    if isinstance(given, list | tuple):
        return tuple(given)
    if parameter.option.repeat:
        return ()
    if not isinstance(given, str):
        return given
    if parameter.option.sweep:
        return parse_numbers(parameter.name, given)
    if parameter.choices and given == "auto" and type(None) in get_args(parameter.plain):
        return None
    if reader := _READERS.get(_container(parameter)):
        return reader(parameter.name, given)
    return given


def parse_arguments(option: str, text: str) -> dict[str, str | int | float | bool]:
    """`k=v,k=v` as lm-eval writes it, values read as int, float, true or false where they can be."""
    options: dict[str, str | int | float | bool] = {}
    for item in filter(None, text.split(",")):
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise FairspecError(f"{item!r}: not of the form name=value. Example: --{option} revision=main.")
        options[name.strip()] = _value(value.strip())
    return options


def _value(text: str) -> str | int | float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """`1,2,4`: whole numbers, at least one."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise FairspecError(f"--{option} {text}: not whole numbers. Example: --{option} 1,2,4.") from None


def parse_shard(option: str, text: str) -> tuple[int, int]:
    """`i/n`, the first shard being 1."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise FairspecError(f"--{option} {text}: not of the form i/n with 1 <= i <= n. Example: --{option} 1/4.")
    return int(found[1]), int(found[2])


def parse_names(option: str, text: str) -> tuple[str, ...]:
    """`en,ja`: names, empty ones left out."""
    return tuple(filter(None, text.split(",")))


def parse_object(option: str, text: str) -> dict[str, Any]:
    """A JSON object. Raises `FairspecError` for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FairspecError(f"--{option} {text}: no JSON object. Example: --{option} '{{\"enable_thinking\": false}}'.")
    return found


_READERS: dict[str, Callable[[str, str], Any]] = {
    "mapping": parse_arguments,
    "pair": parse_shard,
    "names": parse_names,
    "object": parse_object,
}
_METAVARS = {"mapping": "<k=v,…>", "pair": "<i/n>", "names": "<name,…>", "object": "<JSON>"}


def _container(parameter: Parameter) -> str:
    """Which of `_READERS` reads it, if any."""
    text = str(parameter.plain)
    names = {"dict[": "object", "Mapping[": "mapping", "tuple[int, int]": "pair", "tuple[str, ...]": "names"}
    return next((name for part, name in names.items() if part in text), "")


def _parameter(parameter: Parameter) -> inspect.Parameter:
    """How typer takes a declared option."""
    option, name = parameter.option, parameter.name
    optional = type(None) in get_args(parameter.plain)
    default = inspect.Parameter.empty if parameter.required else parameter.default
    settings: dict[str, Any] = {"help": option.help, "rich_help_panel": option.group or None}
    flag = f"--{name}"
    if option.repeat:
        kind: Any = list[Path] if "Path" in str(parameter.plain) else list[str]
        kind, default = (kind, default) if parameter.required else (kind | None, None)
    elif parameter.choices or option.sweep or _container(parameter):
        kind = str if not optional or parameter.choices or parameter.required else str | None
        if parameter.choices and default is None:
            default = "auto"
        elif option.sweep:
            default, settings["metavar"] = str(default), "<int,…>"
        settings |= {"metavar": _METAVARS[found]} if (found := _container(parameter)) else {}
    else:
        kind = parameter.plain
        if kind == bool | None:
            flag, settings["show_default"] = f"{flag}/--no-{name}", False
    if option.argument:
        kind = str if parameter.required else kind
        described: Any = typer.Argument(help=option.help)
    else:
        described = typer.Option(flag, **settings)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, described]
    )
