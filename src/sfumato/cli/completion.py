"""What a shell's Tab key offers beyond verbs and options: models, ids of jobs. In doubt nothing, and at once."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import typer

from sfumato.cli.options import DEFAULT_URL
from sfumato.core.retry import RetryPolicy

if TYPE_CHECKING:
    from sfumato.client import Client

__all__ = ["ended_jobs", "jobs", "listed_models", "models", "open_jobs"]

ANSWER_WITHIN_S: Final = 0.5
WITHIN_S: Final = 1.5
ONCE: Final = RetryPolicy(max_attempts=1)
AT_MOST: Final = 20

Words = list[tuple[str, str]]
"""Each with what is said beside it in shells that show it."""


def models(context: typer.Context) -> Words:
    """The models of the service that the command line or SFUMATO_URL names."""

    def of(service: "Client") -> Words:
        return [(model.name, model.summary or model.state) for model in service.models()]

    return _of_service(context, of)


def jobs(context: typer.Context) -> Words:
    """The newest jobs of that service."""
    return _of_service(context, lambda service: _jobs(service, ("",)))


def open_jobs(context: typer.Context) -> Words:
    """The newest jobs that have not ended."""
    return _of_service(context, lambda service: _jobs(service, ("running", "queued")))


def ended_jobs(context: typer.Context) -> Words:
    """The newest jobs that have ended."""
    return _of_service(context, lambda service: _jobs(service, ("succeeded", "failed", "canceled")))


def listed_models(context: typer.Context) -> Words:
    """The models that models.toml lists on this machine."""

    def here() -> Words:
        from sfumato.config import load_settings_before_list
        from sfumato.models.list_file import tables_of

        given = {name: context.params.get(name) for name in ("data_dir", "models")}
        return [(name, "") for name in tables_of(load_settings_before_list(**given).models_file)]

    return _quietly(here)


def _jobs(service: "Client", states: tuple[str, ...]) -> Words:
    found = [job for state in states for job in service.jobs(limit=AT_MOST, status=state or None)]
    return [(job.id, f"{job.status} {job.model_name}: {' '.join(job.prompt.split())[:40]}") for job in found]


def _of_service(context: typer.Context, asked: "Callable[[Client], Words]") -> Words:
    def ask() -> Words:
        from sfumato.client import Client

        key = context.find_root().params.get("api_key")
        url = context.params.get("url") or DEFAULT_URL
        with Client(url, api_key=key, transport=context.obj, patience=ONCE, timeout_s=ANSWER_WITHIN_S) as service:
            return asked(service)

    return _quietly(ask)


def _quietly(ask: Callable[[], Words]) -> Words:
    """Its answer; none where it fails, however that is: a line that is being typed is no place for complaints."""
    found: Words = []

    def run() -> None:
        with suppress(Exception):
            found.extend(ask())

    # Beside the command, which goes on without it: the look-up of a host's name knows no timeout.
    asking = threading.Thread(target=run, daemon=True)
    asking.start()
    asking.join(WITHIN_S)
    return list(found)
