"""The four ways to batch, each as a rule for when a waiting request may enter the engine.

Inside, all share the same engine: who has no step left leaves at once, with his answer. That makes the baselines
stronger than such servers are, where a mixed batch is one call of a pipeline: each row is computed as long as the
longest, and the answers come together at the end.
"""

import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, Protocol

from sfumato.bench.traffic import Request

__all__ = ["POLICIES", "WAITING", "AtOnce", "Gate", "InGroups", "Policy", "Rule"]

Policy = Literal["sequential", "same-parameter", "request-level", "step-level"]


class Rule(Protocol):
    """When requests, named by their index, may enter."""

    joins: bool
    """Whether one may enter while others are in."""

    def arrive(self, index: int, request: Request) -> None: ...

    def admit(self, now: float, running: int) -> Sequence[int]:
        """Who enters now, with `running` requests in."""
        ...

    @property
    def due_s(self) -> float:
        """When, without a further arrival, the next may enter; infinite when nobody waits."""
        ...


class AtOnce:
    """Step-level batching: everyone enters when he comes; the batcher decides who is in which call."""

    joins = True

    def __init__(self) -> None:
        self._waiting: list[int] = []

    def arrive(self, index: int, request: Request) -> None:
        self._waiting.append(index)

    def admit(self, now: float, running: int) -> Sequence[int]:
        entering, self._waiting = self._waiting, []
        return entering

    @property
    def due_s(self) -> float:
        return -math.inf if self._waiting else math.inf


class InGroups:
    """Whoever is alike enters together, at most `most`, when nobody is in; nobody joins later.

    A group may enter once it is full or its first request has waited `window_s`, and after `end_s`, when nobody comes
    any more, in any case; of those that may, the one that waited longest does.
    """

    joins = False

    def __init__(
        self, alike: Callable[[Request], Hashable], most: int, window_s: float, end_s: float = math.inf
    ) -> None:
        self._alike, self._most, self._window_s, self._end_s = alike, most, window_s, end_s
        self._groups: dict[Hashable, deque[tuple[int, float]]] = {}

    def arrive(self, index: int, request: Request) -> None:
        self._groups.setdefault(self._alike(request), deque()).append((index, request.arrives_s))

    def admit(self, now: float, running: int) -> Sequence[int]:
        if running:
            return ()
        ready = [
            (group[0][1], key)
            for key, group in self._groups.items()
            if len(group) >= self._most or now >= self._due_s(group)
        ]
        if not ready:
            return ()
        _, chosen = min(ready, key=lambda entry: entry[0])
        group = self._groups[chosen]
        entering = [group.popleft()[0] for _ in range(min(self._most, len(group)))]
        if not group:
            del self._groups[chosen]
        return entering

    @property
    def due_s(self) -> float:
        return min((self._due_s(group) for group in self._groups.values()), default=math.inf)

    def _due_s(self, group: deque[tuple[int, float]]) -> float:
        return min(group[0][1] + self._window_s, self._end_s)


POLICIES: Final[Mapping[Policy, Callable[[int, float], Rule]]] = MappingProxyType(
    {
        "sequential": lambda rows, window_s: InGroups(lambda request: "any", 1, 0.0),
        # One scalar step index and one begin index a batch is all that diffusers' schedulers allow.
        "same-parameter": lambda rows, window_s: InGroups(
            lambda request: (request.shape, request.steps, request.evaluations), rows, window_s
        ),
        "request-level": lambda rows, window_s: InGroups(lambda request: request.shape, rows, window_s),
        "step-level": lambda rows, window_s: AtOnce(),
    }
)
"""Policy → its rule for (rows in a call, waiting window in seconds)."""

WAITING: Final[frozenset[Policy]] = frozenset({"same-parameter", "request-level"})
"""Those for which a waiting window may help."""


class Gate:
    """Requests come in their order, enter by a rule, and leave; `ended` says when each was answered, in seconds."""

    def __init__(self, requests: Sequence[Request], rule: Rule) -> None:
        self._requests, self._rule = requests, rule
        self._arrived, self._running = 0, 0
        self.ended = [math.nan] * len(requests)
        self.missing = len(requests)

    def enter(self, now: float) -> Sequence[int]:
        """Who enters now, after all who have come by now arrived."""
        while self.next_arrival_s <= now:
            self._rule.arrive(self._arrived, self._requests[self._arrived])
            self._arrived += 1
        entering = self._rule.admit(now, self._running)
        self._running += len(entering)
        return entering

    def leave(self, index: int, now: float) -> None:
        """This one has no step left."""
        self.ended[index] = now
        self._running -= 1
        self.missing -= 1

    @property
    def next_arrival_s(self) -> float:
        """Infinite after the last."""
        return self._requests[self._arrived].arrives_s if self._arrived < len(self._requests) else math.inf

    @property
    def next_s(self) -> float:
        """When, with nobody in, it is worth asking again."""
        return min(self.next_arrival_s, self._rule.due_s)

    @property
    def next_joiner_s(self) -> float:
        """When, with somebody in, one more may enter."""
        return self.next_arrival_s if self._rule.joins else math.inf
