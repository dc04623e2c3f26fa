"""One thing done to several jobs or deliveries, whatever becomes of each."""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import typer

from sfumato.cli.options import client

if TYPE_CHECKING:
    from sfumato.client import Client

__all__ = ["Told", "each"]


Told = tuple[str, Mapping[str, object]]
"""What became of one: a line for people, and the fields for machines."""


def each(
    context: typer.Context, url: str, ids: list[str], act: "Callable[[Client, str], Told]", *, as_json: bool
) -> None:
    """Do it to every one and print what it says; ends the command with status 1 when one was refused."""
    from sfumato.cli import show
    from sfumato.client import InvalidRequest

    refused = False
    with client(context, url) as service:
        for one in ids:
            try:
                line, fields = act(service, one)
                show.line(json.dumps(fields) if as_json else line)
            except InvalidRequest as error:
                if as_json:
                    show.line(json.dumps({"id": one, "error": show.error_fields(error)}))
                show.complain(f"{one}: {error.detail}")
                refused = True
    raise typer.Exit(refused)
