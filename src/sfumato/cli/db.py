"""Verbs of who runs the service, for the database that holds the job rows."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.options import AsJson
from sfumato.cli.verb import Verb, Verbs

if TYPE_CHECKING:
    from sfumato.storage.schema import Schema

__all__ = ["add_to"]

DataDir = Annotated[
    Path | None, typer.Option(help="Data folder that holds the database when SFUMATO_DATABASE_URL is not set.")
]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command, below `db`."""
    db = typer.Typer(cls=Verbs, help="Look after the database of the job rows.", no_args_is_help=True)
    db.command(cls=Verb)(upgrade)
    db.command(cls=Verb)(status)
    app.add_typer(db, name="db", rich_help_panel="Run the service")


def upgrade(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Bring the database's tables to those of this version; safe at any time, and from many places at once."""
    from sfumato.config import load_settings
    from sfumato.storage import schema

    before = asyncio.run(schema.upgrade(load_settings(data_dir=data_dir).rows_address))
    if as_json:
        fields = {"database": before.database, "was": before.revision, "changed": bool(before.advice), "ready": True}
        sys.stdout.write(json.dumps(fields) + "\n")
        return
    was = f"was {_at(before)}, is ready now" if before.advice else f"is {_at(before)}, ready as it was"
    sys.stdout.write(f"{before.database} {was}\n")


def status(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Say which migration the database is at; the status is 1 when this version can't work with it as it is."""
    from sfumato.config import load_settings
    from sfumato.storage import schema

    found = asyncio.run(schema.schema_of(load_settings(data_dir=data_dir).rows_address))
    fields = {"database": found.database, "revision": found.revision, "ready": not found.advice, "advice": found.advice}
    said = f"{found.database} is {_at(found)}: {found.advice or 'ready'}"
    sys.stdout.write(f"{json.dumps(fields) if as_json else said}\n")
    raise typer.Exit(bool(found.advice))


def _at(schema: "Schema") -> str:
    return "empty" if schema.revision is None else f"at {schema.revision}"
