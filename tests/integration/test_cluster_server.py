"""Starting any server: ready when it says so, told when it does not, gone when it was stopped."""

import sys
import urllib.request
from pathlib import Path

import pytest

from sfumato.cluster.server import Recipe, Server, ServerSilent, free_ports, running
from tests.service import alive
from tests.support import poll


def web(port: int, folder: Path) -> Recipe:
    """Python's own file server."""
    command = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder))
    return Recipe("web", command, lambda: answers(port), ready_within_s=10)


def answers(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1) as answer:
        return bool(answer.status == 200)


def test_server_is_ready_when_it_was_started_and_gone_at_the_end(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with running(web(port, tmp_path), tmp_path / "web.log") as server:
        assert answers(port)
        pid = server.pid
    assert not alive(pid)


def test_killed_server_can_be_started_again(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with running(web(port, tmp_path), tmp_path / "web.log") as server:
        first = server.pid
        server.kill()
        assert not alive(first)
        server.start()
        assert answers(port)


def test_server_that_ends_is_told_at_once_with_its_last_words(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('no room on the disk')")

    with pytest.raises(ServerSilent, match=r"ended with status 1(?s:.)*no room on the disk"):
        Server(Recipe("broken", command, lambda: False), tmp_path / "log").start()


def test_server_that_is_never_ready_is_killed(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import threading; threading.Event().wait()")
    server = Server(Recipe("mute", command, lambda: False, ready_within_s=0.3), tmp_path / "log")

    with pytest.raises(ServerSilent, match="is not ready"):
        server.start()
    poll(lambda: not alive(server.pid))


def test_what_a_server_started_dies_with_it(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import threading; threading.Event().wait()'])"
    )
    server = Server(Recipe("parent", (sys.executable, "-c", script), lambda: True), tmp_path / "log")
    server.start()
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    child = int(poll(lambda: children.read_text().strip()))

    server.kill()

    poll(lambda: not alive(child))


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20
