"""A picture that is named by its address: fetched where that is switched on, from public addresses alone."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sfumato.gateway import remote
from tests.integration.gateway_service import MODEL, GatewayService, gateway_service, problem
from tests.sample_pictures import picture
from tests.support import poll

LOOPBACK = "127.0.0.0/8"


@contextmanager
def hosting(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """The address of a picture, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/cat.png?x=1", asked
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def trickling(body: bytes) -> Iterator[str]:
    """The address of a picture that begins with `body` and never ends."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)
            done.wait(20)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/cat.png"
    finally:
        done.set()
        server.shutdown()
        server.server_close()


def submit(service: GatewayService, image: str) -> Any:
    return service.client.post("/api/jobs", json={"model_name": MODEL, "prompt": "as a mosaic", "image": image})


def test_a_picture_is_fetched_from_its_address_and_becomes_the_job_s_input(tmp_path: Path) -> None:
    with (
        gateway_service(tmp_path, remote_images=True, remote_images_allow=LOOPBACK) as service,
        hosting(200, picture()) as (url, asked),
    ):
        answer = submit(service, url)

        assert answer.status_code == 202, answer.text
        (job,) = service.published()
        assert service.world.blobs[job.input.key][0] == picture()
    assert asked == ["/cat.png?x=1"]
    assert service.app.state.gateway.in_flight.held_bytes == 0


def test_what_is_fetched_is_counted_beside_the_bodies_that_others_send(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"remote_images": True, "remote_images_allow": LOOPBACK}
    with (
        gateway_service(tmp_path, **settings, max_body_bytes_in_flight=10_000) as service,
        hosting(200, picture() + b"\0" * 5_000) as (url, _),
    ):
        service.app.state.gateway.in_flight.held_bytes = 8_000
        problem(submit(service, url), 503, "overloaded")
        assert service.app.state.gateway.in_flight.held_bytes == 8_000


def test_nothing_is_fetched_unless_that_is_switched_on(tmp_path: Path) -> None:
    with gateway_service(tmp_path, remote_images_allow=LOOPBACK) as service, hosting(200, picture()) as (url, asked):
        told = problem(submit(service, url), 422, "bad-image-url")
    assert "SFUMATO_REMOTE_IMAGES" in told["detail"]
    assert asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{}/cat.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/cat.png",
        "http://localhost:{}/cat.png",
        "http://user:secret@example.com/cat.png",
        "http://example.com:22/cat.png",
        "http://0x7f.1/cat.png",
    ],
)
def test_an_address_inside_is_never_asked(tmp_path: Path, url: str) -> None:
    with gateway_service(tmp_path, remote_images=True) as service, hosting(200, picture()) as (open_url, asked):
        port = open_url.rpartition(":")[2].partition("/")[0]
        told = problem(submit(service, url.format(port)), 422, "bad-image-url")
    assert "The picture's address is refused." in told["detail"]
    assert asked == []


@pytest.mark.parametrize(
    ("status", "body", "slug", "words"),
    [
        (404, b"", "bad-image-url", "answers 404."),
        (302, b"", "bad-image-url", "answers 302; redirects are not followed"),
        (200, b"x" * 300_000, "bad-image-url", "over 200000 bytes"),
        (200, b"<html>", "unsupported-picture", "does not begin like a PNG"),
        (200, b"", "missing-image", "image is empty"),
        (200, picture()[:20], "unsupported-picture", "ends within its header"),
    ],
)
def test_what_comes_from_an_address_and_is_no_picture_is_refused(
    tmp_path: Path, status: int, body: bytes, slug: str, words: str
) -> None:
    with (
        gateway_service(tmp_path, remote_images=True, remote_images_allow=LOOPBACK) as service,
        hosting(status, body, Location="http://127.0.0.1/") as (url, _),
    ):
        answer = submit(service, url)
    assert words in problem(answer, answer.status_code, slug)["detail"]
    assert not service.world.topics.get(MODEL) or not service.published()


def test_a_host_that_hangs_is_given_up(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"remote_images": True, "remote_images_allow": LOOPBACK, "remote_images_s": 0.2}
    with gateway_service(tmp_path, **settings) as service:
        listener = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # takes connections, answers nothing
        with listener:
            told = problem(submit(service, f"http://127.0.0.1:{listener.server_address[1]}/"), 422, "bad-image-url")
    assert told["detail"] == "The picture could not be fetched. No answer within 0.2 s."


def test_what_comes_from_an_address_is_counted_as_it_comes(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"remote_images": True, "remote_images_allow": LOOPBACK, "remote_images_s": 1.0}
    with (
        gateway_service(tmp_path, **settings) as service,
        trickling(picture() + b"\0" * 5_000) as url,
    ):
        in_flight = service.app.state.gateway.in_flight
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(submit, service, url)
            poll(lambda: in_flight.held_bytes > 5_000)
            assert not answer.done()
    assert in_flight.held_bytes == 0


def test_who_finds_no_place_among_the_fetches_is_told_so_and_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "AT_ONCE", 1)
    settings: dict[str, Any] = {"remote_images": True, "remote_images_allow": LOOPBACK, "remote_images_s": 1.0}
    with gateway_service(tmp_path, **settings) as service, trickling(b"") as url, ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(submit, service, url) for _ in range(4)]
        told = sorted(each.result().status_code for each in answers)
    assert told.count(503) >= 2, told
    assert service.app.state.gateway.in_flight.held_bytes == 0


def test_pictures_of_one_call_have_together_what_one_may_have(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"remote_images": True, "remote_images_allow": LOOPBACK, "max_upload_bytes": 20_000}
    with gateway_service(tmp_path, **settings) as service, hosting(200, picture() + b"\0" * 9_000) as (url, asked):
        call = {"init_images": [url] * 4, "batch_size": 4}
        answer = service.client.post("/sdapi/v1/img2img", json=call)

        assert (answer.status_code, service.published()) == (413, []), answer.text
        assert service.app.state.gateway.in_flight.held_bytes == 0
    assert len(asked) == 3
