"""Objects in an S3 bucket, by obstore.

A put is one request, whole or not at all, and create-only by `If-None-Match: *`. Every call ends within seconds, in an
answer or in a TransientError; a few quick retries are inside of that. Keys, bucket and clock can be wrong at any time:
a running service treats that as passing (a key that is being rotated must cost no job), one that starts refuses it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from sfumato.core.errors import AlreadyExists, NotFound, SfumatoError, TransientError
from sfumato.core.ports import BlobHead
from sfumato.storage.blobs import checked
from sfumato.storage.s3_place import S3Place
from sfumato.storage.s3_start import StoreRefuses, check_creates, refusal

__all__ = ["S3Blobs"]

ANSWER_S: Final = 1.8
"""Longest a call waits for the store, beside what its bytes take."""
START_S: Final = 10.0
"""The same while the store is checked: SeaweedFS lets those who race for one key wait for whole seconds."""
SLOWEST_BYTES_PER_S: Final = 2 * 1024 * 1024
LISTED_AT_ONCE: Final = 1_000
PAGE_S: Final = 8.0
"""What a page of a listing may take beside."""
AT_ONCE: Final = 256
"""Requests under way at once, each on a connection of its own: far more than thousands of puts a second need."""
SETTLE_S: Final = 0.05
CODE: Final = re.compile(r"<Code>(\w+)</Code>")
STATUS: Final = re.compile(r"status code: (\d{3} [\w ]+)")
MEDIA_TYPES: Final = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
"""A link serves an object with the type it was stored with; the type follows from the key, as for results."""


class S3Blobs:
    """`Blobs`, `BlobLinks` and `BlobSweep` of core.ports in one bucket. `answer_s` is how long a call may take."""

    def __init__(self, place: S3Place, answer_s: float = ANSWER_S) -> None:
        self._place, self._answer_s = place, answer_s
        self._store = _store(place, place.endpoint)
        # A link is good for the host it was signed for, so links are signed as the public address.
        self._public = _store(place, place.public_url) if place.public_url else None
        self._room = asyncio.Semaphore(AT_ONCE)

    @classmethod
    @asynccontextmanager
    async def open(cls, place: S3Place) -> AsyncIterator["S3Blobs"]:
        """The bucket, checked as a service needs it at its start.

        Raises:
            UnusableStore: there is no such bucket, the key or the clock is wrong, or creates are not exclusive.
            TransientError: it does not answer.
        """
        blobs = cls(place)
        try:
            await check_creates(cls(place, START_S))
            yield blobs
        finally:
            # obstore's threads still let go of the last answers; an interpreter that ends meanwhile is aborted.
            await asyncio.sleep(SETTLE_S)

    async def put(self, key: str, data: bytes, *, create_only: bool = False) -> str:
        """Store `data` whole or not at all; durable when this returns; gives the etag. Raises AlreadyExists."""
        path, media_type = checked(key), MEDIA_TYPES.get(key.rpartition(".")[2])
        async with self._asking(key, _sending_s(len(data))):
            stored = await obstore.put_async(
                self._store,
                path,
                data,
                mode="create" if create_only else "overwrite",
                use_multipart=False,  # several requests are not whole or nothing, and their etag is another
                attributes={"Content-Type": media_type} if media_type else None,
            )
        return stored["e_tag"] or ""

    async def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """The object, or its first `limit_bytes`. Raises NotFound."""
        try:
            # A range of nothing is refused, so one byte is asked for at least.
            return (await self._get(key, {} if limit_bytes is None else {"range": (0, max(1, limit_bytes))}))[
                :limit_bytes
            ]
        except _NoSuchRange:
            return b""

    async def head(self, key: str) -> BlobHead:
        """Raises NotFound when no object has this key. `modified_at` has whole seconds, as HTTP dates do."""
        path = checked(key)
        async with self._asking(key):
            return _head_of(await obstore.head_async(self._store, path))

    async def copy(self, source: str, target: str, *, if_etag: str) -> None:
        """Copy inside the store. Raises NotFound when `source` is gone or no longer has `if_etag`."""
        here, there = checked(source), checked(target)
        # obstore's copy takes no condition, but it signs and sends what headers a bucket was opened with. That costs
        # 3 ms, and spares the gateway the bytes; a GET with If-Match and a put would do the same without.
        condition = {"x-amz-copy-source-if-match": if_etag}
        conditioned = await asyncio.to_thread(_store, self._place, self._place.endpoint, condition)
        async with self._asking(source):
            await obstore.copy_async(conditioned, here, there)

    async def delete(self, key: str) -> None:
        """Remove it; without effect when it is not there."""
        path = checked(key)
        async with self._asking(key):
            await obstore.delete_async(self._store, path)

    async def get_link(self, key: str, lifetime_s: float) -> str | None:
        """A link that serves the object by GET alone: a HEAD on it is 403, as S3 signs the method too."""
        return await self._link("GET", key, lifetime_s)

    async def put_link(self, key: str, lifetime_s: float) -> str | None:
        """A link that takes the object by PUT, of any size and as often as its holder likes."""
        return await self._link("PUT", key, lifetime_s)

    async def old(self, prefix: str, before: float) -> AsyncIterator[BlobHead]:
        """Objects whose key starts with `prefix`, last written before `before` (Unix seconds)."""
        # obstore lists folders, the port lists by any beginning of a key.
        pages = obstore.list(self._store, prefix.rpartition("/")[0] or None, chunk_size=LISTED_AT_ONCE)
        while page := await self._next(pages, prefix):
            for head in map(_head_of, page):
                if head.key.startswith(prefix) and head.modified_at < before:
                    yield head

    async def _get(self, key: str, options: Any) -> bytes:
        path = checked(key)
        async with self._asking(key):
            found = await obstore.get_async(self._store, path, options=options)
        begin, end = found.range
        async with self._asking(key, _sending_s(end - begin)):
            return bytes(await found.bytes_async())

    async def _link(self, method: Any, key: str, lifetime_s: float) -> str | None:
        path = checked(key)
        if self._public is None:
            return None
        async with self._asking(key):
            return await obstore.sign_async(self._public, method, path, timedelta(seconds=lifetime_s))

    async def _next(self, pages: Any, prefix: str) -> Sequence[Any] | None:
        async with self._asking(prefix, PAGE_S):
            found: Sequence[Any] | None = await anext(pages, None)
        return found

    @asynccontextmanager
    async def _asking(self, key: str, more_s: float = 0.0) -> AsyncIterator[None]:
        """A request about `key` gets a connection and time, `more_s` beside the answer's; its errors become ours."""
        try:
            async with asyncio.timeout(self._answer_s + more_s), self._room:
                yield
        except (BaseError, FileNotFoundError, TimeoutError, ValueError) as error:
            raise self._explained(key, error) from error

    def _explained(self, key: str, error: Exception) -> SfumatoError:
        said = str(error)
        code = found[1] if (found := CODE.search(said)) else ""
        match error:
            case AlreadyExistsError():
                known: SfumatoError = AlreadyExists(f"{key} is stored already.")
            case PreconditionError():
                known = NotFound(f"the object {key!r} is no longer the one that was looked at.")
            # A 404 to a GET without S3's own code is someone else's (a proxy, a wrong address), and no absence.
            case FileNotFoundError() if code == "NoSuchKey" or "performing HEAD" in said:
                known = NotFound(f"no object has the key {key!r}.")
            case _ if code == "InvalidRange":
                known = _NoSuchRange(key)
            case _:
                known = self._unserved(error, code)
        return known

    def _unserved(self, error: Exception, code: str) -> TransientError:
        where, said = f"{self._place.address} (bucket {self._place.bucket})", str(error)
        if advice := refusal(code, said):
            return StoreRefuses(f"{where} refuses: {code or '403 without a reason'}. {advice}")
        if isinstance(error, TimeoutError):
            return TransientError(f"{where} gave no answer in time. See that it runs and can be reached; try again.")
        status = found[1] if (found := STATUS.search(said)) else _first_line(error)
        return TransientError(f"{where} did not do it: {code or status}. See that it runs and is well; try again.")


