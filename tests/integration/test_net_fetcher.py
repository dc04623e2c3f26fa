"""The guarded fetcher against real sockets and a resolver that lies."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sfumato.net.addresses import Allowed
from sfumato.net.fetcher import Answer, Fetcher, Unreachable
from sfumato.net.resolver import MOST_LOOKUPS, system_resolver
from sfumato.net.targets import RefusedUrl

LOOPBACK = Allowed.parse("127.0.0.0/8")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def saying(answer: bytes, heard: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head)
        writer.write(answer)
        await writer.drain()

    return serve


def resolving(*answers: Sequence[str]) -> tuple[Callable[[str, int], Awaitable[Sequence[str]]], list[str]]:
    """A resolver that gives each answer once, and the names it was asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


def run(serve: Serve, url: str = "http://receiver.example:{}/hook?x=1", **given: object) -> Answer:
    async def go() -> Answer:
        async with serving(serve) as port:
            fetcher = Fetcher(**({"allowed": LOOPBACK, "resolve": resolving(["127.0.0.1"])[0]} | given))  # type: ignore[arg-type]
            return await fetcher.fetch("POST", url.format(port), body=b"{}")

    return asyncio.run(go())


def test_request_goes_to_the_address_that_was_checked_and_names_the_host() -> None:
    heard: list[bytes] = []

    answer = run(saying(OK, heard))

    assert (answer.status, answer.body, answer.whole) == (200, b"ok", True)
    assert heard[0].startswith(b"POST /hook?x=1 HTTP/1.1\r\n")
    assert b"Host: receiver.example:" in heard[0]


def test_name_is_looked_up_once_so_that_rebinding_changes_nothing() -> None:
    resolve, asked = resolving(["127.0.0.1"], ["10.0.0.1"])

    assert run(saying(OK), resolve=resolve).status == 200
    assert asked == ["receiver.example"]


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["8.8.8.8", "::1"],
        ["169.254.169.254"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::a9fe:a9fe"],
        ["fe80::1%eth0"],
        ["not an address"],
    ],
)
def test_name_that_leads_inside_by_any_of_its_addresses_is_refused_unasked(answer: list[str]) -> None:
    heard: list[bytes] = []

    with pytest.raises(RefusedUrl) as refused:
        run(saying(OK, heard), allowed=Allowed(), resolve=resolving(answer)[0])

    assert heard == []
    assert not any(address in refused.value.detail for address in answer)


def test_name_that_the_configuration_allows_may_lead_inside() -> None:
    assert run(saying(OK), allowed=Allowed.parse("receiver.example")).status == 200


def test_redirect_is_not_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"

    assert run(saying(moved)).status == 302


def test_system_resolver_finds_what_odd_spellings_mean() -> None:
    for url in ("http://127.1/", "http://2130706433/", "http://localhost.localdomain/"):
        with pytest.raises(RefusedUrl):
            asyncio.run(Fetcher(Allowed()).fetch("POST", url))


def test_body_without_end_is_read_to_its_limit_only() -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    answer = run(endless, limit_bytes=100_000)

    assert (answer.status, len(answer.body), answer.whole) == (200, 100_000, False)
    assert sent < 50_000_000  # what the two sockets hold


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_answer_that_never_comes_ends_in_time(head: bytes) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            await asyncio.sleep(0.05)
            writer.write(b"y" if head else b"")
            await writer.drain()
            if not head and reader.at_eof():
                return

    with pytest.raises(Unreachable, match=r"No answer within 0\.3 s"):
        run(drip, total_s=0.3)


def test_status_counts_where_only_the_body_drips() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    answer = run(drip, total_s=0.3)

    assert (answer.status, answer.whole) == (200, False)


def test_headers_without_end_are_not_read_without_end() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: " + b"x" * 65_536 + b"\r\n")
            await writer.drain()

    with pytest.raises(Unreachable, match=r"HTTP/1\.1"):
        run(endless)


@pytest.mark.parametrize(
    ("head", "again", "status"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"e" * 60 + b"\r\nx\r\n", 200),
    ],
)
def test_what_only_costs_time_to_read_is_not_read_for_long(head: bytes, again: bytes, status: int | None) -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(head)
        while True:
            writer.write(again * 1000)
            await writer.drain()
            sent += len(again) * 1000

    if status is None:
        with pytest.raises(Unreachable, match=r"HTTP/1\.1"):
            run(endless, limit_bytes=1000)
    else:
        assert run(endless, limit_bytes=1000).status == status
    assert sent < 20_000_000  # what the two sockets hold


def test_name_that_is_never_answered_ends_in_time() -> None:
    async def hang(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(Unreachable):
        run(saying(OK), resolve=hang, total_s=0.2)


def test_nobody_there_is_said_without_an_address() -> None:
    async def go() -> None:
        async with serving(saying(OK)) as port:
            pass
        await Fetcher(LOOPBACK).fetch("POST", f"http://127.0.0.1:{port}/")

    with pytest.raises(Unreachable, match="It takes no connection"):
        asyncio.run(go())


def test_certificate_must_be_for_the_name_and_from_somebody_known(tmp_path: Path) -> None:
    import subprocess

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=receiver.example"]
    made += ["-addext", "subjectAltName=DNS:receiver.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    knows = ssl.create_default_context(cafile=str(certificate))

    async def go(host: str, tls: ssl.SSLContext | None) -> int:
        async with serving(saying(OK), server) as port:
            fetcher = Fetcher(LOOPBACK, resolve=resolving(["127.0.0.1"])[0], tls=tls)
            return (await fetcher.fetch("POST", f"https://{host}:{port}/")).status

    assert asyncio.run(go("receiver.example", knows)) == 200
    for host, tls in (("another.example", knows), ("receiver.example", None)):
        with pytest.raises(Unreachable, match="TLS failed"):
            asyncio.run(go(host, tls))


def test_look_up_that_gets_no_thread_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(MOST_LOOKUPS + 1):
            with pytest.raises(OSError, match="too many names"):
                asyncio.run(system_resolver("localhost", 80))
    assert asyncio.run(system_resolver("localhost", 80))
