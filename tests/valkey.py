"""A real Valkey, or a Redis, which says the same here: Debian has one or the other."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from sfumato.cluster.server import Recipe, Server, free_ports, running

__all__ = ["PASSWORD", "Valkey", "answers", "program", "valkey"]

PASSWORD: Final = "not-for-everybody"


class Valkey:
    """One that runs; `server` kills and starts it."""

    def __init__(self, server: Server, port: int) -> None:
        self.server, self.port = server, port

    @property
    def url(self) -> str:
        return f"valkey://:{PASSWORD}@127.0.0.1:{self.port}"


def program() -> str:
    """Where it is; skips the test where it is not."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        pytest.skip("no Valkey is on this machine, and there is no wheel of it: apt-get install redis-server")
    return found


@contextmanager
def valkey(folder: Path, *more: str) -> Iterator[Valkey]:
    """A server on a free port of loopback that keeps nothing on the disk; `more` are lines of its configuration."""
    (port,) = free_ports(1)
    lines = ["bind 127.0.0.1", f"port {port}", f"requirepass {PASSWORD}", f"dir {folder}", 'save ""', *more]
    config = folder / "valkey.conf"
    config.write_text("\n".join(lines) + "\n")
    recipe = Recipe("valkey", (program(), str(config)), ready=lambda: answers(port))
    with running(recipe, folder / "valkey.log") as server:
        yield Valkey(server, port)


def answers(port: int) -> bool:
    """Whether a server there takes the password and answers."""
    with socket.create_connection(("127.0.0.1", port), 2) as connection:
        connection.sendall(f"AUTH {PASSWORD}\r\nPING\r\nQUIT\r\n".encode())
        return b"+PONG" in b"".join(iter(lambda: connection.recv(64), b""))
