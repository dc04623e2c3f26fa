"""A real PostgreSQL as a server of ours: it is our own child, and survives its death."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.cluster.postgres import postgres, postgres_url
from sfumato.cluster.server import Server, free_ports, running
from tests.postgres import say
from tests.support import poll

pytestmark = pytest.mark.server


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def server(server_folder: Path, port: int) -> Iterator[Server]:
    with running(postgres(server_folder / "postgres", port), server_folder / "postgres.log") as server:
        yield server


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_server_is_our_own_child_and_what_it_started_dies_with_it(server: Server) -> None:
    assert Path(f"/proc/{server.pid}/comm").read_text().strip() == "postgres"
    assert server.pid in children(os.getpid())
    workers = children(server.pid)

    server.kill()

    poll(lambda: not any(Path(f"/proc/{worker}/exe").exists() for worker in workers))


def test_killed_server_starts_again_with_what_it_kept(server: Server, server_folder: Path, port: int) -> None:
    address = postgres_url(server_folder / "postgres", port)
    say(address, "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('here')")

    for _ in range(2):
        server.kill()
        server.start()

        assert say(address, "SELECT word FROM kept") == "here"


def test_folder_is_made_once_and_its_password_is_nobody_elses(server_folder: Path, port: int) -> None:
    folder = server_folder / "postgres"

    first, second = postgres(folder, port), postgres(folder, port)

    assert first.command == second.command
    assert (folder / "password").stat().st_mode & 0o077 == 0
    assert postgres_url(folder, port) == postgres_url(folder, port)


def test_nobody_gets_in_without_the_password(server: Server, server_folder: Path, port: int) -> None:
    right = postgres_url(server_folder / "postgres", port)

    with pytest.raises(AssertionError, match="password authentication failed"):
        say(right.replace("sfumato:", "sfumato:x"), "SELECT 1")
