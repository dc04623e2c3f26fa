"""Verbs that measure; each prints one table."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfumato.cli.verb import Verb, Verbs

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["add_to"]

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the measured rows to this file too.")]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command, below `bench`."""
    bench = typer.Typer(cls=Verbs, help="Measure this machine; each prints one table.", no_args_is_help=True)
    bench.command(cls=Verb)(overhead)
    bench.command(cls=Verb)(engine)
    app.add_typer(bench, name="bench", rich_help_panel="Run the service")


def overhead(json_file: JsonFile = None) -> None:
    """How long the service takes around a model that costs nothing: submit to result, embedded."""
    from sfumato.bench.overhead import run

    _print(run(json_file))


def engine(
    backend: Annotated[Literal["simulated", "onnx"], typer.Option(help="What does the model calls.")] = "simulated",
    json_file: JsonFile = None,
) -> None:
    """Step-level batching beside sequential, same-parameter and request-level batching, at equal traffic."""
    from sfumato.bench.engine import run

    _print(run(backend, json_file))


def _print(table: "Table") -> None:
    from rich.console import Console

    # Into a file or a pipe nothing says how wide a line may be; rows should not be folded there.
    Console(width=None if sys.stdout.isatty() else 140).print(table)
