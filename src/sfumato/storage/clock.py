"""The database's own clock: the one that all hosts share."""

from typing import Any

from sqlalchemy import ColumnElement, Double, cast, extract, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["database_clock", "database_now"]


def database_clock(connection: AsyncConnection) -> ColumnElement[float]:
    """What gives the time in Unix seconds, as a part of a statement."""
    clock: Any = extract("epoch", func.clock_timestamp())
    if connection.dialect.name == "sqlite":
        clock = (func.julianday("now") - 2_440_587.5) * 86_400.0
    return cast(clock, Double)


async def database_now(connection: AsyncConnection) -> float:
    """The time in Unix seconds."""
    return float((await connection.execute(select(database_clock(connection)))).scalar_one())
