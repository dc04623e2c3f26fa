"""One thing done to several jobs, whatever becomes of each."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from sfumato.cli.options import client

if TYPE_CHECKING:
    from sfumato.client import Client

__all__ = ["each"]


def each(context: typer.Context, url: str, job_ids: list[str], act: "Callable[[Client, str], str]") -> None:
    """Do it to every job and print what it says; ends the command with status 1 when one was refused."""
    from sfumato.cli import show
    from sfumato.client import InvalidRequest

    refused = False
    with client(context, url) as service:
        for job_id in job_ids:
            try:
                show.line(act(service, job_id))
            except InvalidRequest as error:
                show.complain(f"{job_id}: {error.detail}")
                refused = True
    raise typer.Exit(refused)
