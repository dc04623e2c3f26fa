"""Webhooks of a real `sfumato up`: they arrive, verify, survive kills, and nobody holds up another."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.receivers import receiving
from tests.sample_pictures import picture
from tests.service import Service, answered, post_picture
from tests.support import poll

ALLOWED = {"SFUMATO_WEBHOOK_ALLOW": "127.0.0.0/8"}
ROOT = Path(__file__).parents[2]
JOBS = 12


def submit(service: Service, **query: Any) -> str:
    status, answer = post_picture(service.url, picture(), model_name="quick", prompt="neon", **query)
    assert status == 202, answer
    identity: str = answer["id"]
    return identity


def asked(service: Service, method: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    answer = answered(urllib.request.Request(f"{service.url}/api/webhooks{path}", data=data, method=method))
    assert answer.status < 300, answer
    return json.loads(answer.body) if answer.body else None


def secret_of(service: Service) -> str:
    return (service.data_dir / "webhook-secret").read_text()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("webhooks"), environment=ALLOWED) as service:
        yield service


def test_every_event_arrives_once_in_order_and_verifies(service: Service) -> None:
    with receiving() as own, receiving() as ends:
        endpoint = asked(service, "POST", "/endpoints", {"url": ends.url, "events": ["succeeded", "failed"]})
        jobs = [submit(service, webhook_url=own.url, metadata=json.dumps({"n": n})) for n in range(JOBS)]
        poll(lambda: len(own.got) >= 2 * JOBS and len(ends.got) >= JOBS, within_s=60)

        assert [own.of(job) for job in jobs] == [["job.started", "job.succeeded"]] * JOBS
        assert [ends.of(job) for job in jobs] == [["job.succeeded"]] * JOBS
        assert max(Counter(each.id for each in own.got + ends.got).values()) == 1
        for receiver, secret in ((own, secret_of(service)), (ends, endpoint["secret"])):
            for each in receiver.got:
                told = Webhook(secret).verify(each.body, each.headers)
                assert len(each.body) <= 20_000
                shown = service.job(told["data"]["id"])
                assert told["data"].keys() == shown.keys()
                if told["type"] == "job.succeeded":
                    assert told["data"] == shown
        status, body = service.get(own.got[-1].event["data"]["result_url"])
        assert (status, body[:4]) == (200, b"\x89PNG")
        page = asked(service, "GET", f"/deliveries?job_id={jobs[0]}&state=delivered")
        assert sorted(each["event"] for each in page["deliveries"]) == ["started", "succeeded", "succeeded"]
        asked(service, "DELETE", f"/endpoints/{endpoint['id']}")

        again = page["deliveries"][0]["id"]
        before = len(own.got + ends.got)
        asked(service, "POST", f"/deliveries/{again}/redeliver")
        poll(lambda: len(own.got + ends.got) > before or _state(service, again) == "given_up")


def _state(service: Service, delivery: str) -> str:
    found = asked(service, "GET", "/deliveries?limit=500")["deliveries"]
    state: str = next(each["state"] for each in found if each["id"] == delivery)
    return state


def test_altered_body_old_time_and_other_id_fail_verification(service: Service) -> None:
    with receiving() as own:
        submit(service, webhook_url=own.url, webhook_events="succeeded")
        poll(lambda: own.got, within_s=30)
        verify, (got,) = Webhook(secret_of(service)).verify, own.got

        assert verify(got.body, got.headers)["type"] == "job.succeeded"
        old = {**got.headers, "webhook-timestamp": str(int(time.time()) - 600)}
        replayed = {**got.headers, "webhook-id": "msg_another"}
        for body, headers in ((got.body + b" ", got.headers), (got.body, old), (got.body, replayed)):
            with pytest.raises(WebhookVerificationError):
                verify(body, headers)


def test_rotated_secrets_sign_both_until_the_old_one_ends(service: Service) -> None:
    with receiving() as own:
        endpoint = asked(service, "POST", "/endpoints", {"url": own.url, "events": ["succeeded"]})
        new = asked(service, "POST", f"/endpoints/{endpoint['id']}/rotate", {"overlap_s": 3600})
        submit(service)
        poll(lambda: own.got, within_s=30)

        for secret in (endpoint["secret"], new["secret"]):
            assert Webhook(secret).verify(own.got[0].body, own.got[0].headers)
        asked(service, "DELETE", f"/endpoints/{endpoint['id']}")


def test_gone_disables_the_endpoint(service: Service) -> None:
    with receiving(lambda handler: handler.send_error(410)) as gone:
        endpoint = asked(service, "POST", "/endpoints", {"url": gone.url, "events": ["started", "succeeded"]})

        def disabled() -> Any:
            found = asked(service, "GET", "/endpoints")["endpoints"]
            return next(each["disabled"] for each in found if each["id"] == endpoint["id"])

        jobs = [submit(service)]
        poll(disabled, within_s=30)
        jobs.append(submit(service))
        poll(lambda: service.job(jobs[1])["status"] == "succeeded", within_s=30)

        assert len(gone.got) == 1
        asked(service, "DELETE", f"/endpoints/{endpoint['id']}")


def hang(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read(1)  # nothing more comes until the other side has had enough


def drip(handler: BaseHTTPRequestHandler) -> None:
    ended = threading.Event()
    for sign in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60:
        handler.wfile.write(bytes([sign]))
        ended.wait(1)


def flood(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
    for _ in range(10_000):
        handler.wfile.write(b"x" * 1_000_000)


def redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 302 F\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")


def fail(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(500)


def test_hostile_receivers_delay_nobody_by_a_second(service: Service) -> None:
    with ExitStack() as stack:
        good = stack.enter_context(receiving())
        answers = enumerate((hang, drip, flood, redirect, fail), 2)
        hostile = [stack.enter_context(receiving(each, f"127.0.0.{n}")) for n, each in answers]
        for n in range(30):
            submit(service, webhook_url=hostile[n % 5].url, webhook_events="started,succeeded")
        late = []
        for _ in range(10):
            job = submit(service, webhook_url=good.url, webhook_events="succeeded")
            poll(lambda job=job: good.of(job), within_s=60)  # type: ignore[misc]  # bound in this turn
            (got,) = [each for each in good.got if each.event["data"]["id"] == job]
            late.append(got.at - datetime.fromisoformat(got.event["timestamp"]).timestamp())

        assert max(late) < 1.0, late
        assert all(each.got for each in hostile)


def test_private_address_is_refused_at_submit(service: Service) -> None:
    for url in ("http://10.0.0.1/", "http://169.254.169.254/", "http://0x7f.1/", "ftp://example.com/"):
        status, answer = post_picture(service.url, picture(), model_name="quick", prompt="x", webhook_url=url)
        assert (status, answer["type"]) == (422, "urn:sfumato:problem:bad-webhook"), answer
        assert "SFUMATO_WEBHOOK_ALLOW" in answer["detail"]


def test_receiver_of_the_how_to_understands_us(service: Service) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "examples.webhook_receiver", port, secret_of(service)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as receiver:
        poll(lambda: _listens(int(port)))
        job = submit(service, webhook_url=f"http://127.0.0.1:{port}/", webhook_events="succeeded")
        assert receiver.stdout is not None
        line = receiver.stdout.readline()
        receiver.terminate()
    assert re.fullmatch(rf"msg_[0-9a-f]+ job\.succeeded http://\S+/api/jobs/{job}/result\?token=\S+\n", line), line
    shown = (ROOT / "docs" / "how-to" / "webhooks.md").read_text()
    assert (ROOT / "examples" / "webhook_receiver.py").read_text() in shown


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_killed_recorder_loses_no_delivery_and_keeps_ids_and_order(tmp_path: Path) -> None:
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        threading.Event().wait(0.2)
        handler.wfile.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    with receiving(slowly) as own, Service(tmp_path, environment=ALLOWED) as service:
        jobs = []
        for _ in range(3):
            jobs += [submit(service, webhook_url=own.url) for _ in range(JOBS)]
            before = len(own.got)
            poll(lambda before=before: len(own.got) > before, within_s=60)  # type: ignore[misc]  # in this turn
            os.kill(service.roles()["recorder"], signal.SIGKILL)
        poll(lambda: len({each.id for each in own.got}) >= 2 * len(jobs), within_s=90)

        assert len({each.id for each in own.got}) == 2 * len(jobs)
        for job in jobs:
            firsts = list(dict.fromkeys(own.of(job)))
            assert firsts == ["job.started", "job.succeeded"]


def test_what_happens_while_the_recorder_stands_still_is_told_after_in_order(tmp_path: Path) -> None:
    with receiving() as own, Service(tmp_path, environment=ALLOWED) as service:
        recorder = service.roles()["recorder"]
        os.kill(recorder, signal.SIGSTOP)
        links = {}
        for _ in range(JOBS):
            status, answer = post_picture(service.url, picture(), model_name="quick", webhook_url=own.url)
            assert status == 202, answer
            links[answer["id"]] = answer["result_url"]
        for link in links.values():
            poll(lambda link=link: service.get(link)[0] == 200, within_s=60)  # type: ignore[misc]  # in this turn
        assert own.got == []

        os.kill(recorder, signal.SIGCONT)
        poll(lambda: len(own.got) >= 2 * JOBS, within_s=60)

        assert [own.of(job) for job in links] == [["job.started", "job.succeeded"]] * JOBS


def test_two_recorders_send_nothing_twice(tmp_path: Path) -> None:
    with receiving() as own, Service(tmp_path, environment=ALLOWED) as service:
        data = {"SFUMATO_DATA_DIR": str(service.data_dir), "SFUMATO_PORT": "0"} | ALLOWED
        environment = dict(os.environ) | data  # noqa: TID251 - the child's, handed through
        log = (tmp_path / "second.log").open("wb")
        with (
            log,
            subprocess.Popen([sys.executable, "-m", "sfumato", "recorder"], env=environment, stderr=log) as second,
        ):
            try:
                poll(lambda: b"ready" in (tmp_path / "second.log").read_bytes(), within_s=30)
                jobs = [submit(service, webhook_url=own.url) for _ in range(3 * JOBS)]
                poll(lambda: len({each.id for each in own.got}) >= 2 * len(jobs), within_s=60)
                assert second.poll() is None
            finally:
                second.kill()

        assert len(own.got) == 2 * len(jobs)
        assert [own.of(job) for job in jobs] == [["job.started", "job.succeeded"]] * len(jobs)
