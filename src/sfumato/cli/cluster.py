"""Verbs for a whole cluster on one host, for trying it out and for one large machine."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sfumato.cli.options import Places, Workers
from sfumato.cli.verb import Verb, Verbs

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command, below `cluster`."""
    cluster = typer.Typer(cls=Verbs, help="A cluster on this host, without Docker and root.", no_args_is_help=True)
    cluster.callback()(_one_verb_is_still_named)
    cluster.command(cls=Verb)(up)
    app.add_typer(cluster, name="cluster", rich_help_panel="Run the service")


def _one_verb_is_still_named() -> None:
    """A cluster on this host, without Docker and root."""


def up(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the door; 0 picks a free one. By default 8000.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for everything it keeps. By default ./sfumato-data.")
    ] = None,
    s3: Annotated[Literal["seaweedfs", "minio"], typer.Option(help="Which object store to run.")] = "seaweedfs",
    brokers: Annotated[int, typer.Option(min=1, max=3, help="Kafka brokers: 1, or 3 that keep three copies.")] = 1,
    models: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="models.toml, or a model_names.txt with one name a line."),
    ] = None,
    workers: Workers = None,
    places: Places = None,
) -> None:
    """Run Kafka, an object store, PostgreSQL, nginx, two gateways and the other roles here, on loopback."""
    from sfumato.cluster.up import up as run
    from sfumato.config import load_settings

    if brokers == 2:
        raise typer.BadParameter("two brokers can't agree when one is gone; choose 1 or 3.", param_hint="--brokers")
    settings = load_settings(port=port, data_dir=data_dir, models=models, workers=workers, places=places)
    raise typer.Exit(run(settings, s3, 1 if brokers == 1 else 3))
