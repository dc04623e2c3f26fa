"""The one guarded fetcher: sends a request to an address that somebody else chose, and to nowhere inside.

The name is looked up once, every address it has must be allowed, and the connection goes to the first of those that
were checked: what the name leads to a moment later changes nothing. TLS is verified against the name. No redirect is
followed, no proxy is used, nothing is kept from one request to the next.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import httpcore

from sfumato.core.errors import SfumatoError
from sfumato.net.addresses import Allowed, address_in
from sfumato.net.resolver import Resolve, system_resolver
from sfumato.net.targets import RefusedUrl, Target

__all__ = ["Answer", "Fetcher", "Unreachable"]

CONNECT_S: Final = 5.0
HEAD_BYTES: Final = 32 * 1024
"""How much may come beside the body: headers, what frames its chunks, answers of 1xx. Reading it takes our time."""


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


@dataclass(slots=True)
class _Coming:
    """What is known of an answer, also when reading it is broken off."""

    came: Callable[[int], None]
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False


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
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        came: Callable[[int], None] | None = None,
    ) -> Answer:
        """Send it once and give what came back, whatever its status. `came` is told of every few bytes of its body as
        they come; what it raises ends the fetch.

        Raises:
            RefusedUrl: nothing was sent, since the address leads where nothing may go.
            Unreachable: whether it arrived is unknown.
        """
        target = Target.of(url, self._allowed)
        coming, trouble = _Coming(came or (lambda _bytes: None)), ""
        why: Exception | None = None
        try:
            async with asyncio.timeout(self._total_s):
                await self._exchange(method, target, headers or {}, body, coming)
        except TimeoutError as error:
            trouble, why = f"No answer within {self._total_s:g} s.", error
        except (
            OSError,
            ssl.SSLError,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ) as error:
            trouble, why = _said(error), error
        if coming.status is None:
            raise Unreachable(trouble) from why
        return Answer(coming.status, coming.headers, bytes(coming.body[: self._limit_bytes]), coming.whole)

    async def _exchange(
        self, method: str, target: Target, headers: Mapping[str, str], body: bytes, coming: _Coming
    ) -> None:
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
            origin=request.url.origin,
            ssl_context=self._context,
            network_backend=_Pinned(pinned, HEAD_BYTES + 2 * self._limit_bytes),
        )
        async with connection:
            response = await connection.handle_async_request(request)
            coming.headers = {name.decode("latin-1").lower(): each.decode("latin-1") for name, each in response.headers}
            coming.status = response.status
            async for chunk in response.aiter_stream():
                coming.came(len(chunk))
                coming.body += chunk
                if len(coming.body) > self._limit_bytes:
                    return
            coming.whole = True

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
    """Connects to the addresses that were checked, whatever name it is asked for; reads up to `most_bytes`."""

    def __init__(self, addresses: Iterable[str], most_bytes: int) -> None:
        self._addresses, self._most_bytes = list(addresses), most_bytes
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
                stream = await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
                return _Bounded(stream, self._most_bytes)
            except (OSError, httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                trouble = error
        raise trouble or OSError("it has no address")

    async def sleep(self, seconds: float) -> None:
        await self._plain.sleep(seconds)


class _Bounded(httpcore.AsyncNetworkStream):
    """A connection that ends with an error behind its first `left_bytes`, of which TLS itself takes none."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, left_bytes: int) -> None:
        self._stream, self._left_bytes = stream, left_bytes

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left_bytes <= 0:
            raise httpcore.RemoteProtocolError("it says more than anybody reads")
        read = await self._stream.read(min(max_bytes, self._left_bytes), timeout)
        self._left_bytes -= len(read)
        return read

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Bounded(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._left_bytes)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


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
