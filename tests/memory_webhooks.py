"""An owner's endpoints and deliveries, in memory: what the HTTP tests need of a `WebhookDesk`."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from sfumato.core.webhooks import Delivery, DeliveryPage, DeliveryQuery, DeliveryState, Endpoint

__all__ = ["MemoryWebhooks"]


async def _nothing(what: str) -> None:
    del what


class MemoryWebhooks:
    """`io` is awaited before each effect; `kept` are the deliveries, newest first."""

    def __init__(self, io: Callable[[str], Awaitable[None]] = _nothing) -> None:
        self._io = io
        self.made: dict[str, tuple[Endpoint, list[str]]] = {}
        self.kept: list[Delivery] = []

    async def endpoints(self, owner: str) -> Sequence[Endpoint]:
        await self._io("endpoints")
        return [endpoint for endpoint, _ in self.made.values() if endpoint.owner == owner]

    async def add(self, endpoint: Endpoint, secret: str, most: int) -> bool:
        await self._io("add")
        if len(await self.endpoints(endpoint.owner)) >= most:
            return False
        self.made[endpoint.id] = endpoint, [secret]
        return True

    async def remove(self, owner: str, endpoint: str) -> bool:
        await self._io("remove")
        if not self._is_mine(owner, endpoint):
            return False
        del self.made[endpoint]
        return True

    async def rotate(self, owner: str, endpoint: str, secret: str, overlap_s: float) -> bool:
        await self._io("rotate")
        del overlap_s
        if not self._is_mine(owner, endpoint):
            return False
        self.made[endpoint][1].insert(0, secret)
        return True

    async def deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        await self._io("deliveries")
        found = [each for each in self.kept if query.job_id in ("", each.job_id)]
        return DeliveryPage([each for each in found if query.state in (None, each.state)][: query.limit], "")

    async def redeliver(self, owner: str, delivery: str) -> Delivery | None:
        await self._io("redeliver")
        del owner
        found = next((each for each in self.kept if each.id == delivery), None)
        return None if found is None else replace(found, state=DeliveryState.PENDING)

    def _is_mine(self, owner: str, endpoint: str) -> bool:
        return endpoint in self.made and self.made[endpoint][0].owner == owner
