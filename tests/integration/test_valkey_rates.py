"""Two gateways that count a key's requests in a real Valkey: exactly together, and apart while it is away."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from sfumato.cluster.server import Recipe, free_ports, running
from sfumato.core.errors import TransientError, UnusableStore
from sfumato.core.keys import ApiKey, Quota, Scope, key_text
from sfumato.gateway import shared_rates
from sfumato.gateway.problems import Refusal
from sfumato.gateway.quotas import Rates
from sfumato.gateway.shared_rates import SharedRates
from sfumato.storage.rates import ANSWER_WITHIN_S, ValkeyCounter
from tests.valkey import PASSWORD, Valkey, answers, program, valkey

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

PATIENT_S = 10.0
"""Where a test is about counting, a busy machine must not pass for a server that is away."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_rates, "AGAIN_S", 0.05)


def a_key(rate: float) -> ApiKey:
    return ApiKey.of(key_text(os.urandom(37)), "alice", [Scope.SUBMIT], 0.0, quota=Quota(rate=rate))


@asynccontextmanager
async def two_gateways(url: str, answer_within_s: float = PATIENT_S) -> AsyncIterator[Sequence[SharedRates]]:
    async with AsyncExitStack() as stack:
        counters = [await stack.enter_async_context(ValkeyCounter(url, answer_within_s)) for _ in range(2)]
        gateways = [SharedRates(counter, Rates(2)) for counter in counters]
        asking = [asyncio.create_task(gateway.keep_asking()) for gateway in gateways]
        yield gateways
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def passes(gateway: SharedRates, key: ApiKey) -> bool:
    try:
        await gateway.take(key)
    except Refusal:
        return False
    return True


async def passed(gateways: Sequence[SharedRates], key: ApiKey, times: int) -> int:
    """How many of so many requests at once are let through, in turns by each of the gateways."""
    return sum(await asyncio.gather(*(passes(gateways[turn % 2], key) for turn in range(times))))


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_two_gateways_share_one_limit_exactly(server: Valkey) -> None:
    async def go() -> None:
        async with two_gateways(server.url) as gateways:
            key = a_key(3.7)  # 37 within ten seconds
            assert await passed(gateways, key, 300) == 37
            assert await passed(gateways, key, 300) == 0
            assert await passed(gateways, a_key(3.7), 300) == 37

    run(go())


def test_a_limit_that_one_gateway_used_up_is_used_up_at_the_other(server: Valkey) -> None:
    async def go() -> None:
        async with two_gateways(server.url) as (one, other):
            key = a_key(0.5)
            assert [await passes(one, key) for _ in range(3)] == [True, False, False]
            with pytest.raises(Refusal) as refused:
                await other.take(key)
            assert refused.value.headers["RateLimit-Policy"] == '"requests";q=1;w=2'
            assert refused.value.retry_after_s in (1, 2)

    run(go())


def test_over_seconds_the_rate_is_reached_and_never_passed(server: Valkey) -> None:
    async def go() -> None:
        async with two_gateways(server.url) as gateways:
            key, began, through = a_key(20), time.monotonic(), 0
            while time.monotonic() - began < 3.5:
                through += await passed(gateways, key, 4)
                await asyncio.sleep(0.01)
            assert 50 <= through <= 20 * 4.5

    run(go())


def test_who_waits_as_long_as_told_is_let_in(server: Valkey) -> None:
    async def go() -> None:
        async with ValkeyCounter(server.url, PATIENT_S) as counter:
            key, most = a_key(1).prefix, 10
            for _ in range(most):
                assert await counter.hit(key, most, 1) == 0.0
            for _ in range(5):
                wait_s = await counter.hit(key, most, 1)
                assert 0 < wait_s <= 1
                await asyncio.sleep(wait_s + 0.005)
                assert await counter.hit(key, most, 1) == 0.0
                while not await counter.hit(key, most, 1):
                    pass

    run(go())


