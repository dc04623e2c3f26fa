"""A client of server-sent events with nothing but Python: it comes back with the last id that it was told."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Stream", "Told"]


@dataclass(frozen=True)
class Told:
    """One event; `id` is "" where it had none."""

    kind: str
    id: str
    data: dict[str, Any]


def _ended(told: Sequence[Told]) -> bool:
    return bool(told) and told[-1].kind == "final"


@dataclass
class Stream:
    """A stream of `url` that is followed over as many connections as that takes."""

    url: str
    told: list[Told] = field(default_factory=list)
    connections: int = 0
    last_id: str = ""

    @property
    def job_id(self) -> str:
        """Of whose job, when it is one's."""
        return self.url.partition("/api/jobs/")[2].partition("/")[0]

    def follow(self, within_s: float, whole: Callable[[Sequence[Told]], bool] = _ended) -> None:
        """Until `whole` is so, by default to the final event. Raises AssertionError when it is not within the time."""
        deadline = time.monotonic() + within_s
        while not whole(self.told):
            assert time.monotonic() < deadline, f"{self.url} told {[each.kind for each in self.told]} and no more"
            try:
                self._connect(whole)
            except (OSError, http.client.HTTPException) as error:
                # Somebody else's request would be told what is wrong with it; a kill is none of the caller's making.
                if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                    raise
            time.sleep(0.1)  # noqa: TID251 - the pause of a client, of which the standard asks one

    @property
    def life(self) -> list[tuple[str, str]]:
        """Kind and id of what has a place in the job's life."""
        return [(each.kind, each.id) for each in self.told if each.id]

    def _connect(self, whole: Callable[[Sequence[Told]], bool]) -> None:
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        with urllib.request.urlopen(urllib.request.Request(self.url, headers=headers), timeout=20) as answer:
            self.connections += 1
            for told in _events(answer):
                self.told.append(told)
                self.last_id = told.id or self.last_id
                if whole(self.told):
                    return


def _events(lines: http.client.HTTPResponse) -> Iterator[Told]:
    """Whole events alone: one that breaks off before its empty line was not told."""
    fields: dict[str, str] = {}
    for raw in lines:
        line = raw.decode().rstrip("\r\n")
        name, _, value = line.partition(":")
        if line and name:
            fields[name] = value.removeprefix(" ")
        elif not line and "data" in fields:
            yield Told(fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"]))
            fields = {}
