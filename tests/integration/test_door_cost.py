"""What the door costs a request, and what the answer to one that it refuses costs: measured in process.

`python -m tests.integration.test_door_cost` prints the table of docs/benchmarks.md.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sfumato.config import load_settings
from sfumato.core.keys import ApiKey, Quota, Usage, key_text
from sfumato.core.keys import Scope as KeyScope
from sfumato.gateway.callers import caller_of
from sfumato.gateway.door import Door
from sfumato.gateway.keyring import Keyring
from sfumato.gateway.quotas import Quotas, Rates
from sfumato.gateway.shared_rates import SharedRates
from sfumato.gateway.shortcut import Shortcut
from sfumato.storage.rates import ValkeyCounter
from tests.valkey import valkey

__all__ = ["measured", "measured_with_valkey"]

HEAD = (
    (b"host", b"pictures.example.org"),
    (b"user-agent", b"curl/8"),
    (b"accept", b"*/*"),
    (b"x-forwarded-for", b"10.0.0.1"),
    (b"x-forwarded-proto", b"https"),
    (b"content-length", b"50000"),
    (b"content-type", b"multipart/form-data; boundary=abcdef"),
    (b"idempotency-key", b"abc"),
)


class _Store:
    """Keys, of an owner who has five jobs in flight."""

    def __init__(self) -> None:
        self.kept: dict[str, ApiKey] = {}

    def new(self, quota: Quota) -> str:
        text = key_text(os.urandom(37))
        key = ApiKey.of(text, "alice", [KeyScope.SUBMIT, KeyScope.READ], time.time(), quota=quota)
        self.kept[key.prefix] = key
        return text

    async def keys(self) -> Mapping[str, ApiKey]:
        return self.kept

    async def usage(self, owner: str, since: float, job_ids: Sequence[str]) -> Usage:
        return Usage(5, 5, frozenset())


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send


async def _receive() -> Message:
    return {"type": "http.request", "body": b"x" * 100, "more_body": False}


async def _send(message: Message) -> None:
    del message


async def _cost_us(app: ASGIApp, key: str, times: int) -> float:
    """The best of seven series, in microseconds of CPU a request."""
    best = float("inf")
    shown = ((b"authorization", f"Bearer {key}".encode()),) if key else ()
    for _ in range(7):
        began = time.thread_time()
        for _ in range(times):
            scope = {
                "type": "http",
                "method": "POST",
                "path": "/api/diffusion",
                "query_string": b"model_name=restyle&prompt=neon&priority=high",
                "headers": [*HEAD, *shown],
                "root_path": "",
            }
            await app(scope, _receive, _send)
        best = min(best, (time.thread_time() - began) / times * 1e6)
    return best


async def measured(times: int = 5_000) -> dict[str, float]:
    """What each kind of request costs more than an app that does not answer at all, in microseconds of CPU."""
    store = _Store()
    plain, rated = store.new(Quota()), store.new(Quota(rate=1e9))
    slow, full = store.new(Quota(rate=0.0001)), store.new(Quota(in_flight=1))
    keyring = Keyring(store)
    await keyring.refresh()
    quotas = Quotas(store, lambda _job_id: False, time.time)

    async def submit(request: Request) -> Response:
        await quotas.room(caller_of(request).key)
        raise AssertionError("there was room")

    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(data_dir=Path(folder), auth="keys")
        door = Door(_nothing, settings, keyring, Rates(1), time.time)
        counting = Door(Shortcut(_nothing, {"/api/diffusion": submit}), settings, keyring, Rates(1), time.time)
        none = await _cost_us(_nothing, plain, times)
        asked = {
            "a known key": (door, plain),
            "a known key with a rate": (door, rated),
            "refused: no key": (door, ""),
            "refused: over the rate": (door, slow),
            "refused: too many in flight": (counting, full),
        }
        return {name: await _cost_us(app, key, times) - none for name, (app, key) in asked.items()}


def test_the_door_is_cheap_and_so_is_a_refusal() -> None:
    costs = asyncio.run(measured(times=500))

    # Measured: 4 and 25; the bounds leave room for a busy machine.
    assert max(cost for name, cost in costs.items() if "refused" not in name) <= 15
    assert max(costs.values()) <= 100


async def measured_with_valkey(url: str, times: int = 2_000) -> dict[str, float]:
    """The same for keys whose requests are counted in a real Valkey; its own CPU is not in it."""
    store = _Store()
    plain, rated, slow = store.new(Quota()), store.new(Quota(rate=1e6)), store.new(Quota(rate=0.0001))
    keyring = Keyring(store)
    await keyring.refresh()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(data_dir=Path(folder), auth="keys")
        async with ValkeyCounter(url, 10.0) as counter:
            shared = SharedRates(counter, Rates(1))
            door = Door(_nothing, settings, keyring, Rates(1), time.time, shared)
            none = await _cost_us(_nothing, plain, times)
            asked = {"a known key with a rate in Valkey": rated, "refused: over the rate in Valkey": slow}
            costs = {name: await _cost_us(door, key, times) - none for name, key in asked.items()}
            began = time.perf_counter()
            for _ in range(times):
                await shared.take(store.kept[rated.split("_")[1]])
            return costs | {"the time that one waits for Valkey": (time.perf_counter() - began) / times * 1e6}


@pytest.mark.server
def test_a_refusal_is_as_cheap_where_valkey_counts(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        costs = asyncio.run(measured_with_valkey(server.url, times=300))

    assert costs["refused: over the rate in Valkey"] <= 100
    assert costs["a known key with a rate in Valkey"] <= 1_000  # measured: 100


if __name__ == "__main__":
    found = asyncio.run(measured())
    with tempfile.TemporaryDirectory() as place, valkey(Path(place)) as server:
        found |= asyncio.run(measured_with_valkey(server.url))
    for name, cost in found.items():
        sys.stdout.write(f"| {name} | {cost:.1f} µs |\n")
