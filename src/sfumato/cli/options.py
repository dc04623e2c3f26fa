"""Options that several verbs share, and the clients made from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sfumato.core.retry import RetryPolicy

if TYPE_CHECKING:
    from sfumato.client import AsyncClient, Client

__all__ = [
    "API_KEY",
    "AsJson",
    "AsJsonLines",
    "JsonFile",
    "Lifeline",
    "Out",
    "Places",
    "Url",
    "Workers",
    "async_client",
    "client",
    "patient_client",
]


def _in_a_folder(file: Path | None) -> Path | None:
    """The file, refused at once where it can't be written: not after minutes of work for it."""
    if file is not None and not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {file.parent}")
    return file


Url = Annotated[str, typer.Option("--url", envvar="SFUMATO_URL", help="Address of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="JSON lines, for machines: one object each.")]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", dir_okay=False, callback=_in_a_folder, help="Write the measured rows to this file too."),
]
Out = Annotated[
    Path | None, typer.Option("--out", file_okay=False, help="Folder to save results into; waits for them.")
]
Lifeline = Annotated[int | None, typer.Option("--lifeline", hidden=True, help="File descriptor; at its end, stop.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Most workers of one model. By default 1, with GPUs as many as there are.")
]
Places = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Most workers at once, of all models. By default one for each GPU; without any, enough for all models.",
    ),
]

API_KEY: Final = "sfumato.api_key"
"""Where the command keeps the key for its verbs."""
DEFAULT_URL: Final = "http://127.0.0.1:8000"
PROMPT_PATIENCE: Final = RetryPolicy(max_attempts=4, first_s=0.2, factor=2.0)


def client(context: typer.Context, url: str) -> "Client":
    """A client for one call at a prompt: it gives up after about a second without an answer."""
    from sfumato.client import Client

    return Client(url, api_key=context.meta.get(API_KEY), transport=context.obj, patience=PROMPT_PATIENCE)


def patient_client(context: typer.Context, url: str) -> "Client":
    """A client for many calls, with the usual patience."""
    from sfumato.client import Client

    return Client(url, api_key=context.meta.get(API_KEY), transport=context.obj)


def async_client(context: typer.Context, url: str) -> "AsyncClient":
    """A client for many pictures, with the usual patience."""
    from sfumato.client import AsyncClient

    return AsyncClient(url, api_key=context.meta.get(API_KEY), transport=context.obj)
