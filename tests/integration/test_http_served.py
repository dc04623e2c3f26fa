"""The gateway as a process of its own on a socket it was given, over the real stores."""

import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sample_pictures import picture
from tests.service import post_picture
from tests.support import poll

SERVE = """
import sys
from sfumato.config import load_settings
from sfumato.gateway.app import serve
sys.exit(serve(load_settings(data_dir=sys.argv[1]), fd=int(sys.argv[2])))
"""


class Served:
    """A gateway process and the address it answers at; `stop` is SIGTERM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.set_inheritable(True)
            self.port: int = listener.getsockname()[1]
            command = [sys.executable, "-c", SERVE, str(folder), str(listener.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self, within_s: float) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    gateway = Served(tmp_path / "data")
    try:
        poll(gateway.ready)
        yield gateway
    finally:
        gateway.process.kill()
        gateway.process.communicate()


def test_a_job_survives_the_gateway_that_took_it(served: Served, tmp_path: Path) -> None:
    status, answer = post_picture(served.url, picture(), key="k", model_name="restyle", prompt="neon")
    assert status == 202, answer
    assert served.stop(within_s=10) == 0

    second = Served(served.folder)
    try:
        poll(second.ready)
        _, again = post_picture(second.url, picture(), key="k", model_name="restyle", prompt="neon")
        assert again["id"] == answer["id"]
        link = answer["result_url"].replace(served.url, second.url)
        with urllib.request.urlopen(link, timeout=5) as waiting:
            assert (waiting.status, json.load(waiting)["status"]) == (202, "queued")
    finally:
        second.process.kill()
        second.process.communicate()


def test_sigterm_lets_waiting_callers_go(served: Served) -> None:
    answers: list[int] = []

    def wait() -> None:
        headers = {"Prefer": "wait=50", "Content-Type": "image/png"}
        url = f"{served.url}/api/diffusion?model_name=restyle"
        with urllib.request.urlopen(urllib.request.Request(url, picture(), headers), timeout=60) as answer:
            answers.append(answer.status)

    caller = threading.Thread(target=wait)
    caller.start()
    poll(lambda: _inputs(served))
    assert served.stop(within_s=6) == 0
    caller.join(10)
    assert answers == [202]


def test_a_connection_cut_in_the_body_leaves_nothing(served: Served) -> None:
    head = (
        "POST /api/diffusion?model_name=restyle HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(picture())}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(head.encode() + picture()[:100])
    poll(lambda: _held(served) == 0)
    assert not _inputs(served)


def _inputs(served: Served) -> list[Path]:
    return list((served.folder / "blobs" / "inputs").glob("*/*"))


def _held(served: Served) -> int:
    with urllib.request.urlopen(f"{served.url}/api/status", timeout=5) as answer:
        return int(json.load(answer)["body_bytes_in_flight"])


def test_a_body_over_the_limit_is_answered_while_it_is_sent(served: Served) -> None:
    status, answer = post_picture(served.url, picture() + bytes(25 * 2**20), model_name="restyle", prompt="x")
    assert (status, answer["type"]) == (413, "urn:sfumato:problem:body-too-large")


def test_a_folder_that_cannot_be_used_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    gateway = Served(tmp_path / "file" / "data")
    _, said = gateway.process.communicate(timeout=20)
    assert gateway.process.returncode == 1
    assert str(tmp_path / "file") in said
    assert "Traceback" not in said
