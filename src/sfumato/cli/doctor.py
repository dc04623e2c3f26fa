"""The verb `doctor`: is this machine ready to run the service, and if not, what to change."""

import asyncio
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.verb import Verb
from sfumato.core.errors import SfumatoError

if TYPE_CHECKING:
    from sfumato.config import Settings

__all__ = ["Finding", "add_to", "findings"]

ENOUGH_BYTES = 1024**3
ANSWER_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is as it should be, and what to do when it is not."""

    good: bool
    what: str
    advice: str = ""


def add_to(app: typer.Typer) -> None:
    """Add this verb to the command."""
    app.command(cls=Verb, rich_help_panel="Run the service")(doctor)


def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="Data folder to look at.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to look at.")] = None,
) -> None:
    """Check the data folder, disk space, models, servers and port."""
    from sfumato.config import load_settings

    found = list(findings(load_settings(data_dir=data_dir, port=port)))
    for one in found:
        sys.stdout.write(f"{'✓' if one.good else '✗'} {one.what}{f': {one.advice}' if one.advice else ''}\n")
    raise typer.Exit(not all(one.good for one in found))


def findings(settings: "Settings") -> Iterator[Finding]:
    """Look at everything, one finding each; nothing that is left is changed."""
    yield _folder(settings.data_dir.absolute())
    yield _disk(settings.data_dir.absolute())
    yield from _models(settings)
    yield from _servers(settings)
    yield _port(settings.host, settings.port)


def _folder(folder: Path) -> Finding:
    place = _nearest(folder)
    try:
        # Asking for permissions would not do: there are folders in which not even root can make anything.
        with tempfile.TemporaryDirectory(prefix=".sfumato-doctor-", dir=place):
            pass
    except OSError:
        return Finding(False, f"data folder {folder}", f"{place} can't be written; choose another with --data-dir")
    return Finding(True, f"data folder {folder}", "" if folder.exists() else "will be made")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(_nearest(folder)).free
    advice = "" if free >= ENOUGH_BYTES else "free some; pictures are kept for days"
    return Finding(free >= ENOUGH_BYTES, f"{free / 1024**3:.1f} GiB of disk free", advice)


def _models(settings: "Settings") -> Iterator[Finding]:
    from sfumato.models.registry import Registry

    try:
        registry = Registry.read(settings.models_file)
    except SfumatoError as error:
        yield Finding(False, "models", error.detail)
        return
    yield Finding(True, f"models {', '.join(registry.names())}")
    for name, trouble in registry.troubles.items():
        yield Finding(False, f"model {name}", trouble)


def _servers(settings: "Settings") -> Iterator[Finding]:
    from sfumato.wiring import servers_asked

    for name, trouble in asyncio.run(servers_asked(settings)):
        yield Finding(not trouble, name if trouble else f"{name} answers", trouble)


def _port(host: str, port: int) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if _answers(host, port):
                return Finding(True, f"port {port} on {host}: a service answers there")
            return Finding(False, f"port {port} on {host}", f"{error.strerror}; choose another with --port")
    return Finding(True, f"port {port} on {host} is free")


def _answers(host: str, port: int) -> bool:
    """Whether a service says there that it is well."""
    import httpx

    # One that listens everywhere is asked here.
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked, not listened on
    try:
        url = httpx.URL(scheme="http", host=near, port=port, path="/healthz")
        return bool(httpx.get(url, timeout=ANSWER_WITHIN_S, trust_env=False).json() == {"status": "ok"})
    except (httpx.HTTPError, ValueError):
        return False


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())
