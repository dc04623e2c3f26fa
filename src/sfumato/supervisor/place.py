"""Where a service starts: its data folder held, its port bound, and the word that it is ready."""

import asyncio
import contextlib
import fcntl
import logging
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from sfumato.config import Settings, metrics_shared_in
from sfumato.core.errors import SfumatoError
from sfumato.core.keys import KeyStore
from sfumato.process import show_metrics
from sfumato.wiring import open_keys

__all__ = [
    "LEAST_FREE_BYTES",
    "CannotStart",
    "address_of",
    "check_keys",
    "has_good_key",
    "listen",
    "say_when_ready",
    "taken",
]

log = logging.getLogger(__name__)

LEAST_FREE_BYTES = 64 * 1024 * 1024
"""With less on the disk of its data folder no service starts."""
READY_WITHIN_S = 60.0


class CannotStart(SfumatoError):
    """The service can't start here; the message says what to change."""

    slug = "cannot-start"
    title = "The service can't start"


@contextlib.contextmanager
def taken(settings: Settings) -> Iterator[Settings]:
    """The data folder held for one service alone, with no metrics of an earlier one; the settings that name both.

    The metrics of all its processes are shown on the port that was asked for; the children need none.

    Raises:
        CannotStart: the folder can't be written, is full, or another service runs on it.
        BadSettings: the port for the metrics can't be had.
    """
    folder = settings.data_dir.absolute()
    with _only_one(folder):
        metrics_dir = folder / "metrics"
        shutil.rmtree(metrics_dir, ignore_errors=True)
        metrics_dir.mkdir()
        ours = settings.model_copy(update={"data_dir": folder, "metrics_dir": metrics_dir})
        show_metrics(ours)
        with metrics_shared_in(metrics_dir):
            yield ours.model_copy(update={"metrics_port": 0})


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the data folder: it exists, can be written, has room, and no other `sfumato up` runs on it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "up.lock").open("a")
    except OSError as error:
        raise CannotStart(
            f"the data folder {folder} can't be written ({error.strerror}). "
            "Choose another with --data-dir, or mend its permissions."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotStart(
                f"another service runs on {folder}. Stop it, or choose another folder with --data-dir."
            ) from error
        free = shutil.disk_usage(folder).free
        if free < LEAST_FREE_BYTES:
            raise CannotStart(
                f"the disk of {folder} has {free // 2**20} MiB left; {LEAST_FREE_BYTES // 2**20} are needed. "
                "Free some, or choose another folder with --data-dir."
            )
        yield


def check_keys(settings: Settings) -> None:
    """See that who can reach the service from elsewhere needs a key, and that there is one.

    Raises:
        CannotStart: there is none, and no word that the service is to be open.
        SfumatoError: the database that holds the keys can't be used.
    """
    if settings.auth == "open" or settings.on_loopback or asyncio.run(_has_key(settings)):
        return
    raise CannotStart(
        f"on {settings.host} others reach this service, and there is no key yet. Make one: sfumato keys create OWNER"
        " (with the same --data-dir), or let everybody in: SFUMATO_AUTH=open."
    )


async def _has_key(settings: Settings) -> bool:
    async with open_keys(settings) as keys:
        return await has_good_key(keys)


async def has_good_key(keys: KeyStore) -> bool:
    """Whether there is one that lets somebody in now. Raises TransientError."""
    return any(key.good(time.time()) for key in (await keys.keys()).values())


def listen(host: str, port: int) -> socket.socket:
    """A listening socket to hand down, so that a child that restarts loses no connection: they wait in its backlog.

    Raises:
        CannotStart: the port is taken or the address is not this host's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"can't listen on {host}:{port} ({error.strerror}). "
            "Choose another --port (or SFUMATO_PORT), or stop what uses it."
        ) from error
    return listener


def address_of(host: str, port: int) -> str:
    """The address under which what listens there is reached from here."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


async def say_when_ready(address: str) -> None:
    """Log that the service answers at `address`, or that it still does not after a minute."""
    deadline = time.monotonic() + READY_WITHIN_S
    while not await asyncio.to_thread(_answers, f"{address}/readyz"):
        if time.monotonic() > deadline:
            log.error("the gateway is not ready after %.0f s; see its lines above", READY_WITHIN_S)
            return
        await asyncio.sleep(0.05)
    log.info("ready on %s, reference on %s/docs", address, address)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
