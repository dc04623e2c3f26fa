"""The door: every request passes it first, and whatever it does not know to be open needs a key.

It reads nothing but the head of a request. It stands before the short way too, so that no route can be without it.
"""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_plus, urlsplit

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from sfumato.config import Settings
from sfumato.core.errors import TransientError
from sfumato.core.keys import ApiKey, looks_like_key, prefix_of
from sfumato.core.keys import Scope as KeyScope
from sfumato.gateway import problems
from sfumato.gateway.callers import EVERYBODY, NOBODY, Caller
from sfumato.gateway.keyring import Keyring
from sfumato.gateway.lingering import Lingering
from sfumato.gateway.problems import Refusal
from sfumato.gateway.quotas import Rates
from sfumato.gateway.shared_rates import SharedRates

__all__ = ["OPEN", "Door", "is_foreign"]

OPEN: Final = frozenset(
    ("/", "/healthz", "/readyz", "/metrics", "/api/status", "/docs", "/docs/oauth2-redirect", "/openapi.json")
)
"""What anybody may ask for. /metrics and /api/status name models and counts, never owners or jobs."""
OPEN_BELOW: Final = ("/static/", "/static-offline-docs/")
_SHOWN_BY_LINK: Final = re.compile(r"/api/jobs/[^/]+(?:/result|/events)?")
_TAKEN_BY_LINK: Final = re.compile(r"/api/uploads/[^/]+")
_READING: Final = ("GET", "HEAD")
_FROM_BROWSERS: Final = (b"sec-fetch-site", b"origin", b"host")
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="sfumato"'}


class Door:
    """An ASGI app before `app`; who asks is left in the scope for `caller_of`. `clock` gives Unix seconds.

    `shared` counts requests for all gateways, where they have a place to count together; else `rates` does, here.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        keyring: Keyring,
        rates: Rates,
        clock: Callable[[], float],
        shared: SharedRates | None = None,
    ) -> None:
        self._app, self._keyring, self._rates, self._clock = app, keyring, rates, clock
        self._shared = shared
        self._open = settings.auth == "open"
        self._public = urlsplit(settings.public_url).netloc.lower()
        self._always = settings.auth == "keys" or not settings.on_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                scope["caller"] = await self._caller(scope)
            except problems.FORESEEN as error:
                refusal = problems.failed(Request(scope), error)
                # What still comes of the body is thrown away behind the answer.
                await Lingering(refusal)(scope, receive, send)
                return
            except Exception as error:
                await Lingering(problems.unforeseen(Request(scope), error))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        path = _path(scope)
        if b"sfu" in scope["query_string"] or "sfu_" in path:
            _refuse_key_in_address(path, scope["query_string"])
        if self._open:
            return self._everybody(scope)
        if path in OPEN or path.startswith(OPEN_BELOW):
            return NOBODY
        if not self._keyring.known:
            await self._keyring.look_again()
        shown = _shown(scope)
        if not await self._needs_key(shown):
            return self._everybody(scope)
        if not shown:
            if _goes_by_link(scope, path):
                return NOBODY
            raise _no_key()
        return await self._holder(shown[0] if len(shown) == 1 else "", scope["method"])

    def _everybody(self, scope: Scope) -> Caller:
        """Whoever reaches an open service, unless it is a page of another site, in the browser of who may.

        With keys there is no such trick: a browser sends none by itself.
        """
        if scope["method"] not in _READING and is_foreign(scope, self._public):
            detail = "A page of another site may not use an open service; set SFUMATO_PUBLIC_URL if it is its own."
            raise Refusal("foreign-page", detail)
        return EVERYBODY

    async def _needs_key(self, shown: list[str]) -> bool:
        if self._always or self._keyring.any:
            return True
        if any(map(prefix_of, shown)):
            # Perhaps it is the first one, made a moment ago.
            try:
                await self._keyring.look_again()
            except TransientError:
                return False
        return self._keyring.any

    async def _holder(self, text: str, method: str) -> Caller:
        prefix = prefix_of(text)
        if prefix is None:
            raise _no_key()
        key = self._keyring.get(prefix)
        if key is None:
            await self._keyring.look_again()
            key = self._keyring.get(prefix)
        if not (key or _DECOY).matches(text) or key is None or not key.good(self._clock()):
            raise _no_key()
        scope = KeyScope.READ if method in _READING else KeyScope.SUBMIT
        if not key.may(scope):
            raise Refusal("forbidden", f"This needs a key with the scope {scope}; this one has others.")
        if self._shared is None:
            self._rates.take(key)
        else:
            await self._shared.take(key)
        return Caller(key.owner, key, everything=KeyScope.ADMIN in key.scopes)


_DECOY: Final = ApiKey("", "0" * 64, "", frozenset(), 0.0)
"""Compared where there is no key of a prefix, so that this takes as long."""


def _path(scope: Scope) -> str:
    """The path as the routes know it."""
    path, root = str(scope["path"]), scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


def _shown(scope: Scope) -> list[str]:
    """The keys that a request shows: one, none, or several headers where nobody can say which one counts."""
    keys: list[str] = []
    authorizations = 0
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorizations += 1
            if value[:7].lower() == b"bearer ":
                keys.append(value[7:].strip().decode("latin-1"))
        elif name == b"x-api-key":
            keys.append(value.decode("latin-1"))
    return keys if authorizations < 2 else ["", ""]


def is_foreign(scope: Scope, public: str) -> bool:
    """Whether a browser says that a page of another site made the request; other programs say nothing of it."""
    told: dict[bytes, str] = {
        name: value.decode("latin-1").lower() for name, value in scope["headers"] if name in _FROM_BROWSERS
    }
    if b"sec-fetch-site" in told:
        return told[b"sec-fetch-site"] == "cross-site"
    if b"origin" not in told:
        return False
    return told[b"origin"].partition("://")[2] not in (told.get(b"host"), public)


def _goes_by_link(scope: Scope, path: str) -> bool:
    """Whether the route looks at a link's token by itself, and the request has one."""
    if b"token=" not in scope["query_string"]:
        return False
    shape = _SHOWN_BY_LINK if scope["method"] in _READING else _TAKEN_BY_LINK if scope["method"] == "PUT" else None
    return shape is not None and shape.fullmatch(path) is not None


def _refuse_key_in_address(path: str, query: bytes) -> None:
    if looks_like_key(path) or looks_like_key(unquote_plus(query.decode("latin-1"))):
        detail = "Addresses end up in logs: revoke this key, and send the new one as Authorization: Bearer KEY."
        raise Refusal("key-in-address", detail)


def _no_key() -> Refusal:
    """One answer for all: none, not one of ours, unknown, expired, revoked, or two at once."""
    detail = "Send a key that is good as Authorization: Bearer KEY; who runs this service makes them (sfumato keys)."
    return Refusal("unauthorized", detail, headers=_CHALLENGE)
