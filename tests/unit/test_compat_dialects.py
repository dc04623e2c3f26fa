"""Around a protocol's routes: keys shown in its way are heard, and problems are told in its shape."""

import asyncio
import base64
import json
from collections.abc import Mapping, MutableMapping
from typing import Any

import pytest

from sfumato.gateway.compat.dialects import Dialect, Dialects, Told

PROBLEM = {"type": "urn:sfumato:problem:x", "status": 422, "detail": "strength is 3 and steps_strength fine"}


def tell(problem: Mapping[str, Any]) -> Told:
    return Told(499, {"said": problem["detail"]}, challenge=b"Basic")


DIALECTS = [
    Dialect("wide", ("/other/", "/other"), lambda problem: Told(problem["status"], {"wide": problem["detail"]})),
    Dialect("narrow", ("/other/inner/",), tell, {"strength": "denoising"}),
]


def asked(path: str, *messages: Mapping[str, Any], root: str = "", **headers: str) -> tuple[dict[str, Any], Any]:
    """The scope that the app behind was given, and what was sent in the end."""
    heard: dict[str, Any] = {}
    sent: list[MutableMapping[str, Any]] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        heard.update(scope)
        for message in messages:
            await send(message)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "root_path": root, "headers": lines}
    asyncio.run(Dialects(app, DIALECTS)(scope, receive, send))
    return heard, sent


def problem(media_type: bytes = b"application/problem+json") -> list[dict[str, Any]]:
    body = json.dumps(PROBLEM).encode()
    headers = [(b"Content-Type", media_type), (b"content-length", b"%d" % len(body)), (b"retry-after", b"7")]
    headers += [(b"www-authenticate", b"Bearer")]
    return [
        {"type": "http.response.start", "status": 422, "headers": headers},
        {"type": "http.response.body", "body": body, "more_body": True},
        {"type": "http.response.body", "body": b""},
    ]


@pytest.mark.parametrize(
    ("shown", "heard"),
    [
        ("Token sfu_1", "Bearer sfu_1"),
        ("token  sfu_1 ", "Bearer sfu_1"),
        ("Bearer sfu_1", "Bearer sfu_1"),
        ("Basic " + base64.b64encode(b"me:sfu_1:x").decode(), "Bearer sfu_1:x"),
        ("Basic " + base64.b64encode(b"alone").decode(), "Bearer "),
        ("Basic !!", "Basic !!"),
    ],
)
def test_a_key_is_heard_in_each_way_that_clients_show_it(shown: str, heard: str) -> None:
    scope, _ = asked("/other/x", Authorization=shown)
    assert dict(scope["headers"])[b"authorization"].decode() == heard


def test_the_service_s_own_addresses_are_left_as_they_are() -> None:
    scope, sent = asked("/api/jobs", *problem(), Authorization="Token sfu_1")

    assert dict(scope["headers"])[b"authorization"] == b"Token sfu_1"
    assert sent == problem()


def test_a_problem_is_told_in_the_shape_of_the_longest_prefix_with_its_own_names() -> None:
    _, (start, *rest) = asked("/other/inner/x", *problem())

    headers = dict(start["headers"])
    assert start["status"] == 499
    assert headers[b"Content-Type"] == b"application/json"
    assert (headers[b"retry-after"], headers[b"www-authenticate"]) == (b"7", b"Basic")
    assert json.loads(rest[0]["body"]) == {"said": "denoising is 3 and steps_strength fine"}
    assert headers[b"content-length"] == b"%d" % len(rest[0]["body"])
    assert [message.get("more_body", False) for message in rest] == [True, False]


def test_a_challenge_that_a_protocol_does_not_change_stays() -> None:
    _, (start, *_) = asked("/other/x", *problem())
    assert dict(start["headers"])[b"www-authenticate"] == b"Bearer"


def test_what_is_no_problem_goes_through_as_it_is() -> None:
    _, sent = asked("/other/x", *problem(b"image/png"))
    assert sent == problem(b"image/png")


def test_below_a_prefix_of_a_proxy_the_protocol_is_the_same() -> None:
    _, (start, *_) = asked("/sfumato/other/inner/x", *problem(), root="/sfumato")
    assert start["status"] == 499


def test_the_answer_to_a_head_has_no_body_to_tell_anything_in() -> None:
    start, *_ = problem()
    _, sent = asked("/other/x", start, {"type": "http.response.body", "body": b""})
    assert sent == [start, {"type": "http.response.body", "body": b""}]
