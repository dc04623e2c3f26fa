"""Verbs for dead letters: jobs that were given up because workers died running them, and nothing else."""

from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli import completion
from sfumato.cli.each import Told, each
from sfumato.cli.jobs import deleted
from sfumato.cli.options import DEFAULT_URL, AsJsonLines, Url, client
from sfumato.cli.verb import Verb, Verbs

if TYPE_CHECKING:
    from sfumato.client import Client

__all__ = ["add_to"]

JobIds = Annotated[
    list[str], typer.Argument(metavar="ID...", help="The jobs' ids.", autocompletion=completion.ended_jobs)
]
DEAD_LETTER = "urn:sfumato:problem:dead-letter"


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command, below `dead`."""
    dead = typer.Typer(
        cls=Verbs, help="Jobs that were given up because they ended their workers.", no_args_is_help=True
    )
    dead.command("list", cls=Verb)(list_them)
    dead.command(cls=Verb)(retry)
    dead.command(cls=Verb)(drop)
    app.add_typer(dead, name="dead", rich_help_panel="Run the service")


def list_them(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only this model's.", autocompletion=completion.models)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All failed jobs, whatever they failed of.")] = False,
    as_json: AsJsonLines = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List dead letters, newest first, one a line with its reason."""
    from sfumato.cli import show

    with client(context, url) as service:
        jobs = service.jobs(model_name=model, status="failed")
        chosen = [job for job in jobs if failed or (job.error and job.error.type == DEAD_LETTER)]
    for job in chosen:
        why = job.error.detail if job.error else ""
        show.line(show.as_json(job) if as_json else f"{job.id}  {job.model_name}  {why}")
    if not chosen and not as_json:
        show.line("no dead letters" if not failed else "no failed jobs")


def retry(context: typer.Context, job_ids: JobIds, as_json: AsJsonLines = False, url: Url = DEFAULT_URL) -> None:
    """Submit ended jobs once more, as new jobs; prints each one's new id."""

    def again(service: "Client", job_id: str) -> Told:
        # One key for one dead letter: typed twice, it is the same new job.
        job = service.retry(job_id, idempotency_key=f"retry of {job_id}")
        return f"{job_id} → {job.id}", job.model_dump(mode="json") | {"retry_of": job_id}

    each(context, url, job_ids, again, as_json=as_json)


def drop(context: typer.Context, job_ids: JobIds, as_json: AsJsonLines = False, url: Url = DEFAULT_URL) -> None:
    """Delete ended jobs with their pictures."""
    each(context, url, job_ids, deleted, as_json=as_json)
