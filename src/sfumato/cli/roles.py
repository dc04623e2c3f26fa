"""Verbs of who runs the service: the whole of it, or one role. Roles read their settings from SFUMATO_*."""

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli import completion
from sfumato.cli import lifeline as lifelines
from sfumato.cli.options import Lifeline, Places, Workers
from sfumato.cli.verb import Verb

__all__ = ["add_to"]

PANEL = "Run the service"


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    for verb in (up, gateway, dispatcher, controller, workers, worker, recorder):
        app.command(cls=Verb, rich_help_panel=PANEL)(verb)


def up(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one. By default 8000.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for everything it keeps. By default ./sfumato-data.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. By default 127.0.0.1.")] = None,
    models: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="models.toml, or a model_names.txt with one name a line."),
    ] = None,
    workers: Workers = None,
    places: Places = None,
    lifeline: Lifeline = None,
) -> None:
    """Run the whole service here, embedded: API, queue and workers."""
    from sfumato.config import load_settings
    from sfumato.supervisor.embedded import up as run

    lifelines.hold(lifeline)
    settings = load_settings(port=port, data_dir=data_dir, host=host, models=models, workers=workers, places=places)
    raise typer.Exit(run(settings))


def gateway(
    fd: Annotated[
        int | None, typer.Option(help="Serve on this inherited listening socket instead of opening one.")
    ] = None,
    lifeline: Lifeline = None,
) -> None:
    """Run the gateway: it takes pictures in and serves results."""
    from sfumato.config import load_settings
    from sfumato.gateway.app import serve

    lifelines.hold(lifeline)
    raise typer.Exit(serve(load_settings(), fd))


def dispatcher(lifeline: Lifeline = None) -> None:
    """Run the dispatcher: it keeps the queues in order and hands jobs to workers."""
    from sfumato.config import load_settings
    from sfumato.dispatcher.dispatcher import serve

    lifelines.hold(lifeline)
    raise typer.Exit(serve(load_settings()))


def controller(lifeline: Lifeline = None) -> None:
    """Run the controller: it decides how many workers each model has."""
    from sfumato.config import load_settings
    from sfumato.controller.controller import serve

    lifelines.hold(lifeline)
    raise typer.Exit(serve(load_settings()))


def workers(
    places: Places = None,
    models: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="models.toml, or a model_names.txt with one name a line."),
    ] = None,
) -> None:
    """Run this host's workers, as many of each model as the controller decides."""
    from sfumato.config import load_settings
    from sfumato.supervisor.host import workers as run

    raise typer.Exit(run(load_settings(places=places, models=models)))


def worker(
    model: Annotated[
        str, typer.Argument(help="Name of the model to work for.", autocompletion=completion.listed_models)
    ],
    lifeline: Lifeline = None,
) -> None:
    """Run one worker of a model: it makes the pictures."""
    from sfumato.config import load_settings
    from sfumato.worker.worker import serve

    settings = load_settings()
    lifelines.hold(lifeline, settings.drain_s + lifelines.LEAVE_WITHIN_S)
    raise typer.Exit(serve(settings, model))


def recorder(lifeline: Lifeline = None) -> None:
    """Run the recorder: it writes down what happened to each job."""
    from sfumato.config import load_settings
    from sfumato.recorder.recorder import serve

    lifelines.hold(lifeline)
    raise typer.Exit(serve(load_settings()))
