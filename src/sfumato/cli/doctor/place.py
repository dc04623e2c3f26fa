"""Where the service would be: its folders and its ports."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sfumato.cli.doctor.finding import Finding

if TYPE_CHECKING:
    from sfumato.config import Settings

__all__ = ["folders", "ports"]

ENOUGH_BYTES: Final = 1024**3
"""With less a service starts, and its disk is soon full."""
ANSWER_WITHIN_S: Final = 2.0


def folders(settings: "Settings") -> Iterator[Finding]:
    """Every folder that is written to, and the room on the disk of the first."""
    data = settings.data_dir.absolute()
    yield _folder("data folder", data, "choose another with --data-dir")
    yield _disk(data)
    if settings.models_cache is not None:
        yield _folder("folder for fetched models", settings.models_cache.absolute(), "mend SFUMATO_MODELS_CACHE")
    if settings.benchmark_file is not None:
        folder = settings.benchmark_file.absolute().parent
        advice = "make it, or mend SFUMATO_BENCHMARK_FILE"
        there = _folder("folder of the benchmark file", folder, advice)
        yield there if folder.is_dir() else Finding("bad", f"folder of the benchmark file {folder}", advice)


def ports(settings: "Settings") -> Iterator[Finding]:
    """Every port that `sfumato up` or a role would listen on."""
    yield _port(settings.host, settings.port, "--port", "/healthz")
    if settings.metrics_port not in (0, settings.port):
        yield _port(settings.host, settings.metrics_port, "SFUMATO_METRICS_PORT", "/metrics")


def _folder(name: str, folder: Path, advice: str) -> Finding:
    near = folder
    try:
        near = _nearest(folder)
        # Asking for permissions would not do: there are folders in which not even root can make anything.
        with tempfile.TemporaryDirectory(prefix=".sfumato-doctor-", dir=near):
            pass
        there = folder.exists()
    except OSError:
        return Finding("bad", f"{name} {folder}", f"{near} can't be written; {advice}")
    return Finding("good", f"{name} {folder}", "" if there else "will be made")


def _disk(folder: Path) -> Finding:
    from sfumato.supervisor.place import LEAST_FREE_BYTES

    try:
        free = shutil.disk_usage(_nearest(folder)).free
    except OSError as error:
        return Finding("bad", "free disk", f"{folder}: {error.strerror}")
    if free < LEAST_FREE_BYTES:
        advice = f"a service starts from {LEAST_FREE_BYTES >> 20} MiB; free some, or choose another with --data-dir"
        return Finding("bad", f"{free >> 20} MiB of disk free", advice)
    if free < ENOUGH_BYTES:
        return Finding("warning", f"{free >> 20} MiB of disk free", "free some; pictures are kept for days")
    return Finding("good", f"{free / 1024**3:.1f} GiB of disk free")


def _port(host: str, port: int, option: str, path: str) -> Finding:
    if port == 0:
        return Finding("good", f"a free port on {host} will be picked")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, UnicodeError) as error:
            if _answers(host, port, path):
                return Finding("good", f"port {port} on {host}: a service answers there")
            why = getattr(error, "strerror", None) or "no address"
            option = "SFUMATO_HOST" if isinstance(error, socket.gaierror | UnicodeError) else option
            return Finding("bad", f"port {port} on {host}", f"{why}; choose another with {option}")
    return Finding("good", f"port {port} on {host} is free")


def _answers(host: str, port: int, path: str) -> bool:
    """Whether one of ours says there that it is well, or shows our metrics."""
    import httpx

    from sfumato.supervisor.place import address_of

    try:
        said = httpx.get(f"{address_of(host, port)}{path}", timeout=ANSWER_WITHIN_S, trust_env=False)
        return "sfumato_" in said.text if path == "/metrics" else bool(said.json() == {"status": "ok"})
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())
