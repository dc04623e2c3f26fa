"""`sfumato up`: the whole service as children of one parent, each restarted with backoff when it dies.

The parent binds the listening socket and hands it down, so a gateway that restarts loses no connection: they wait in
the socket's backlog. Every child holds the read end of a pipe (its lifeline); when the parent dies, however that
happens, the pipe closes and the children leave by themselves.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfumato.config import Settings, child_environment
from sfumato.core.errors import SfumatoError
from sfumato.models.registry import Model, Registry
from sfumato.observability import forget_process, setup_logging
from sfumato.process import stop_on_signals

__all__ = ["CannotStart", "Supervisor", "backoff_s", "up"]

log = logging.getLogger(__name__)

LEAST_FREE_BYTES = 64 * 1024 * 1024
STOP_WITHIN_S = 9.0
READY_WITHIN_S = 60.0
SETTLED_S = 10.0
"""A child that lived this long has started well; its next restart is quick again."""


class CannotStart(SfumatoError):
    """The service can't start here; the message says what to change."""

    slug = "cannot-start"
    title = "The service can't start"


@dataclass(frozen=True, slots=True)
class Role:
    """What one child runs, and how long it may take to leave. Roles stop in the order of `stops`.

    `fds` are inherited by this child alone; `model` is what a worker serves.
    """

    name: str
    arguments: tuple[str, ...]
    stops: int
    grace_s: float
    fds: tuple[int, ...] = ()
    model: Model | None = None


@dataclass(slots=True)
class Child:
    """A role's present process and its task."""

    role: Role
    task: "asyncio.Task[None] | None" = None
    process: asyncio.subprocess.Process | None = None
    stopping: bool = field(default=False)


def backoff_s(deaths: int) -> float:
    """Seconds to wait before the restart after the `deaths`-th early death in a row: 0.1, 0.2, 0.4 … 10."""
    return float(min(10.0, 0.1 * 2 ** max(0, deaths - 1)))


class Supervisor:
    """Keeps one process per role alive until told to stop."""

    def __init__(self, environment: Mapping[str, str], lifeline: int, metrics_dir: Path) -> None:
        self._environment, self._lifeline, self._metrics_dir = dict(environment), lifeline, metrics_dir
        self.children: dict[str, Child] = {}

    def start(self, role: Role) -> None:
        """Run `role` from now on; without effect when it runs already."""
        if role.name not in self.children:
            child = self.children[role.name] = Child(role)
            child.task = asyncio.create_task(self._keep(child))

    async def stop(self, names: Sequence[str], within_s: float) -> None:
        """End these children: ask, wait for their grace within `within_s`, then kill."""
        chosen = [self.children.pop(name) for name in names]
        await asyncio.gather(*(self._end(child, min(child.role.grace_s, within_s)) for child in chosen))

    async def stop_all(self, within_s: float = STOP_WITHIN_S) -> None:
        """End every child in the roles' order: first what takes work in, last what writes it down."""
        deadline = time.monotonic() + within_s
        for rank in sorted({child.role.stops for child in self.children.values()}):
            names = [name for name, child in self.children.items() if child.role.stops == rank]
            await self.stop(names, max(0.2, deadline - time.monotonic()))

    async def _keep(self, child: Child) -> None:
        deaths = 0
        while not child.stopping:
            born = time.monotonic()
            how = await self._live(child)
            if child.stopping:
                return
            deaths = 1 if time.monotonic() - born > SETTLED_S else deaths + 1
            pause_s = backoff_s(deaths)
            log.warning("%s %s; starting it again in %.1f s", child.role.name, how, pause_s)
            await asyncio.sleep(pause_s)

    async def _live(self, child: Child) -> str:
        """One life of a child, and how it ended."""
        try:
            child.process = await self._spawn(child.role)
            status = await child.process.wait()
            forget_process(child.process.pid, self._metrics_dir)
        except OSError as error:
            # No process, no memory, no descriptor left: a moment later there may be.
            return f"could not be started ({error})"
        return f"ended with status {status}"

    async def _spawn(self, role: Role) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C reaches the parent alone, which then ends the children in order.
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sfumato",
            *role.arguments,
            "--lifeline",
            str(self._lifeline),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(*role.fds, self._lifeline),
            start_new_session=True,
        )

    @staticmethod
    async def _end(child: Child, grace_s: float) -> None:
        child.stopping = True
        process = child.process
        if child.task is not None and (process is None or process.returncode is not None):
            child.task.cancel()
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), grace_s)
            except TimeoutError:
                log.warning("%s did not leave within %.1f s and is killed", child.role.name, grace_s)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if child.task is not None:
            await asyncio.gather(child.task, return_exceptions=True)


def up(settings: Settings) -> int:
    """Run the embedded service until SIGINT or SIGTERM; gives the exit status.

    Raises:
        CannotStart: the port is taken, the data folder can't be written, is full, or another service runs on it.
    """
    setup_logging("up", settings.log_level, settings.log_format)
    folder = settings.data_dir.absolute()
    with _only_one(folder):
        metrics_dir = folder / "metrics"
        shutil.rmtree(metrics_dir, ignore_errors=True)
        metrics_dir.mkdir()
        with _listen(settings.host, settings.port) as listener:
            host, port = listener.getsockname()[:2]
            changes = {"data_dir": folder, "metrics_dir": metrics_dir, "port": port}
            return asyncio.run(_run(settings.model_copy(update=changes), listener, _address(host, port), metrics_dir))


async def _run(settings: Settings, listener: socket.socket, address: str, folder: Path) -> int:
    registry = Registry.load(settings.models_file)
    registry.keep(settings.last_models_file)
    settings = settings.model_copy(update={"live_workers": max(1, settings.workers * len(registry.names()))})
    lifeline, ours = os.pipe()
    stop = stop_on_signals()
    supervisor = Supervisor(child_environment(settings), lifeline, folder)
    try:
        fd = listener.fileno()
        supervisor.start(Role("gateway", ("gateway", "--fd", str(fd)), stops=0, grace_s=3.0, fds=(fd,)))
        supervisor.start(Role("dispatcher", ("dispatcher",), stops=1, grace_s=2.0))
        supervisor.start(Role("recorder", ("recorder",), stops=3, grace_s=2.0))
        await _adjust_workers(supervisor, registry, settings)
        ready = asyncio.create_task(_say_when_ready(address))
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 2.0)
            if registry.refresh():
                registry.keep(settings.last_models_file)
                log.info("the models are now: %s", ", ".join(registry.names()))
                await _adjust_workers(supervisor, registry, settings)
        ready.cancel()
        log.info("stopping; a second signal changes nothing")
        await supervisor.stop_all()
    finally:
        os.close(lifeline)
        os.close(ours)
    return 0


async def _adjust_workers(supervisor: Supervisor, registry: Registry, settings: Settings) -> None:
    """Start the workers of models that came, end those of models that went, and both for models that changed."""
    grace_s = settings.drain_s + 1.0
    wanted = {
        (name := f"worker {model.name} {n}"): Role(name, ("worker", model.name), stops=2, grace_s=grace_s, model=model)
        for model in registry
        for n in range(settings.workers)
    }
    present = {name: child.role for name, child in supervisor.children.items() if child.role.model is not None}
    await supervisor.stop([name for name, role in present.items() if wanted.get(name) != role], STOP_WITHIN_S)
    for role in wanted.values():
        supervisor.start(role)


async def _say_when_ready(address: str) -> None:
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


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"can't listen on {host}:{port} ({error.strerror}). Choose another --port, or stop what uses it."
        ) from error
    return listener


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