class _NoSuchRange(TransientError):
    """The object is shorter than where the range begins: it is empty."""


def _store(place: S3Place, endpoint: str, headers: Mapping[str, str] | None = None) -> S3Store:
    """obstore's bucket. What AWS's own environment variables say is overruled wherever `place` says something."""
    config: Any = {"region": place.region, "disable_bulk_delete": True}
    if endpoint:
        config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
    keys: Any = {
        "access_key_id": place.access_key_id,
        "secret_access_key": place.secret_access_key,
        "token": None,  # else a session token that lies about in the environment would be sent with our key
        "expires_at": None,
    }
    return S3Store(
        place.bucket,
        config=config,
        client_options={
            "default_headers": dict(headers or {}),
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": "1s",
            "pool_idle_timeout": "20s",  # below the servers' own, so that none is used that is just being closed
            "pool_max_idle_per_host": str(AT_ONCE),
        },
        retry_config={
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=ANSWER_S),
            "backoff": {
                "init_backoff": timedelta(seconds=0.05),
                "max_backoff": timedelta(seconds=0.4),
                "base": 2,
            },
        },
        credential_provider=(lambda: keys) if place.access_key_id else None,
    )


def _head_of(meta: Any) -> BlobHead:
    return BlobHead(meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"].timestamp())


def _sending_s(size_bytes: int) -> float:
    return size_bytes / SLOWEST_BYTES_PER_S


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rpartition(" - ")[2] or type(error).__name__
