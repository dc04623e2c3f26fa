"""The store of decisions about workers, in memory: the same contract as the one in SQL."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

from sfumato.core.errors import Deposed
from sfumato.core.scaling import Decided, Ends, Placement, Pool

__all__ = ["MemoryScaling"]


async def _nothing(what: str) -> None:
    del what


class MemoryScaling:
    """`clock` is what the real one's database tells the time by; `io` is awaited before each effect."""

    def __init__(self, clock: Callable[[], float], io: Callable[[str], Awaitable[None]] = _nothing) -> None:
        self._clock, self._io = clock, io
        self._lease = ("", 0.0)
        self._pools: dict[str, tuple[int, Mapping[str, Ends], float]] = {}
        self.decided: dict[str, Decided] = {}
        self.placements: Mapping[str, Mapping[str, Placement]] = {}

    async def decisions(self) -> Mapping[str, Decided]:
        await self._io("decisions")
        return dict(self.decided)

    async def lead(self, holder: str, for_s: float) -> bool:
        await self._io("lead")
        held_by, until = self._lease
        if held_by != holder and self._clock() < until <= self._clock() + for_s:
            return False
        self._lease = holder, self._clock() + for_s
        return True

    async def resign(self, holder: str) -> None:
        await self._io("resign")
        if self._lease[0] == holder:
            self._lease = "", 0.0

    async def pools(self, silent_s: float) -> Sequence[Pool]:
        await self._io("pools")
        since = self._clock() - silent_s
        return [
            Pool(name, places, {model: each.replicas for model, each in self.placements.get(name, {}).items()}, ends)
            for name, (places, ends, at) in sorted(self._pools.items())
            if at >= since
        ]

    async def decide(
        self, holder: str, decided: Mapping[str, Decided], placed: Mapping[str, Mapping[str, Placement]]
    ) -> None:
        await self._io("decide")
        held_by, until = self._lease
        if held_by != holder or self._clock() >= until:
            raise Deposed("another decides")
        self.decided, self.placements = dict(decided), placed

    async def offer(self, pool: str, places: int, ends: Mapping[str, Ends] = MappingProxyType({})) -> None:
        await self._io("offer")
        self._pools[pool] = places, ends, self._clock()

    async def placed(self, pool: str) -> Mapping[str, Placement]:
        await self._io("placed")
        return self.placements.get(pool, {})

    async def withdraw(self, pool: str) -> None:
        await self._io("withdraw")
        self._pools.pop(pool, None)
