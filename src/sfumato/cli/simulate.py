"""The verb that plays autoscaling policies against each other, in virtual time."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sfumato.cli.options import JsonFile
from sfumato.cli.verb import Verb

__all__ = ["add_to"]

TraceName = Literal["wave", "flash", "bursts", "heavy", "zipf", "all"]
PolicyName = Literal["ours", "keda", "ray-serve", "fixed", "oracle", "all"]


def add_to(app: typer.Typer) -> None:
    """Add this verb to the command."""
    app.command(cls=Verb, rich_help_panel="Run the service")(simulate)


def simulate(
    trace: Annotated[TraceName, typer.Option(help="When jobs come and how long they are.")] = "all",
    policy: Annotated[PolicyName, typer.Option(help="What decides how many workers there are.")] = "all",
    json_file: JsonFile = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw the curves into this SVG file too.")] = None,
) -> None:
    """What the autoscaler costs beside others: GPU-hours for 99 and for 95 of 100 jobs within their objective."""
    from sfumato.cli import show
    from sfumato.controller.simulation.sweep import POLICIES
    from sfumato.controller.simulation.tables import run
    from sfumato.controller.simulation.traces import TRACES

    table = run(
        list(TRACES) if trace == "all" else [trace],
        list(POLICIES) if policy == "all" else [policy],
        json_file,
        plot_file,
    )
    show.show_table(table)
