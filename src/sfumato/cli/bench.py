"""Verbs that measure; each prints one table."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfumato.cli.options import JsonFile
from sfumato.cli.verb import Verb, Verbs

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command, below `bench`."""
    bench = typer.Typer(cls=Verbs, help="Measure this machine; each prints one table.", no_args_is_help=True)
    bench.command(cls=Verb)(overhead)
    bench.command(cls=Verb)(engine)
    bench.command(cls=Verb)(accept)
    bench.command(cls=Verb)(dispatch)
    bench.command(cls=Verb)(follow)
    bench.command(cls=Verb)(protocols)
    app.add_typer(bench, name="bench", rich_help_panel="Run the service")


def overhead(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Over Kafka, an object store and PostgreSQL behind nginx, started here.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """How long the service takes around a model that costs nothing: submit to result, embedded or as a cluster."""
    from sfumato.bench.overhead import run

    _print(run(json_file, cluster=cluster))


def accept(json_file: JsonFile = None) -> None:
    """What accepting a picture costs a gateway, beside one as it is usually written, over a real Kafka."""
    from sfumato.bench.accept import run

    _print(run(json_file))


def dispatch(json_file: JsonFile = None) -> None:
    """How fast jobs are handed out over a real Kafka, and how fast another dispatcher takes over."""
    from sfumato.bench.dispatch import run

    _print(run(json_file))


def follow(json_file: JsonFile = None) -> None:
    """What it costs a gateway when many clients follow their jobs, and how soon they hear of an end."""
    from sfumato.bench.follow import run

    _print(run(json_file))


def protocols(json_file: JsonFile = None) -> None:
    """What AUTOMATIC1111's, OpenAI's and Replicate's protocols add to the service's own way from submit to result."""
    from sfumato.bench.protocols import run

    _print(run(json_file))


def engine(
    backend: Annotated[
        Literal["simulated", "onnx", "diffusers"], typer.Option(help="What does the model calls.")
    ] = "simulated",
    json_file: JsonFile = None,
    architecture: Annotated[
        Literal["sd15", "sdxl", "flux-small", "tiny"] | None,
        typer.Option(help="With diffusers: measure this architecture, made and deleted here; needs --random-weights."),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Make the architecture's weights by dice: same cost, noise as pictures."),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="With diffusers: measure this diffusers folder instead."),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="With diffusers: where. By default CUDA if there is.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=2, help="With diffusers: requests a run. By default by architecture and device.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="With diffusers: measure only what fits into so many minutes, and say what does not."
        ),
    ] = None,
) -> None:
    """Step-level batching beside other ways of batching, at equal traffic; with diffusers, beside its own pipeline."""
    if backend != "diffusers":
        given = {"--architecture": architecture, "--model": model, "--device": device, "--requests": requests}
        _refuse_of_diffusers(given | {"--random-weights": random_weights or None, "--minutes": minutes})
        from sfumato.bench.engine import run

        _print(run(backend, json_file))
        return
    _check_source(architecture, model, random_weights)
    from sfumato.bench import real

    real.run(architecture, model, device or "auto", json_file, _print, requests=requests, minutes=minutes)


def _refuse_of_diffusers(options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter("is for --backend diffusers only.", param_hint=name)


def _check_source(architecture: str | None, model: Path | None, random_weights: bool) -> None:
    """Either a folder, or an architecture and the wish for random weights, so that nobody takes them for the model."""
    if model is not None and (architecture is not None or random_weights):
        raise typer.BadParameter(
            "has an architecture and weights; leave out --architecture and --random-weights.", param_hint="--model"
        )
    if model is None and architecture is None:
        raise typer.BadParameter(
            "diffusers needs --architecture NAME --random-weights, or --model FOLDER.", param_hint="--backend"
        )
    if architecture is not None and not random_weights:
        raise typer.BadParameter(
            "names no weights; add --random-weights, or measure a folder of yours with --model.",
            param_hint="--architecture",
        )


def _print(table: "Table") -> None:
    from sfumato.cli import show

    show.show_table(table)
