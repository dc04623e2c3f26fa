"""The verb that says why a model has as many workers as it has."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from sfumato.cli import completion
from sfumato.cli.options import DEFAULT_URL, AsJson, Url, client
from sfumato.cli.verb import Verb

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add this verb to the command."""
    app.command(cls=Verb, rich_help_panel="Run the service")(explain)


def explain(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.", autocompletion=completion.models)],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Say how many workers a model should have and has, and why."""
    from sfumato.cli import show

    with client(context, url) as service:
        found = service.scale(model)
    if as_json:
        show.line(show.as_json(found))
        return
    age_s = max(0.0, (datetime.now(UTC) - found.decided_at).total_seconds())
    wanted, there = found.desired_replicas, found.workers
    sys.stdout.write(f"{found.model}: {wanted} worker{'s' * (wanted != 1)} wanted, {there} there\n")
    sys.stdout.write(f"{found.why}\ndecided {age_s:.0f} s ago\n")