def test_while_the_server_is_dead_each_gateway_has_its_part_and_then_they_share_again(tmp_path: Path) -> None:
    async def go() -> None:
        with valkey(tmp_path) as server:
            async with two_gateways(server.url) as gateways:
                assert await passed(gateways, a_key(3.7), 100) == 37
                await asyncio.to_thread(server.server.kill)
                assert await passed(gateways, a_key(40), 200) >= 2 * 20  # and what comes back within that time
                began = time.monotonic()
                for _ in range(100):
                    await passed(gateways, a_key(1), 2)
                assert time.monotonic() - began < ANSWER_WITHIN_S

                await asyncio.to_thread(server.server.start)
                await together(gateways)
                assert await passed(gateways, a_key(3.7), 100) == 37

    run(go())


def test_a_server_that_hangs_holds_each_gateway_up_once_and_shortly(tmp_path: Path) -> None:
    async def go() -> None:
        with valkey(tmp_path) as server:
            async with two_gateways(server.url, ANSWER_WITHIN_S) as gateways:
                await passed(gateways, a_key(100), 20)
                os.kill(server.server.pid, signal.SIGSTOP)
                began = time.monotonic()
                assert await passed(gateways, a_key(100), 100) == 100
                held_up_s = time.monotonic() - began
                assert ANSWER_WITHIN_S <= held_up_s < 3 * ANSWER_WITHIN_S

                began = time.monotonic()
                for _ in range(200):
                    await passed(gateways, a_key(1), 2)
                assert time.monotonic() - began < ANSWER_WITHIN_S

                os.kill(server.server.pid, signal.SIGCONT)
                await together(gateways)

    run(go())


async def together(gateways: Sequence[SharedRates], within_s: float = 10.0) -> None:
    """Wait until both gateways count in the server: what one used up is then gone for the other."""
    async with asyncio.timeout(within_s):
        while True:
            await asyncio.sleep(0.05)
            key = a_key(0.1)
            if [await passes(gateway, key) for gateway in gateways] == [True, False]:
                return


def test_a_wrong_password_is_told_and_stops_nobody(server: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        async with two_gateways(f"valkey://:wrong-one@127.0.0.1:{server.port}") as gateways:
            assert await passes(gateways[0], a_key(5))

    run(go())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("each gateway counts requests alone: Valkey does not count: ")
    assert "password" in line
    assert "wrong-one" not in caplog.text


def test_tls_needs_a_certificate_of_somebody_known_for_the_name(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)

    async def hit(url: str) -> float:
        async with ValkeyCounter(url, PATIENT_S) as counter:
            return await counter.hit("k", 5, 1)

    (port,) = free_ports(1)
    tls = [f"tls-port {port}", f"tls-cert-file {certificate}", f"tls-key-file {key}", "tls-auth-clients no"]
    with valkey(tmp_path, *tls):
        knows = f"?ssl_ca_certs={certificate}"
        assert asyncio.run(hit(f"valkeys://:{PASSWORD}@localhost:{port}{knows}")) == 0.0
        for host, query in (("127.0.0.1", knows), ("localhost", "")):
            with pytest.raises(TransientError):
                asyncio.run(hit(f"valkeys://:{PASSWORD}@{host}:{port}{query}"))


def test_an_address_that_can_t_be_one_is_refused_without_its_password() -> None:
    with pytest.raises(UnusableStore, match="SFUMATO_RATES_URL") as refused:
        ValkeyCounter(f"valkey://:{PASSWORD}@host:port")
    assert PASSWORD not in refused.value.detail


def test_valkey_of_the_compose_file_takes_its_configuration_as_it_is_given(tmp_path: Path) -> None:
    """The very command, run by the program that this machine has."""
    compose = yaml.safe_load((Path(__file__).parents[2] / "docker-compose-infra.yaml").read_text())
    words, (port,) = compose["services"]["valkey"]["command"], free_ports(1)
    script = words[-1].replace("$$", "$").replace("valkey-server", program()).replace("save", f"port {port}\nsave", 1)
    settings = {"VALKEY_PASSWORD": PASSWORD}
    recipe = Recipe("valkey", (*words[:-1], script), ready=partial(answers, port), environment=settings)

    with running(recipe, tmp_path / "valkey.log"):
        assert answers(port)
