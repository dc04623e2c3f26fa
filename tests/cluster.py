"""`sfumato cluster up` as its users start it: real servers and roles below one parent, in a folder of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from tests.service import Service, alive
from tests.support import poll

__all__ = ["ROLES", "Cluster"]

ROLES: Final = ("gateway", "dispatcher", "recorder", "controller", "worker")
SERVERS: Final = {
    "kafka": r"kafka\.Kafka",
    "seaweedfs": r"/weed ",
    "minio": r"/minio server ",
    "postgres": r"/postgres -D ",
    "nginx": r"nginx",
}
"""What a server's command line has in it, while it is started and when it runs."""


class Cluster(Service):
    """Starts `sfumato cluster up`, waits until it says that it is ready, and knows each of its processes by name."""

    ready_within_s = 90.0

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        models: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, models=models, environment=environment)
        self.command = ("cluster", "up", *arguments)

    def pids(self, name: str) -> list[int]:
        """The processes of a role or server that live now, oldest first: `worker` is all workers, `kafka` all brokers.

        `worker MODEL` is the workers of one model.
        """
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        named = {int(pid): _name(int(pid)) for pid in children.read_text().split()}
        return [pid for pid, known in named.items() if f"{known} ".startswith(f"{name} ") and alive(pid)]

    def signal(self, name: str, sign: signal.Signals, which: int = 0) -> int:
        """Send a signal to one of these processes, when there is one; gives its id."""
        pid = int(poll(lambda: self.pids(name)[which : which + 1], within_s=20)[0])
        with suppress(ProcessLookupError):
            os.kill(pid, sign)
        return pid

    def kill(self, name: str, which: int = 0) -> int:
        """SIGKILL; the parent starts another one. Gives the id of the one killed."""
        return self.signal(name, signal.SIGKILL, which)

    @contextmanager
    def paused(self, name: str, which: int = 0) -> Iterator[int]:
        """One process stands still within; it wakes up afterwards where it stood."""
        pid = self.signal(name, signal.SIGSTOP, which)
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """A server is killed and not started again within: the parent stands still for so long."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            for pid in self.pids(name):
                os.kill(pid, signal.SIGKILL)
                poll(partial(_is_gone, pid))
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    @contextmanager
    def another(self, role: str) -> Iterator[int]:
        """One more process of a role (a worker's with its model), as another host would run it; killed at the end."""
        command = [sys.executable, "-m", "sfumato", *role.split()]
        with self.log_of_another.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment_of_roles())
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait()

    @property
    def log_of_another(self) -> Path:
        """Where the latest of these writes."""
        return self.log.with_name("another.log")

    def setting(self, name: str) -> str:
        """A setting as the roles were given it."""
        return self.environment_of_roles()[f"SFUMATO_{name.upper()}"]

    def left(self) -> dict[int, str]:
        """Every process of the machine that has to do with this cluster: process id → command line."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            pid = int(process.name)
            with suppress(OSError):
                told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                told += os.fsencode((process / "cwd").readlink())
                if os.fsencode(self.data_dir) in told and alive(pid) and pid != os.getpid():
                    found[pid] = _command(pid)
        return found

    def ends_whole(self, within_s: float = 20.0) -> None:
        """Assert that nothing of it is left running.

        Raises:
            AssertionError: something is; it is killed after that, so that it disturbs nobody.
        """
        try:
            poll(lambda: not self.left(), within_s=within_s)
        except AssertionError:
            left = self.left()
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"left running: {left}") from None

    def _end(self) -> None:
        super()._end()
        if sys.platform.startswith("linux"):
            self.ends_whole()


def _is_gone(pid: int) -> bool:
    return not alive(pid)


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def _name(pid: int) -> str:
    """The role, a worker's with its model, or the server; "" when it is neither, or has ended."""
    with suppress(OSError):
        command = _command(pid) + " "
        if role := re.search(r" sfumato (gateway|dispatcher|recorder|controller|worker [^ ]+) ", command):
            return role[1]
        return next((name for name, sign in SERVERS.items() if re.search(sign, command)), "")
    return ""
