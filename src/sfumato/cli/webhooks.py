"""Verbs about webhooks: the addresses that are told of all one's jobs, and what they were told."""

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfumato.cli.each import Told, each
from sfumato.cli.options import DEFAULT_URL, AsJson, AsJsonLines, Url, client
from sfumato.cli.times import span_s
from sfumato.cli.verb import Verb, Verbs

if TYPE_CHECKING:
    from sfumato.client import Client, DeliveryInfo, WebhookInfo

__all__ = ["add_to"]

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="As `sfumato webhooks list` shows it.")]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command, below `webhooks`."""
    group = typer.Typer(cls=Verbs, help="Who is told of your jobs, and what was told.", no_args_is_help=True)
    for name, verb in (("add", add), ("list", list_them), ("remove", remove), ("rotate", rotate), ("secrets", secrets)):
        group.command(name, cls=Verb)(verb)
    group.command(cls=Verb)(deliveries)
    group.command(cls=Verb)(redeliver)
    app.add_typer(group, name="webhooks", rich_help_panel="Make pictures")


def add(
    context: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where webhooks go, an http or https URL.")],
    events: Annotated[
        str,
        typer.Option(
            help="What it is told: started, retried, succeeded, failed, canceled; comma separated. All if left out."
        ),
    ] = "",
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Tell an address of all your jobs from now on; prints the secret that signs, this once."""
    with client(context, url) as service:
        _show_secret(service.add_webhook(address, events), as_json=as_json)


def list_them(context: typer.Context, as_json: AsJsonLines = False, url: Url = DEFAULT_URL) -> None:
    """List the addresses that are told of all your jobs, without their secrets."""
    from sfumato.cli import show

    with client(context, url) as service:
        found = service.webhooks()
    for webhook in found:
        state = f"disabled: {webhook.disabled}" if webhook.disabled else "good"
        line = f"{webhook.id}  {webhook.url}  {','.join(webhook.events)}  {state}"
        show.line(webhook.model_dump_json(exclude={"secret"}) if as_json else line)
    if not found and not as_json:
        show.line("no webhooks")


def remove(context: typer.Context, webhook_id: WebhookId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Tell an address nothing more; what waits for it is given up."""
    from sfumato.cli import show

    with client(context, url) as service:
        service.remove_webhook(webhook_id)
    show.line(json.dumps({"id": webhook_id, "removed": True}) if as_json else f"{webhook_id} removed")


def rotate(
    context: typer.Context,
    webhook_id: WebhookId,
    overlap: Annotated[str, typer.Option(help="How long the secrets of before sign beside the new one.")] = "1d",
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Make a new secret for an address and print it, this once."""
    with client(context, url) as service:
        _show_secret(service.rotate_webhook(webhook_id, span_s(overlap, "--overlap")), as_json=as_json)


def secrets(context: typer.Context, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Print what signs the webhooks of your single jobs (submit --webhook-url), one a line; always the same."""
    from sfumato.cli import show

    with client(context, url) as service:
        found = list(service.webhook_secrets())
    for line in [json.dumps({"secrets": found})] if as_json else found:
        show.line(line)


def deliveries(
    context: typer.Context,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only of this job.")] = None,
    state: Annotated[
        Literal["pending", "delivered", "given_up"] | None, typer.Option(help="Only those that stand so.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJsonLines = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List what was told to whom, newest first, one a line with what the receiver answered."""
    from sfumato.cli import show

    with client(context, url) as service:
        found = list(service.deliveries(job_id=job, state=state, limit=limit))
    for delivery in found:
        show.line(delivery.model_dump_json() if as_json else _line(delivery))
    if not found and not as_json:
        show.line("no deliveries")


def redeliver(
    context: typer.Context,
    delivery_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The deliveries' ids.")],
    as_json: AsJsonLines = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Send deliveries once more, now, whatever became of them."""

    def again(service: "Client", delivery_id: str) -> Told:
        delivery = service.redeliver(delivery_id)
        return f"{delivery_id} {delivery.state}", delivery.model_dump(mode="json")

    each(context, url, delivery_ids, again, as_json=as_json)


def _show_secret(webhook: "WebhookInfo", *, as_json: bool) -> None:
    from sfumato.cli import show

    show.complain("The secret is shown once. See what goes there with: sfumato webhooks deliveries")
    show.line(webhook.model_dump_json(exclude_unset=True) if as_json else f"{webhook.id}  {webhook.secret}")


def _line(delivery: "DeliveryInfo") -> str:
    answer = str(delivery.last_status) if delivery.last_status else ""
    shown = [
        f"{delivery.id}  {delivery.job_id}  {delivery.event:9}  {delivery.state:9}  {delivery.attempts}",
        answer,
        delivery.last_error or "",
        f"next {delivery.next_attempt_at:%m-%d %H:%M:%S}" if delivery.next_attempt_at else "",
        delivery.url,
    ]
    return "  ".join(part for part in shown if part)
