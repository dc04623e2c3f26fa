"""Webhooks of several owners of a real `sfumato up`: neither their receivers nor their secrets meet."""

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

from tests.sample_pictures import picture
from tests.service import Service, answered, picture_request

HANGING = 300
"""Far more than the recorder sends at once."""


def key_of(folder: Path, owner: str) -> str:
    environment = dict(os.environ) | {"SFUMATO_DATA_DIR": str(folder)}  # noqa: TID251 - the child's
    command = [sys.executable, "-m", "sfumato", "keys", "create", owner]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, timeout=60
    ).stdout.strip()


def submit(service: Service, key: str, webhook_url: str) -> None:
    query = {"model_name": "quick", "webhook_url": webhook_url, "webhook_events": "succeeded"}
    request = picture_request(service.url, picture(), **query)
    request.add_header("Authorization", f"Bearer {key}")
    answer = answered(request)
    assert answer.status == 202, answer.body


@contextmanager
def silent() -> Iterator[int]:
    """A port on every address of this machine's own that takes connections and never says a word."""
    with socket.create_server(("0.0.0.0", 0), backlog=4096) as listening:  # noqa: S104 - 127.0.0.0/8 has no other name
        yield listening.getsockname()[1]


@contextmanager
def receiver() -> Iterator[tuple[str, "queue.Queue[tuple[float, bytes, dict[str, str]]]"]]:
    got: queue.Queue[tuple[float, bytes, dict[str, str]]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.put((time.time(), self.rfile.read(int(self.headers["Content-Length"])), dict(self.headers)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", got
    finally:
        server.shutdown()
        server.server_close()


def test_an_owner_whose_many_addresses_all_hang_delays_no_other(tmp_path: Path) -> None:
    service = Service(tmp_path, environment={"SFUMATO_WEBHOOK_ALLOW": "127.0.0.0/8"})
    alice, mallory = key_of(service.data_dir, "alice"), key_of(service.data_dir, "mallory")
    with service, silent() as port, receiver() as (url, got):
        for number in range(HANGING):
            submit(service, mallory, f"http://127.1.{number // 200}.{number % 200 + 1}:{port}/")
        late = []
        for _ in range(5):
            submit(service, alice, url)
            at, body, headers = got.get(timeout=60)
            event: dict[str, Any] = json.loads(body)
            late.append(at - datetime.fromisoformat(event["timestamp"]).timestamp())
        assert max(late) < 3.0, late  # one address that hangs is waited for 10 s

        def secret(key: str) -> str:
            asked = urllib.request.Request(f"{service.url}/api/webhooks/secrets", method="POST")
            asked.add_header("Authorization", f"Bearer {key}")
            (only,) = json.loads(answered(asked).body)["secrets"]
            return str(only)

        assert Webhook(secret(alice)).verify(body, headers)["data"]["id"] == event["data"]["id"]
        assert secret(alice) != secret(mallory)


def test_another_owners_receiver_that_hangs_on_the_same_host_delays_nobody(tmp_path: Path) -> None:
    service = Service(tmp_path, environment={"SFUMATO_WEBHOOK_ALLOW": "127.0.0.0/8"})
    mallory, ann = (key_of(service.data_dir, owner) for owner in ("mallory", "ann"))
    with service, silent() as port, receiver() as (url, got):
        for _ in range(10):
            submit(service, mallory, f"http://127.0.0.1:{port}/")
        late = []
        for _ in range(5):
            submit(service, ann, url)
            at, body, _ = got.get(timeout=60)
            late.append(at - datetime.fromisoformat(json.loads(body)["timestamp"]).timestamp())

    assert max(late) < 1.0, late
