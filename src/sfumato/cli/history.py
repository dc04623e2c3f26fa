"""Verbs about the jobs there were: list them, export them, and delete old ones."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from sfumato.cli import completion
from sfumato.cli.options import DEFAULT_URL, AsJson, AsJsonLines, Url, client, patient_client
from sfumato.cli.times import moment_of, span_s
from sfumato.cli.verb import Lists, Verb

if TYPE_CHECKING:
    from sfumato.client.listing import Listed
    from sfumato.config import Settings
    from sfumato.core.history import EndedQuery
    from sfumato.recorder.purge import Purged

__all__ = ["add_to"]

State = Literal["queued", "running", "succeeded", "failed", "canceled"]
EndState = Literal["succeeded", "failed", "canceled"]
Model = Annotated[str | None, typer.Option(help="Only this model's.", autocompletion=completion.models)]
Status = Annotated[State | None, typer.Option("--status", "--state", help="Only in this state.")]
Owner = Annotated[str | None, typer.Option(help="Only this owner's; others than the own with a key for admins.")]
Since = Annotated[str | None, typer.Option(help="Accepted then or later: a date, a time, Unix seconds, or 7d for ago.")]
Until = Annotated[str | None, typer.Option(help="Accepted before then.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command, below `jobs`; the bare word is its `list`."""
    group = typer.Typer(cls=Lists, help="The jobs there were: list them, export them, delete old ones.")
    group.command("list", cls=Verb)(list_jobs)
    group.command(cls=Verb)(export)
    group.command(cls=Verb)(purge)
    app.add_typer(group, name="jobs", rich_help_panel="Make pictures")


def list_jobs(
    context: typer.Context,
    model: Model = None,
    status: Status = None,
    owner: Owner = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    as_json: AsJsonLines = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first."""
    from sfumato.cli import show

    listed = _listed(model, status, owner, since, until)
    with client(context, url) as service:
        found = list(service.jobs(limit=limit, **listed))
    if as_json:
        for job in found:
            show.line(show.as_json(job))
    else:
        show.show_jobs(found)


def export(
    context: typer.Context,
    format: Annotated[Literal["csv", "jsonl"], typer.Option(help="For spreadsheets, or one JSON object a line.")],
    model: Model = None,
    status: Status = None,
    owner: Owner = None,
    since: Since = None,
    until: Until = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", dir_okay=False, help="File to write. By default standard output.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Write all jobs, newest first, as CSV or JSON lines."""
    from sfumato.cli import show
    from sfumato.cli.export import line_of

    listed = _listed(model, status, owner, since, until)
    with client(context, url) as probe:
        # A service that is not there, or refuses this list, says so before there is a file.
        total = probe.count_jobs(**listed)
    bar = show.CountBar("jobs", total, silent=out is None and sys.stdout.isatty())
    with patient_client(context, url) as service, _written_to(out) as file, bar:
        file.write(line_of(None, format))
        for job in service.jobs(**listed):
            file.write(line_of(job, format))
            bar.advance()
    if out is not None:
        show.complain(f"saved {out}")


def purge(
    older_than: Annotated[str, typer.Option(help="Jobs accepted longer ago, such as 30d, 12h, 2w.")],
    model: Model = None,
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    status: Annotated[EndState | None, typer.Option("--status", "--state", help="Only jobs that ended so.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many jobs that would be.")] = False,
    as_json: AsJson = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Data folder of the service, for what the settings name no server for.")
    ] = None,
) -> None:
    """Delete ended jobs for good, their pictures with them; what waits or runs stays."""
    from sfumato.cli import show
    from sfumato.config import load_settings
    from sfumato.core.history import EndedQuery
    from sfumato.core.job import State as JobState

    before = time.time() - span_s(older_than, "--older-than")
    which = EndedQuery(before, owner or "", model or "", JobState(status) if status else None)
    settings = load_settings(data_dir=data_dir)
    found, done = asyncio.run(_purge(settings, which, dry_run=dry_run))
    if as_json:
        told = {"found": found, "jobs": done.jobs, "pictures": done.pictures, "busy": done.busy, "dry_run": dry_run}
        show.line(json.dumps(told))
    elif dry_run:
        show.line(f"{found} ended jobs would be deleted")
    else:
        show.line(f"deleted {done.jobs} jobs and {done.pictures} pictures")
    if done.busy:
        show.complain(f"{done.busy} rows were in use and are left; run the same command again.")


async def _purge(settings: "Settings", which: "EndedQuery", *, dry_run: bool) -> "tuple[int, Purged]":
    from sfumato.cli import show
    from sfumato.cli.folder import see_that_a_service_ran
    from sfumato.recorder.purge import Purged
    from sfumato.recorder.purge import purge as purge_all
    from sfumato.wiring import open_purge

    see_that_a_service_ran(settings, elsewhere=settings.s3_bucket and settings.database_url.get_secret_value())
    async with open_purge(settings) as (rows, blobs):
        found, done = await rows.count(which), Purged()
        if not dry_run:
            with show.CountBar("jobs deleted", found, silent=not found) as bar:
                async for done in purge_all(which, rows, blobs):
                    bar.at(done.jobs + done.busy)
        return found, done


def _listed(model: str | None, status: str | None, owner: str | None, since: str | None, until: str | None) -> "Listed":
    begin, end = moment_of(since, "--since"), moment_of(until, "--until")
    if begin is not None and end is not None and begin >= end:
        raise typer.BadParameter("must be before --until", param_hint="--since")
    return {"model_name": model, "status": status, "owner": owner, "since": begin, "until": end}


@contextmanager
def _written_to(out: Path | None) -> Iterator[TextIO]:
    from sfumato.cli.export import whole_file

    if out is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with whole_file(out) as file:
        yield file
