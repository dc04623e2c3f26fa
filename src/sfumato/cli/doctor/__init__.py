"""The verb `doctor`: is this machine ready to run the service, and if not, what to change."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.doctor.finding import Finding
from sfumato.cli.options import AsJson
from sfumato.cli.verb import Verb

if TYPE_CHECKING:
    from sfumato.config import Settings

__all__ = ["Finding", "add_to", "findings"]


def add_to(app: typer.Typer) -> None:
    """Add this verb to the command."""
    app.command(cls=Verb, rich_help_panel="Run the service")(doctor)


def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="Data folder to look at.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to look at.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check settings, folders, disk, models with their files, servers, ports, packages and the GPU."""
    found: list[Finding] = []
    for one in _looked_at(data_dir, port):
        found.append(one)
        if not as_json:
            sys.stdout.write(f"{one}\n")
            sys.stdout.flush()  # A server that does not answer is waited for; what is known already is shown meanwhile.
    bad = any(one.state == "bad" for one in found)
    if as_json:
        sys.stdout.write(json.dumps({"ok": not bad, "findings": [asdict(one) for one in found]}) + "\n")
    raise typer.Exit(bad)


def findings(settings: "Settings") -> Iterator[Finding]:
    """Look at everything, one finding each; nothing that is left is changed."""
    from sfumato.cli.doctor import machine, models, place, servers, values

    yield from values.of(settings)
    yield from place.folders(settings)
    yield from models.of(settings)
    yield from servers.of(settings)
    yield from place.ports(settings)
    yield from machine.packages()
    yield from machine.gpus(settings)


def _looked_at(data_dir: Path | None, port: int | None) -> Iterator[Finding]:
    from sfumato.cli.doctor import values
    from sfumato.config import BadSettings, load_settings_before_list

    yield from values.strays()
    try:
        settings = load_settings_before_list(data_dir=data_dir, port=port)
    except BadSettings as error:
        # Which folder, which servers, which port: nothing of that is known without them.
        yield Finding("bad", "settings", error.detail)
        return
    yield from findings(settings)
