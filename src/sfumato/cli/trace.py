"""The verb that shows what became of one job, step by step, from the stores and logs themselves."""

import asyncio
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.jobs import JobId
from sfumato.cli.options import AsJson
from sfumato.cli.verb import Verb

if TYPE_CHECKING:
    from sfumato.config import Settings
    from sfumato.inspection.path import JobPath

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add this verb to the command."""
    app.command(cls=Verb, rich_help_panel="Run the service")(trace)


def trace(
    job_id: JobId,
    data_dir: Annotated[
        Path | None, typer.Option(help="Data folder of the service, for what the settings name no server for.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a job's path: its objects, messages, row and outcome, in order of time."""
    from sfumato.config import load_settings

    path = asyncio.run(_path(load_settings(data_dir=data_dir), job_id))
    for line in [json.dumps(_as_json(path))] if as_json else _lines(path):
        sys.stdout.write(line + "\n")


async def _path(settings: "Settings", job_id: str) -> "JobPath":
    from sfumato.cli.folder import see_that_a_service_ran
    from sfumato.core.errors import NotFound
    from sfumato.inspection.path import path_of
    from sfumato.models.registry import Registry
    from sfumato.wiring import look_at_ports

    servers = settings.kafka_servers and settings.s3_bucket and settings.database_url.get_secret_value()
    see_that_a_service_ran(settings, elsewhere=servers)
    models = [model.slug for model in Registry.load(settings.models_file, settings.last_models_file)]
    try:
        async with look_at_ports(settings) as ports:
            return await path_of(job_id, ports, models)
    except NotFound as error:
        raise error if servers else NotFound(f"{error.detail} Looked in {settings.data_dir.absolute()}.") from error


def _lines(path: "JobPath") -> Iterator[str]:
    about = f" of {path.job.model}, {path.job.priority}" if path.job else ""
    row = f"row at position {path.row.position}" if path.row else "no row"
    yield f"job {path.job_id}{about}: {path.state}, {path.seconds:.3f} s, {row}"
    if path.job and path.job.traceparent:
        yield f"trace {path.job.traceparent.split('-')[1]}"
    for step, after_s in path.timed():
        since = "" if after_s is None else f"+{after_s:.3f}"
        at = datetime.fromtimestamp(step.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        place = f"{step.place} {step.position}" if step.position else step.place
        yield f"{at}Z {since:>9}  {place:<12} {step.what:<20} {step.detail}".rstrip()


def _as_json(path: "JobPath") -> dict[str, object]:
    steps = [
        {
            "at": step.at,
            "after_s": None if after_s is None else round(after_s, 6),
            "place": step.place,
            "position": step.position or None,
            "what": step.what,
            "detail": step.detail,
        }
        for step, after_s in path.timed()
    ]
    return {
        "job": path.job.model_dump(mode="json") if path.job else {"id": path.job_id},
        "state": path.state,
        "seconds": round(path.seconds, 6),
        "steps": steps,
        "outcome": path.outcome.model_dump(mode="json") if path.outcome else None,
        "row_position": path.row.position if path.row else None,
    }
