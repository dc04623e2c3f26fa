"""Objects in real S3 servers: what is answered while one is down or strange, and links that work by themselves."""

import asyncio
import contextlib
import dataclasses
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from sfumato.cluster.s3 import new_place
from sfumato.cluster.server import Server, free_ports, running
from sfumato.core.errors import NotFound, TransientError, UnusableStore
from sfumato.storage.s3 import S3Blobs
from sfumato.storage.s3_http import ask
from sfumato.storage.s3_place import S3Place
from tests.contract.stations import in_loop
from tests.integration.s3_answers import answering
from tests.s3_servers import RECIPES, S3_SERVERS, s3_bucket
from tests.support import eventually

ANSWERED_WITHIN_S = 2.0


@pytest.fixture(params=S3_SERVERS)
def place(request: pytest.FixtureRequest) -> S3Place:
    """An empty bucket whose links are good where it is asked itself."""
    bucket = s3_bucket(request)
    return dataclasses.replace(bucket, public_url=bucket.endpoint)


def http(method: str, url: str, data: bytes | None = None) -> tuple[int, bytes, str]:
    """Status, body and type, as any client without keys gets them."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=5) as answer:
            return answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), ""


# A server that dies


@in_loop
async def _puts_through_a_death(server: Server, blobs: S3Blobs) -> None:
    acknowledged: set[str] = set()

    async def put(number: int) -> float:
        """Seconds until it was answered; what it acknowledged is noted."""
        began = time.monotonic()
        try:
            await blobs.put(f"outputs/{number}/x", str(number).encode(), create_only=True)
            acknowledged.add(f"outputs/{number}/x")
        except TransientError:
            pass
        return time.monotonic() - began

    async def put_for_ever() -> None:
        for number in range(10_000):
            await put(number)

    under_way = [asyncio.create_task(put_for_ever())]
    await eventually(lambda: _true(len(acknowledged) > 20))
    await asyncio.to_thread(server.kill)
    under_way[0].cancel()
    before = set(acknowledged)

    took_s = await asyncio.gather(*(put(20_000 + number) for number in range(20)))
    assert max(took_s) < ANSWERED_WITHIN_S
    assert acknowledged == before
    with pytest.raises(TransientError, match="See that it runs"):
        await blobs.get("outputs/0/x")

    await asyncio.to_thread(server.start)
    await eventually(lambda: _put_again(blobs), within_s=30)
    for key in acknowledged:
        assert await blobs.get(key) == key.split("/")[1].encode()


async def _true(found: bool) -> bool:
    return found


async def _put_again(blobs: S3Blobs) -> bool:
    try:
        return bool(await blobs.put("outputs/after/x", b"x"))
    except TransientError:
        return False


@pytest.mark.parametrize("name", S3_SERVERS)
def test_killed_server_is_unknown_within_two_seconds_and_keeps_what_it_acknowledged(
    request: pytest.FixtureRequest, name: str, tmp_path: Path
) -> None:
    s3_bucket(request, name)  # skips where this server is missing
    (port,) = free_ports(1)
    place = new_place(port)
    with running(RECIPES[name](tmp_path, place), tmp_path / "log") as server:
        _puts_through_a_death(server, S3Blobs(place))


# A server that refuses


WRONG = {
    "bucket": ({"bucket": "no-such-bucket"}, "Make the bucket"),
    "key": ({"access_key_id": "nobody"}, "SFUMATO_S3_ACCESS_KEY_ID"),
    "secret": ({"secret_access_key": "guessed"}, "SFUMATO_S3_SECRET_ACCESS_KEY"),
}


@pytest.mark.parametrize(("change", "advice"), WRONG.values(), ids=WRONG)
@in_loop
async def test_what_is_wrong_is_refused_at_start_and_said_while_running(
    place: S3Place, change: dict[str, str], advice: str
) -> None:
    wrong = dataclasses.replace(place, **change)

    with pytest.raises(UnusableStore, match=advice):
        async with S3Blobs.open(wrong):
            pass
    with pytest.raises(TransientError, match=advice):
        await S3Blobs(wrong).put("inputs/a", b"x")
    with pytest.raises(TransientError, match=advice):
        await S3Blobs(wrong).get("inputs/a")


@in_loop
async def test_good_bucket_opens_and_nothing_of_the_check_is_left(place: S3Place) -> None:
    async with S3Blobs.open(place) as blobs:
        assert [head async for head in blobs.old("", time.time() + 10)] == []


def test_session_token_in_the_environment_does_not_meddle(place: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "someone-elses")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")

    assert asyncio.run(S3Blobs(place).put("inputs/a", b"x"))


# A server that answers something else


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "RequestTimeTooSkewed", "clock"),
        (403, "AccessDenied", "read, write, list and delete"),
        (403, "", "the key's rights"),
        (404, "", "did not do it: 404 Not Found"),
        (503, "SlowDown", "did not do it: SlowDown"),
        (500, "", "did not do it: 500 Internal Server Error"),
    ],
)
@in_loop
async def test_strange_answer_is_unknown_and_says_what_to_do(status: int, code: str, words: str) -> None:
    with answering(status, code) as strange:
        with pytest.raises(TransientError, match=words):
            await S3Blobs(strange).put("inputs/a", b"x")
        with pytest.raises(TransientError, match=words):
            await S3Blobs(strange).get("inputs/a")


@in_loop
async def test_silent_server_is_unknown_within_two_seconds() -> None:
    # The kernel takes the connection; nobody ever reads from it.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        place = S3Place("b", f"http://127.0.0.1:{mute.getsockname()[1]}", access_key_id="a", secret_access_key="b")
        began = time.monotonic()
        with pytest.raises(TransientError, match="gave no answer in time"):
            await S3Blobs(place).put("inputs/a", b"x")
        assert time.monotonic() - began < ANSWERED_WITHIN_S


# Links


@in_loop
async def test_get_link_serves_the_object_with_its_type(place: S3Place) -> None:
    blobs = S3Blobs(place)
    await blobs.put("outputs/job/nonce.png", b"picture")

    link = await blobs.get_link("outputs/job/nonce.png", 60)

    assert link is not None
    assert http("GET", link) == (200, b"picture", "image/png")
    # S3 signs the method too.
    assert http("HEAD", link)[0] == 403
    assert http("PUT", link, b"other")[0] == 403
    assert http("GET", link.replace("nonce", "other"))[0] == 403


@in_loop
async def test_put_link_takes_an_object(place: S3Place) -> None:
    blobs = S3Blobs(place)
    link = await blobs.put_link("uploads/u", 60)

    assert link is not None
    assert http("PUT", link, b"picture")[0] == 200
    assert await blobs.get("uploads/u") == b"picture"


@in_loop
async def test_links_expire(place: S3Place) -> None:
    blobs = S3Blobs(place)
    await blobs.put("outputs/job/nonce.png", b"picture")
    link = await blobs.get_link("outputs/job/nonce.png", 1)
    put = await blobs.put_link("uploads/u", 1)

    assert link is not None
    assert put is not None
    await eventually(lambda: _refused("GET", link))
    await eventually(lambda: _refused("PUT", put))


async def _refused(method: str, link: str) -> bool:
    return http(method, link, b"late" if method == "PUT" else None)[0] == 403


@in_loop
async def test_link_is_signed_for_the_public_address(place: S3Place) -> None:
    blobs = S3Blobs(dataclasses.replace(place, public_url="https://pictures.example"))

    link = await blobs.get_link("outputs/job/nonce.png", 60)

    assert link is not None
    assert link.startswith(f"https://pictures.example/{place.bucket}/outputs/job/nonce.png?")
    assert place.secret_access_key not in link


@in_loop
async def test_without_a_public_address_there_are_no_links(place: S3Place) -> None:
    blobs = S3Blobs(dataclasses.replace(place, public_url=""))

    assert await blobs.get_link("outputs/job/nonce.png", 60) is None
    assert await blobs.put_link("uploads/u", 60) is None


# What obstore makes special


@in_loop
async def test_listing_goes_over_pages(place: S3Place) -> None:
    blobs = S3Blobs(place, answer_s=15.0)
    for begin in range(0, 1_100, 100):
        await asyncio.gather(*(blobs.put(f"inputs/{number:04}/x", b"") for number in range(begin, begin + 100)))

    found = [head.key async for head in blobs.old("inputs/", time.time() + 10)]

    assert sorted(found) == [f"inputs/{number:04}/x" for number in range(1_100)]
    assert [head.key async for head in blobs.old("inputs/109", time.time() + 10)] == [
        f"inputs/{number}/x" for number in range(1_090, 1_100)
    ]


@in_loop
async def test_source_that_changes_while_it_is_copied_is_never_taken(place: S3Place) -> None:
    blobs = S3Blobs(place, answer_s=15.0)

    async def copy(target: str, etag: str) -> None:
        with contextlib.suppress(NotFound):
            await blobs.copy("uploads/u", target, if_etag=etag)

    for number in range(20):
        checked = await blobs.put("uploads/u", b"checked" * 10_000)
        await asyncio.gather(copy(f"inputs/{number}/x", checked), blobs.put("uploads/u", b"swapped" * 10_000))

    taken = [await blobs.get(head.key) async for head in blobs.old("inputs/", time.time() + 10)]
    assert set(taken) <= {b"checked" * 10_000}


@in_loop
async def test_first_bytes_of_an_empty_object_are_none(place: S3Place) -> None:
    blobs = S3Blobs(place)
    await blobs.put("uploads/u", b"")

    assert await blobs.get("uploads/u", limit_bytes=100) == b""
    with pytest.raises(NotFound):
        await blobs.get("uploads/v", limit_bytes=100)


END = """
import asyncio, sys
from sfumato.storage.s3 import S3Blobs
from sfumato.storage.s3_place import S3Place

async def main():
    place = S3Place(bucket=sys.argv[1], endpoint=sys.argv[2], access_key_id=sys.argv[3], secret_access_key=sys.argv[4])
    async with S3Blobs.open(place) as blobs:
        await asyncio.gather(*(blobs.put(f"outputs/{number}/x", b"x" * 1_000) for number in range(100)))

asyncio.run(main())
"""


def test_process_that_used_the_store_ends_well(place: S3Place) -> None:
    command = [sys.executable, "-c", END, place.bucket, place.endpoint, place.access_key_id, place.secret_access_key]
    assert [subprocess.run(command, check=False).returncode for _ in range(3)] == [0] * 3


def test_bucket_of_a_server_started_here_is_not_open_to_strangers(place: S3Place) -> None:
    assert ask(place, "PUT", "inputs/a", body=b"x").status == 200
    assert http("GET", f"{place.endpoint}/{place.bucket}/inputs/a")[0] == 403
