"""The short way to the hot routes: taken by exact POSTs alone, and answered as the long way answers."""

import asyncio
from typing import Any

import pytest
from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from sfumato.gateway.problems import Refusal
from sfumato.gateway.shortcut import Shortcut


async def _long_way(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("long")(scope, receive, send)


async def _handler(request: Request) -> Response:
    if request.headers.get("fails") == "foreseen":
        raise Refusal("missing-image", "Send one.")
    if request.headers.get("fails") == "otherwise":
        raise KeyError("a mistake")
    return Response("short")


def _asked(sent: list[Message], **changes: Any) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/hot", "query_string": b"", "headers": [], "root_path": ""}
    asyncio.run(Shortcut(_long_way, {"/hot": _handler})(scope | changes, receive, send))


def test_a_post_to_the_path_takes_the_short_way() -> None:
    sent: list[Message] = []
    _asked(sent)
    assert sent[1]["body"] == b"short"


@pytest.mark.parametrize("change", [{"method": "GET"}, {"path": "/hot/"}, {"root_path": "/below"}])
def test_whatever_differs_takes_the_long_way(change: dict[str, str]) -> None:
    sent: list[Message] = []
    _asked(sent, **change)
    assert sent[1]["body"] == b"long"


def test_a_refusal_is_answered_as_a_problem() -> None:
    sent: list[Message] = []
    _asked(sent, headers=[(b"fails", b"foreseen")])
    assert sent[0]["status"] == 422
    assert b"urn:sfumato:problem:missing-image" in sent[1]["body"]


def test_a_mistake_is_answered_and_raised() -> None:
    sent: list[Message] = []
    with pytest.raises(KeyError):
        _asked(sent, headers=[(b"fails", b"otherwise")])
    assert sent[0]["status"] == 500
    assert b"internal-error" in sent[1]["body"]
