"""The clients' key: shown to the service, to nobody else, and never told."""

import asyncio
import json

import httpx
import pytest

from sfumato.cli import main
from sfumato.client import AsyncClient, Client, InvalidRequest

KEY = "sfu_aaaaaaaa_" + "s" * 43
MODELS = httpx.Response(200, json={"models": []})


class Seen:
    """A transport that keeps what it was sent; answers by host."""

    def __init__(self, answers: dict[str, httpx.Response]) -> None:
        self.answers, self.requests = answers, list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[request.url.host]
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    @property
    def shown(self) -> dict[str, str | None]:
        return {request.url.host: request.headers.get("authorization") for request in self.requests}


def test_both_clients_show_their_key() -> None:
    seen = Seen({"service": MODELS})
    with Client("http://service", api_key=KEY, transport=httpx.MockTransport(seen)) as client:
        client.models()

    async def run() -> None:
        async with AsyncClient("http://service", api_key=KEY, transport=httpx.MockTransport(seen)) as client:
            await client.models()

    asyncio.run(run())
    assert [request.headers["authorization"] for request in seen.requests] == [f"Bearer {KEY}"] * 2


def test_without_a_key_none_is_shown() -> None:
    seen = Seen({"service": MODELS})
    with Client("http://service", transport=httpx.MockTransport(seen)) as client:
        client.models()
    assert seen.shown == {"service": None}


def test_a_redirect_elsewhere_carries_no_key() -> None:
    away = httpx.Response(302, headers={"location": "http://store/outputs/x?signature=y"})
    seen = Seen({"service": away, "store": MODELS})
    with Client("http://service", api_key=KEY, transport=httpx.MockTransport(seen)) as client:
        assert client.models() == ()
    assert seen.shown == {"service": f"Bearer {KEY}", "store": None}


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", f"{KEY}\r\nX: y"])
def test_what_can_be_no_header_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(InvalidRequest, match="api_key") as refused:
        Client("http://service", api_key=key)
    assert key not in str(refused.value)


@pytest.mark.parametrize("answer", [200, 401])
def test_the_command_shows_the_key_of_its_environment_and_never_prints_it(
    answer: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SFUMATO_API_KEY", KEY)
    body = {
        "type": "urn:sfumato:problem:unauthorized",
        "title": "This needs a key",
        "status": 401,
        "detail": "Send one.",
    }
    told = MODELS if answer == 200 else httpx.Response(401, content=json.dumps(body))
    seen = Seen({"service": told})
    status = main(["models", "--url", "http://service"], httpx.MockTransport(seen))
    assert status == (answer != 200)
    assert seen.shown == {"service": f"Bearer {KEY}"}
    assert main(["models", "list", "--url", "http://service", "--nonsense"], httpx.MockTransport(seen)) == 2
    assert main(["--help"]) == 0
    written = capsys.readouterr()
    assert KEY not in written.out + written.err
