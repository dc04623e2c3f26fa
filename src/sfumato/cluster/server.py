"""How any server is started, asked whether it is ready, stopped, killed and started again."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sfumato.config import inherited_environment
from sfumato.core.errors import SfumatoError

__all__ = ["Recipe", "Server", "ServerMissing", "ServerSilent", "free_ports", "running"]

POLL_S: Final = 0.05
TAIL_CHARS: Final = 4_000


class ServerMissing(SfumatoError):
    """A server that the cluster needs is not on this machine; the message says how to get it."""

    slug = "server-missing"
    title = "A server is not on this machine"


class ServerSilent(SfumatoError):
    """A server was started and ended, or never said that it is ready; the message holds the end of its log."""

    slug = "server-silent"
    title = "A server did not start"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One server's process. Whatever it keeps lies in folders that the command names, so that it can be started again.

    `ready` asks the server itself; while it raises or is False, it is asked again.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_within_s: float = 30.0
    grace_s: float = 5.0
    stop_signal: signal.Signals = signal.SIGTERM

    def is_ready(self) -> bool:
        """Whether it says that it is ready, now."""
        try:
            return self.ready()
        except Exception:
            # Each server's client has errors of its own for "not yet"; if it stays so, the log's end is shown.
            return False


class Server:
    """A recipe's process, in a session of its own; its output goes to `log`."""

    def __init__(self, recipe: Recipe, log: Path) -> None:
        self.recipe, self.log = recipe, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; it must have been started."""
        if self._process is None:
            raise RuntimeError(f"{self.recipe.name} was not started yet.")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            ServerSilent: it ended, or was not ready in time.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = inherited_environment() | dict(self.recipe.environment)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.recipe.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        deadline, pause = time.monotonic() + self.recipe.ready_within_s, threading.Event()
        while not self.recipe.is_ready():
            status = self._process.poll()
            if status is not None or time.monotonic() > deadline:
                self.kill()
                how = "is not ready" if status is None else f"ended with status {status}"
                raise ServerSilent(f"{self.recipe.name} {how}; its log {self.log} ends:\n{self._tail()}")
            pause.wait(POLL_S)

    def stop(self) -> None:
        """Ask it to end, and kill it when it does not within its grace."""
        if self._process is None or self._process.poll() is not None:
            return
        self._signal(self.recipe.stop_signal)
        try:
            self._process.wait(self.recipe.grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to it and all that it started, and wait until it is gone."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, sign: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, sign)

    def _tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-TAIL_CHARS:]


@contextmanager
def running(recipe: Recipe, log: Path) -> Iterator[Server]:
    """The recipe's server, ready; it is stopped at the end, whatever happened."""
    server = Server(recipe, log)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on now, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
