"""The database's own clock: the one that all hosts share."""

from typing import Any

from sqlalchemy import Double, cast, extract, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["database_now"]


async def database_now(connection: AsyncConnection) -> float:
    """The time in Unix seconds."""
    clock: Any = extract("epoch", func.clock_timestamp())
    if connection.dialect.name == "sqlite":
        clock = (func.julianday("now") - 2_440_587.5) * 86_400.0
    return float((await connection.execute(select(cast(clock, Double)))).scalar_one())
