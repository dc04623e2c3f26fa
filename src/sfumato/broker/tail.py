"""Whatever a model's event log gets from now on, for a role that only wants to know what goes on."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from sfumato.core.errors import SfumatoError
from sfumato.core.events import Event, Unreadable
from sfumato.core.ports import EventLog

__all__ = ["tail"]

log = logging.getLogger(__name__)

LIMIT: Final = 500
PAUSE_S: Final = 1.0


async def tail(
    model: str,
    events: EventLog,
    take: Callable[[int, Event | Unreadable], None],
    *,
    gather_s: float = 0.0,
    pause_s: float = PAUSE_S,
) -> None:
    """Give each new event of the model's log, with its position, to `take`, for ever.

    After a batch it waits `gather_s` for more; after an error `pause_s`, which costs at most a batch of events.
    """
    cursor: str | None = None
    while True:
        try:
            cursor = await events.end() if cursor is None else cursor
            batch = await events.follow(cursor, LIMIT, wait_s=1.0)
            cursor = batch.cursor
            for item in batch.items:
                take(item.position, item.value)
        except Exception as error:
            # Whatever it was, who stopped following would be blind for good.
            foreseen = isinstance(error, SfumatoError)
            log.warning("the event log of %s can't be followed: %s", model, error, exc_info=not foreseen)
            await asyncio.sleep(pause_s)
        await asyncio.sleep(gather_s)
