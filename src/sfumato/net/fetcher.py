"""The one guarded fetcher: sends a request to an address that somebody else chose, and to nowhere inside.

The name is looked up once, every address it has must be allowed, and the connection goes to the first of those that
were checked: what the name leads to a moment later changes nothing. TLS is verified against the name. No redirect is
followed, no proxy is used, nothing is kept from one request to the next.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import httpcore

from sfumato.core.errors import SfumatoError
from sfumato.net.addresses import Allowed, address_in
from sfumato.net.resolver import Resolve, system_resolver
from sfumato.net.targets import RefusedUrl, Target

__all__ = ["Answer", "Fetcher", "Unreachable"]

CONNECT_S: Final = 5.0


class Unreachable(SfumatoError):
    """No answer came: no name, no connection, not in time, or not in HTTP."""

    slug = "unreachable"
    title = "No answer came"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body; `whole` is False when the body was longer, or slower, than it was waited for."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool


class Fetcher:
    """`total_s` bounds a request from its look-up to the last byte of its answer; `limit_bytes` what is read of it."""

    def __init__(
        self,
        allowed: Allowed,
        *,
        total_s: float = 10.0,
        limit_bytes: int = 64 * 1024,
        resolve: Resolve = system_resolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed, self._resolve, self._tls = allowed, resolve, tls
        self._total_s, self._limit_bytes = total_s, limit_bytes

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return self._tls or ssl.create_default_context()

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Send it once and give what came back, whatever its status.

        Raises:
            RefusedUrl: nothing was sent, since the address leads where nothing may go.
            Unreachable: whether it arrived is unknown.
        """
        target = Target.of(url, self._allowed)
        answer: list[Answer] = []
        try:
            async with asyncio.timeout(self._total_s):
                await self._exchange(method, target, headers or {}, body, answer)
        except TimeoutError:
            if not answer:
                raise Unreachable(f"No answer within {self._total_s:g} s.") from None
        except (
            OSError,
            ssl.SSLError,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ) as error:
            if not answer:
                raise Unreachable(_said(error)) from error
        return answer[-1]

    async def _exchange(
        self, method: str, target: Target, headers: Mapping[str, str], body: bytes, answer: list[Answer]
    ) -> None:
        """The newest entry of `answer` is what is known of it, also when this is broken off."""
        pinned = await self._checked(target)
        fields = {"Host": target.authority, "Connection": "close", "Content-Length": str(len(body)), **headers}
        request = httpcore.Request(
            method,
            httpcore.URL(
                scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
            ),
            headers=[(name.encode(), value.encode()) for name, value in fields.items()],
            content=body,
            extensions={"timeout": {"connect": CONNECT_S}},
        )
        connection = httpcore.AsyncHTTPConnection(
            origin=request.url.origin, ssl_context=self._context, network_backend=_Pinned(pinned)
        )
        async with connection:
            response = await connection.handle_async_request(request)
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            read = b""
            answer.append(Answer(response.status, found, read, whole=False))
            async for chunk in response.aiter_stream():
                read += chunk
                cut = len(read) > self._limit_bytes
                answer[:] = [Answer(response.status, found, read[: self._limit_bytes], whole=False)]
                if cut:
                    return
            answer[:] = [Answer(response.status, found, read, whole=True)]

    async def _checked(self, target: Target) -> list[str]:
        """The addresses of the host, all of them allowed. Raises RefusedUrl, OSError."""
        if address_in(target.host) is not None:
            return [target.host]  # checked when it was read
        found = [address.partition("%")[0] for address in await self._resolve(target.host, target.port)]
        if not found:
            raise OSError("it has no address")
        for each in found:
            address = address_in(each)
            # Which one is not said: that would tell a stranger what is inside.
            if address is None or not self._allowed.takes(target.host, address):
                raise RefusedUrl("Its name leads to an address that is not on the public internet.")
        return found


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that were checked, whatever name it is asked for."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self._addresses = list(addresses)
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        trouble: Exception | None = None
        for address in self._addresses[:2]:
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (OSError, httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                trouble = error
        raise trouble or OSError("it has no address")

    async def sleep(self, seconds: float) -> None:
        await self._plain.sleep(seconds)


def _said(error: Exception) -> str:
    """In a few words what went wrong, without addresses."""
    if isinstance(error, httpcore.ConnectTimeout):
        return f"No connection within {CONNECT_S:g} s."
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__ or error.__context__, ssl.SSLError):
        return f"TLS failed: {str(error)[:200]}."
    if isinstance(error, httpcore.ProtocolError):
        return "It does not answer in HTTP/1.1."
    if isinstance(error, httpcore.ConnectError):
        return "It takes no connection."
    if isinstance(error, httpcore.NetworkError):
        return "The connection broke before an answer came."
    return "Its name has no address."
