"""Verbs of who wants pictures: the client, over the public API only."""

import asyncio
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfumato.cli import completion
from sfumato.cli.each import Told, each
from sfumato.cli.options import DEFAULT_URL, AsJson, AsJsonLines, Out, Url, async_client, client
from sfumato.cli.verb import Verb

if TYPE_CHECKING:
    from sfumato.cli.show import Board
    from sfumato.client import Client
    from sfumato.client.batch import Order, Sent
    from sfumato.client.flows import Asked

__all__ = ["JobId", "add_to", "deleted"]

PANEL = "Make pictures"
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.", autocompletion=completion.jobs)]
OpenJobs = Annotated[
    list[str], typer.Argument(metavar="ID...", help="The jobs' ids.", autocompletion=completion.open_jobs)
]
EndedJobs = Annotated[
    list[str], typer.Argument(metavar="ID...", help="The jobs' ids.", autocompletion=completion.ended_jobs)
]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    for verb in (submit, get, watch, cancel, delete):
        app.command(cls=Verb, rich_help_panel=PANEL)(verb)


def submit(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="FOLDER|FILES", help="Pictures, or folders of them.")],
    model: Annotated[
        str, typer.Option(help="Name of the model; see `sfumato models`.", autocompletion=completion.models)
    ],
    prompt: Annotated[str, typer.Option(help="What the pictures should become.")],
    priority: Annotated[Literal["high", "normal", "low"], typer.Option(help="Which go first.")] = "normal",
    negative_prompt: Annotated[str, typer.Option(help="What they should not become.")] = "",
    strength: Annotated[float | None, typer.Option(help="How far from the picture, above 0 to 1.")] = None,
    steps: Annotated[int | None, typer.Option(help="num_inference_steps; steps × strength of them really run.")] = None,
    guidance: Annotated[float | None, typer.Option(help="guidance_scale; how closely to follow the prompt.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same result.")] = None,
    sampler: Annotated[str | None, typer.Option(help="One that the model allows, such as dpmpp_2m.")] = None,
    output_format: Annotated[
        Literal["png", "jpeg", "webp"] | None, typer.Option("--format", help="File type of the results.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Exact width of the results in pixels; with --height.")] = None,
    height: Annotated[int | None, typer.Option(help="Exact height of the results in pixels; with --width.")] = None,
    resize_mode: Annotated[
        Literal["crop", "fill", "stretch"] | None,
        typer.Option(help="How a picture of another aspect gets into that size; crop if left out."),
    ] = None,
    webhook_url: Annotated[str | None, typer.Option(help="Address that is told how the jobs go.")] = None,
    webhook_events: Annotated[
        str | None,
        typer.Option(
            help="What it is told: started, retried, succeeded, failed, canceled; comma separated. All if left out."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same pictures sent again with it are the same jobs.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the jobs to their ends.")] = False,
    out: Out = None,
    as_json: AsJsonLines = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Send pictures and print the access links of their results."""
    asked: Asked = {
        "prompt": prompt,
        "priority": priority,
        "negative_prompt": negative_prompt,
        "strength": strength,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "seed": seed,
        "sampler": sampler,
        "output_format": output_format,
        "width": width,
        "height": height,
        "resize_mode": resize_mode,
        "webhook_url": webhook_url,
        "webhook_events": webhook_events,
    }
    _send_and_show(context, url, model, paths, asked, key or str(uuid.uuid4()), wait, out, as_json)


def _send_and_show(
    context: typer.Context,
    url: str,
    model: str,
    paths: list[Path],
    asked: "Asked",
    key: str,
    wait: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    from sfumato.cli import show
    from sfumato.client.batch import pictures_in

    orders = pictures_in(paths, asked, key)
    with client(context, url) as probe:
        # A service that is not there is told at once, not once per picture.
        broken = [each for each in probe.models() if each.name == model and each.trouble]
    for listed in broken:
        show.complain(f"{model} can't be served now, and its jobs wait until that is mended: {listed.trouble}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # So is a folder that can't be made.
    follow = wait or out is not None
    with show.Board(orders, follow=follow, links=not as_json) as board:
        sent = asyncio.run(_send(context, url, model, orders, follow, out, board))
    for one in sent:
        show.show_sent(one, as_json=as_json)
    for said in dict.fromkeys(said for one in sent for said in one.warnings):
        show.complain(said)
    if any(one.state == "unknown" for one in sent):
        show.complain(f"The same command with --key {key} finds those jobs or makes them, and none twice.")
    raise typer.Exit(any(one.error for one in sent))


async def _send(
    context: typer.Context, url: str, model: str, orders: "list[Order]", follow: bool, out: Path | None, board: "Board"
) -> "list[Sent]":
    from sfumato.client.batch import send_all

    async with async_client(context, url) as service:
        return await send_all(service, model, orders, wait=follow, out=out, told=board.told)


def get(
    context: typer.Context,
    job_id: JobId,
    out: Out = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show a job; with --out, wait for its result and save it as <ID>.<type>."""
    from sfumato.cli import show

    with client(context, url) as service:
        saved = out and service.result(job_id).save(out / job_id)
        job = service.job(job_id)
    if as_json:
        show.line(show.as_json(job))
    else:
        show.show_job(job)
    if saved:
        show.complain(f"saved {saved}")


def watch(
    context: typer.Context,
    job_id: JobId,
    as_json: AsJsonLines = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Follow a job to its end."""
    from sfumato.cli import show

    with client(context, url) as service, show.JobBar(silent=as_json) as bar:
        for job in service.watch(job_id):
            bar.told(job)
            if as_json:
                show.line(show.as_json(job))
    if not as_json:
        show.show_job(job)
    raise typer.Exit(job.status != "succeeded")


def cancel(context: typer.Context, job_ids: OpenJobs, as_json: AsJsonLines = False, url: Url = DEFAULT_URL) -> None:
    """Cancel jobs that have not ended."""

    def canceled(service: "Client", job_id: str) -> Told:
        job = service.cancel(job_id)
        return f"{job_id} {job.status}", job.model_dump(mode="json")

    each(context, url, job_ids, canceled, as_json=as_json)


def delete(context: typer.Context, job_ids: EndedJobs, as_json: AsJsonLines = False, url: Url = DEFAULT_URL) -> None:
    """Delete ended jobs with their pictures."""
    each(context, url, job_ids, deleted, as_json=as_json)


def deleted(service: "Client", job_id: str) -> Told:
    """Delete one; what to say of it."""
    service.delete(job_id)
    return f"{job_id} deleted", {"id": job_id, "deleted": True}
