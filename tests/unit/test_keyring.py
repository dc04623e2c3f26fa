"""The keys as a gateway knows them: fresh within 20 s, kept while the store is away, never asked for in vain."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from sfumato.core.errors import TransientError
from sfumato.core.keys import ApiKey, Scope, key_text
from sfumato.gateway.keyring import REFRESH_S, Keyring
from sfumato.observability import exposition
from tests.metrics import value
from tests.support import NOW, eventually

KEY = ApiKey.of(key_text(b"k" * 37), "alice", [Scope.READ], NOW)


class Store:
    """Counts its readings, and is away when told so."""

    def __init__(self) -> None:
        self.kept: dict[str, ApiKey] = {}
        self.readings = 0
        self.away = False

    async def keys(self) -> Mapping[str, ApiKey]:
        self.readings += 1
        await asyncio.sleep(0)
        if self.away:
            raise TransientError("away")
        return dict(self.kept)


def test_keys_are_counted_by_state_and_readings_by_result() -> None:
    def shown(series: str) -> float:
        return value(exposition(None).decode(), series) or 0.0

    async def run() -> None:
        store = Store()
        kinds: list[dict[str, Any]] = [{}, {}, {}, {"expires_at": 1.0}, {"revoked_at": NOW}]
        for number, changes in enumerate(kinds):
            store.kept[str(number)] = dataclasses.replace(KEY, **changes)
        keyring = Keyring(store)
        before = {result: shown(f'sfumato_key_readings_total{{result="{result}"}}') for result in ("read", "failed")}
        await keyring.refresh()
        store.away = True
        with pytest.raises(TransientError):
            await keyring.refresh()
        assert [shown(f'sfumato_api_keys{{state="{state}"}}') for state in ("good", "expired", "revoked")] == [3, 1, 1]
        for result, count in before.items():
            assert shown(f'sfumato_key_readings_total{{result="{result}"}}') == count + 1

    asyncio.run(run())


def test_nothing_is_known_before_the_first_reading() -> None:
    async def run() -> None:
        keyring = Keyring(Store(), lambda: 0.0)
        assert (keyring.known, keyring.any, keyring.get(KEY.prefix)) == (False, False, None)
        await keyring.refresh()
        assert (keyring.known, keyring.any) == (True, False)

    asyncio.run(run())


def test_a_revoked_key_is_known_after_the_next_reading() -> None:
    async def run() -> None:
        store, keyring = Store(), None
        store.kept[KEY.prefix] = KEY
        keyring = Keyring(store)
        keeping = asyncio.create_task(keyring.keep_fresh(every_s=0.01))
        await eventually(lambda: _holds(keyring.get(KEY.prefix) == KEY))
        store.kept[KEY.prefix] = dataclasses.replace(KEY, revoked_at=NOW)
        await eventually(lambda: _holds(not keyring.get(KEY.prefix).good(NOW)))  # type: ignore[union-attr]
        keeping.cancel()

    asyncio.run(run())
    assert REFRESH_S + 2 < 30


async def _holds(value: bool) -> bool:
    return value


def test_many_unknown_keys_read_the_store_once_a_second() -> None:
    async def run() -> None:
        store, now = Store(), [100.0]
        keyring = Keyring(store, lambda: now[0])
        await asyncio.gather(*(keyring.look_again() for _ in range(100)))
        assert store.readings == 1
        now[0] += 1.0
        await asyncio.gather(*(keyring.look_again() for _ in range(100)))
        assert store.readings == 2

    asyncio.run(run())


def test_key_that_was_made_right_after_a_reading_is_known_to_its_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.gateway.keyring.AGAIN_S", 0.05)

    async def run() -> None:
        store = Store()
        keyring = Keyring(store)
        await keyring.refresh()
        store.kept[KEY.prefix] = KEY
        await asyncio.gather(*(keyring.look_again() for _ in range(100)))
        assert keyring.get(KEY.prefix) == KEY
        assert store.readings == 2

    asyncio.run(run())


def test_while_the_store_is_away_what_was_known_stays_and_the_unknown_is_unknown() -> None:
    async def run() -> None:
        store, now = Store(), [100.0]
        store.kept[KEY.prefix] = KEY
        keyring = Keyring(store, lambda: now[0])
        await keyring.refresh()
        store.away = True
        now[0] += 10
        for _ in range(3):
            with pytest.raises(TransientError):
                await keyring.look_again()
        assert store.readings == 2
        assert keyring.get(KEY.prefix) == KEY

    asyncio.run(run())


def test_the_store_is_read_again_soon_after_it_was_away() -> None:
    async def run() -> None:
        store = Store()
        store.away = True
        keyring = Keyring(store)
        keeping = asyncio.create_task(keyring.keep_fresh(every_s=60))
        await eventually(lambda: _holds(store.readings == 1))
        store.away = False
        await eventually(lambda: _holds(keyring.known), within_s=3)
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping

    asyncio.run(run())
