"""How protocols differ around their routes: how a key is shown, and how a failure is told.

It stands before the door, so that whatever is refused, and by whom, is told in the caller's own protocol and in the
gateway's own words.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sfumato.gateway.door import is_foreign
from sfumato.gateway.problems import PROBLEM_TYPE
from sfumato.observability import begin, count

__all__ = ["Dialect", "Dialects", "Told", "as_it_is"]

Headers = list[tuple[bytes, bytes]]
_JSON: Final = b"application/json"


class Told(NamedTuple):
    """A failure in a protocol's own shape; `challenge` is what a 401 asks for, where not `Bearer`."""

    status: int
    body: Mapping[str, Any]
    media_type: bytes = _JSON
    challenge: bytes = b""


def as_it_is(problem: Mapping[str, Any]) -> Told:
    """How a protocol tells a problem that tells failures as problems too."""
    return Told(problem["status"], problem, PROBLEM_TYPE.encode())


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a protocol covers, the longest of all `prefixes` deciding; `tell` makes its own of a problem (RFC 9457).

    `names` are the protocol's words for the gateway's parameters, by which what is wrong with them is told.
    """

    protocol: str
    prefixes: tuple[str, ...]
    tell: Callable[[Mapping[str, Any]], Told]
    names: Mapping[str, str] = field(default_factory=dict)

    def told(self, problem: Mapping[str, Any]) -> Told:
        """The problem, in the protocol's shape and words."""
        detail = problem["detail"]
        if self.names:
            ours = re.compile(rf"\b({'|'.join(self.names)})\b")
            detail = ours.sub(lambda found: self.names[found[1]], detail)
        return self.tell({**problem, "detail": detail})


class Dialects:
    """An ASGI app before `app`, which hears a key as `Bearer` and answers failures as problems.

    `public` is the address that others reach the service at, "" when none is set.
    """

    def __init__(self, app: ASGIApp, dialects: Sequence[Dialect], public: str = "") -> None:
        self._app, self._public = app, urlsplit(public).netloc.lower()
        pairs = [(prefix, dialect) for dialect in dialects for prefix in dialect.prefixes]
        self._dialects = sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)
        self._roots = tuple({prefix.split("/")[1] for prefix, _ in pairs})
        for dialect in dialects:
            begin("sfumato_protocol_requests_total", protocol=dialect.protocol)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        dialect = self._of(scope)
        if dialect is None:
            await self._app(scope, receive, send)
            return
        count("sfumato_protocol_requests_total", protocol=dialect.protocol)
        answer = _Answer(dialect, send)
        # A browser keeps a password that was typed into it, and sends it for pages of other sites too.
        basic = not is_foreign(scope, self._public)
        await self._app({**scope, "headers": _as_bearer(scope["headers"], basic=basic)}, receive, answer.send)

    def _of(self, scope: Scope) -> Dialect | None:
        if scope["type"] != "http":
            return None
        path, root = scope["path"], scope.get("root_path", "")
        path = path[len(root) :] if root and path.startswith(root) else path
        if not path.startswith(self._roots, 1):
            return None
        return next((dialect for prefix, dialect in self._dialects if path.startswith(prefix)), None)


@dataclass(slots=True)
class _Answer:
    """An answer on its way; one that is a problem is held back until its body is there."""

    dialect: Dialect
    to: Send
    start: Message | None = None
    begun: bool = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _media_type(message) == PROBLEM_TYPE.encode():
            self.start = message
        elif self.start is None or self.begun:
            await self.to(message)
        else:
            self.begun = True
            start, body = _translated(self.dialect, self.start, message.get("body", b""))
            await self.to(start)
            await self.to({**message, "body": body})


def _translated(dialect: Dialect, start: Message, body: bytes) -> tuple[Message, bytes]:
    if not body:  # a HEAD's
        return start, body
    told = dialect.told(json.loads(body))
    answer = json.dumps(told.body, ensure_ascii=False, separators=(",", ":")).encode()
    changed = {b"content-type": told.media_type, b"content-length": str(len(answer)).encode()}
    if told.challenge:
        changed[b"www-authenticate"] = told.challenge
    headers = [(name, changed.get(name.lower(), value)) for name, value in start["headers"]]
    return {**start, "status": told.status, "headers": headers}, answer


def _media_type(start: Message) -> bytes:
    types = (value for name, value in start.get("headers", ()) if name.lower() == b"content-type")
    return bytes(next(types, b"")).partition(b";")[0]


def _as_bearer(headers: Headers, *, basic: bool) -> Headers:
    """The headers with a key that was shown as `Token KEY`, or as the password of `Basic`, shown as `Bearer KEY`."""
    return [(name, _bearer(value, basic=basic) if name == b"authorization" else value) for name, value in headers]


def _bearer(value: bytes, *, basic: bool) -> bytes:
    scheme, _, shown = value.partition(b" ")
    if scheme.lower() == b"token":
        return b"Bearer " + shown.strip()
    if scheme.lower() != b"basic" or not basic:
        return value
    try:
        return b"Bearer " + base64.b64decode(shown.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return value
