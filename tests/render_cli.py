"""The tables of options in docs/cli.md, from the command's own help."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from typer.main import get_command

from sfumato.cli import app

__all__ = ["HEADING", "cli_page", "verbs"]

HEADING: Final = re.compile(r"^### `(sfumato(?: [a-z]+)+)[^`]*`$", re.MULTILINE)
TABLE: Final = re.compile(r"^\| option \| what it does \|\n(?:\|.*\n)+", re.MULTILINE)
CODE: Final = re.compile(r"`[^`]*`|(?<![\w`-])(--[a-z][a-z-]*|SFUMATO_[A-Z_…]+|\./[a-z-]+|HF_[A-Z_]+)")


def verbs(command: Any = None, name: str = "sfumato") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its whole name."""
    command = get_command(app) if command is None else command
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
    else:
        for word, each in inner.items():
            yield from verbs(each, f"{name} {word}")


def cli_page(page: Path) -> str:
    """The page as it is, with the table of each verb that has options; a new one comes at its section's end."""
    commands = dict(verbs())
    start, *parts = HEADING.split(page.read_text())
    headings = [found[0] for found in HEADING.finditer(page.read_text())]
    sections = zip(headings, parts[::2], parts[1::2], strict=True)
    return start + "".join(heading + _section(commands.get(verb), text) for heading, verb, text in sections)


def _section(command: Any, text: str) -> str:
    rows = "".join(_rows(command)) if command is not None else ""
    if not rows:
        return TABLE.sub("", text)
    table = "| option | what it does |\n|---|---|\n" + rows
    if TABLE.search(text):
        return TABLE.sub(lambda _: table, text, count=1)
    prose, after = re.fullmatch(r"(.*?)(\n*(?:^## .*)?)", text, re.DOTALL | re.MULTILINE).groups()  # type: ignore[union-attr]
    return f"{prose}\n\n{table}{after}"


def _rows(command: Any) -> Iterator[str]:
    for option in command.params:
        if option.param_type_name != "option" or option.hidden:
            continue
        first, *others = [name for name in option.opts if name not in ("--help", "-h")] or [""]
        if first:
            yield f"| `{first}` | {_told(option)} |\n"
        for name in others:
            yield f"| `{name}` | The same as `{first}`. |\n"


def _told(option: Any) -> str:
    """Its help with the values that there are, its default, and whether it must be given."""
    words = CODE.sub(lambda found: f"`{found[1]}`" if found[1] else found[0], option.help).replace("|", "\\|")
    choices = [f"`{value}`" for value in _choices(option.type_descriptor.annotation)]
    default = option.default
    if choices and not all(choice.strip("`") in option.help for choice in choices):
        words += f" One of {', '.join(choices)}."
    if default not in (None, False, "") and not callable(default) and "default" not in option.help:
        shown = f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
        words += f" By default `{option.envvar}`, else {shown}." if option.envvar else f" By default {shown}."
    return words + (" Must be given." if option.required else "")


def _choices(annotation: Any) -> list[Any]:
    """The values of a Literal, also of one that may be left out."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for each in get_args(annotation) for value in _choices(each)]
