"""The conversations about many jobs: lists, and how many there are."""

from datetime import datetime
from typing import Final, TypedDict

from sfumato.client.asking import ask, read
from sfumato.client.messages import Flow, Found, Request, Stream
from sfumato.client.views import JobInfo, JobPage

__all__ = ["Listed", "count_jobs", "jobs"]

PAGE: Final = 100
"""Jobs asked for at once: a gateway makes a page in one go, and others wait for that."""


class Listed(TypedDict, total=False):
    """Which jobs; what is left out or None does not matter.

    Accepted at `since` or later and before `until`: a datetime, Unix seconds, or text in ISO 8601. `owner` is for keys
    with the scope admin; others are shown their own jobs alone.
    """

    model_name: str | None
    status: str | None
    owner: str | None
    since: datetime | float | str | None
    until: datetime | float | str | None


def jobs(listed: Listed, limit: int | None = None) -> Stream[JobInfo]:
    """Jobs, newest first, at most `limit`; pages are fetched as they are needed."""
    query = _query(listed)
    left = limit
    while left is None or left > 0:
        size = {"limit": str(min(PAGE, left or PAGE))}
        page = read(JobPage, (yield from ask(Request("GET", "/api/jobs", query | size), 200)))
        for info in page.jobs:
            yield Found(info)
        if page.next is None:
            return
        query["cursor"] = page.next
        left = None if left is None else left - len(page.jobs)


def count_jobs(listed: Listed) -> Flow[int | None]:
    """How many jobs a list without limit has now (counted up to a million); None where the service can't say."""
    query = _query(listed) | {"limit": "1", "count": "true"}
    return read(JobPage, (yield from ask(Request("GET", "/api/jobs", query), 200))).count


def _query(listed: Listed) -> dict[str, str]:
    return {name: _text(value) for name, value in listed.items() if value not in (None, "")}


def _text(value: object) -> str:
    return repr(value.timestamp()) if isinstance(value, datetime) else str(value)
