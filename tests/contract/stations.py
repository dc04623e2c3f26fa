"""What a broker suite needs of an implementation: opening it as a process would, and reading and writing around it."""

import asyncio
import functools
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec, Protocol

from sfumato.broker.sqlite import SqliteBroker
from sfumato.core.ports import Broker

__all__ = ["Kind", "SqliteStation", "Station", "brokers", "in_loop"]

P = ParamSpec("P")
Kind = Literal["jobs", "work", "events", "dead"]


class Station(Protocol):
    """One implementation, with nothing in it yet. It travels to child processes, so it is a plain value."""

    @property
    def takeover_s(self) -> float:
        """Silence after which a reader or receiver is taken for dead."""
        ...

    @property
    def slack_s(self) -> float:
        """How much longer than takeover_s a takeover may need on this machine."""
        ...

    def open(self) -> Broker:
        """A broker as a process of its own would have it."""
        ...

    def stored(self, kind: Kind, model: str) -> Sequence[str]:
        """The message bodies that are durable now, oldest first, read around the port."""
        ...

    def plant(self, kind: Kind, model: str, raw: str, lane: int = 0) -> None:
        """Write a message around the port, as a build of another version would."""
        ...


@dataclass(frozen=True)
class SqliteStation:
    """Two SQLite files in a folder."""

    folder: Path
    takeover_s: float = 0.8
    slack_s: float = 1.0

    def open(self) -> SqliteBroker:
        return SqliteBroker(self.folder, self.takeover_s)

    def _connect(self, kind: Kind) -> "closing[sqlite3.Connection]":
        name = "events.sqlite" if kind == "events" else "queue.sqlite"
        return closing(sqlite3.connect(self.folder / name, timeout=10, isolation_level=None))

    def stored(self, kind: Kind, model: str) -> Sequence[str]:
        statement = {
            "jobs": "SELECT body FROM log WHERE model = ? ORDER BY position",
            "events": "SELECT body FROM log WHERE model = ? ORDER BY position",
            "work": "SELECT body FROM work WHERE model = ? ORDER BY number",
            "dead": "SELECT body FROM dead WHERE model = ? ORDER BY rowid",
        }[kind]
        with self._connect(kind) as connection:
            return [body for (body,) in connection.execute(statement, (model,))]

    def plant(self, kind: Kind, model: str, raw: str, lane: int = 0) -> None:
        with self._connect(kind) as connection:
            if kind == "work":
                statement = "INSERT INTO work (model, lane, left_over, body) VALUES (?, ?, 0, ?)"
                connection.execute(statement, (model, lane, raw))
            else:
                connection.execute("INSERT INTO log (model, at, body) VALUES (?, ?, ?)", (model, time.time(), raw))


@asynccontextmanager
async def brokers(station: Station, number: int) -> AsyncIterator[Sequence[Broker]]:
    """Several brokers on one station, as that many processes would have them; closed at the end."""
    opened = [station.open() for _ in range(number)]
    try:
        yield opened
    finally:
        for broker in opened:
            await broker.close()


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test written as a coroutine function, run in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run
