"""Which jobs go through the model in the next call. Pure policy: nothing here waits, computes or reads a clock.

A call takes jobs of one shape. The job that leads chooses the shape and the others of that shape ride along, urgent
ones first, then owners in turn and by age, as many rows as fit. Between calls every job stands anew: one that came
meanwhile joins at the next step, a finished or removed one leaves its rows at once, and a paused one keeps its latents.

Why the oldest leads: a call has a fixed cost, so it pays to stay with one shape while others gather rows, and the job
that waits longest bounds the worst wait. Nothing starves, because nothing that comes later can be older. Deficit round
robin between shapes was simulated beside it (8 ms + 2 ms a row, 7 photo shapes, 80 % load): it splits the work into
small calls and its p99 latency was 9 to 87 s, by quantum, where the oldest first had 5.7 s.

Owners ride in turn, so that a job doesn't wait for all that another owner put in before it: a worker holds several
times what a call takes. It leads by its age alone, whoever it belongs to, so this starves nobody either.

The oldest urgent job leads before any other, so it is in the very next call, however full the model is. So that a
stream of urgent jobs can't stop the rest, the oldest ordinary job leads once it was left out of three calls in a row.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sfumato.core.params import Shape

__all__ = ["LEFT_OUT_AT_MOST", "NOBODYS", "Batcher", "Call", "Whose"]

LEFT_OUT_AT_MOST: Final = 3
"""Calls in a row; ordinary jobs keep a quarter of the calls, as in the dispatcher's order (70/25/5)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One model call: jobs of one shape, the one that leads first."""

    shape: Shape
    keys: tuple[str, ...]


class Whose(NamedTuple):
    """A job's owner, who has two turns for one of others when the weight is 2."""

    owner: str
    weight: float = 1.0


NOBODYS: Final = Whose("")


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    number: int
    shape: Shape
    rows: int
    urgent: bool
    whose: Whose


class Batcher:
    """Jobs in the engine, in the order in which they came.

    Args:
        rows: most rows in one call, 1 or more; a job that needs more than that still goes, alone.
    """

    def __init__(self, rows: int) -> None:
        if rows < 1:
            raise ValueError(f"a call needs at least one row, not {rows}.")
        self._rows = rows
        self._caps: dict[Shape, int] = {}
        self._entries: dict[str, _Entry] = {}
        self._groups: dict[tuple[bool, Shape], dict[str, _Entry]] = {}
        self._number = 0
        self._left_out = 0

    def add(self, key: str, shape: Shape, rows: int, *, urgent: bool = False, whose: Whose = NOBODYS) -> None:
        """Let a job in that takes `rows` a step.

        Raises:
            ValueError: the key is in already.
        """
        if key in self._entries:
            raise ValueError(f"{key} is in the batcher already.")
        self._number += 1
        entry = _Entry(key, self._number, shape, rows, urgent, whose)
        self._entries[key] = entry
        self._groups.setdefault((urgent, shape), {})[key] = entry

    def remove(self, key: str) -> bool:
        """Take a job out, finished or not; False when it is not in."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        group = self._groups[entry.urgent, entry.shape]
        del group[key]
        if not group:
            del self._groups[entry.urgent, entry.shape]
        return True

    def next(self) -> Call | None:
        """The jobs of the next call, which the caller then makes; None when there are none."""
        ordinary, urgent = self._oldest(urgent=False), self._oldest(urgent=True)
        waited_enough = ordinary is not None and self._left_out >= LEFT_OUT_AT_MOST
        leader = ordinary if urgent is None or waited_enough else urgent
        if leader is None:
            return None
        keys = tuple(self._riders(leader))
        # Rows alone can't leave the oldest ordinary job out for long: as leader it goes whatever it needs.
        self._left_out = 0 if ordinary is None or ordinary.key in keys else self._left_out + 1
        return Call(leader.shape, keys)

    def cap(self, shape: Shape) -> int:
        """Most rows in one call of this shape."""
        return self._caps.get(shape, self._rows)

    def lower(self, shape: Shape, rows: int) -> None:
        """From now on at most `rows` rows (1 or more) in one call of this shape, for a call of more did not fit."""
        self._caps[shape] = max(1, min(rows, self.cap(shape)))

    def __len__(self) -> int:
        return len(self._entries)

    def _oldest(self, *, urgent: bool) -> _Entry | None:
        firsts = (next(iter(group.values())) for (kind, _), group in self._groups.items() if kind is urgent)
        return min(firsts, key=lambda entry: entry.number, default=None)

    def _riders(self, leader: _Entry) -> Iterator[str]:
        yield leader.key
        free = self.cap(leader.shape) - leader.rows
        for urgent in (True, False):
            for entry in _in_turn(self._groups.get((urgent, leader.shape), {}).values()):
                if free <= 0:
                    return
                if entry.rows <= free and entry is not leader:
                    yield entry.key
                    free -= entry.rows


def _in_turn(entries: Iterable[_Entry]) -> Sequence[_Entry]:
    """Every owner's oldest, by age, then every owner's second, and so on; who has more weight more often."""
    had: defaultdict[str, float] = defaultdict(float)
    ranked = []
    for entry in entries:
        ranked.append((had[entry.whose.owner], entry.number, entry))
        had[entry.whose.owner] += 1 / entry.whose.weight
    return [entry for *_, entry in sorted(ranked)] if len(had) > 1 else [entry for *_, entry in ranked]
