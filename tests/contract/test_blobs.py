"""The contract of Blobs and BlobSweep, and what a folder promises beyond it."""

import asyncio
import errno
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.errors import AlreadyExists, InvalidRequest, NotFound, TransientError, UnusableStore
from sfumato.storage.blobs import LEFTOVER_AGE_S, FolderBlobs
from tests.contract.stations import in_loop
from tests.contract.stores import (
    DiskStores,
    MemoryStores,
    ObjectStores,
    S3Stores,
    create_in_process,
    racing_processes,
)
from tests.s3_servers import S3_SERVERS, s3_bucket

KEY = "outputs/job/nonce.png"


@pytest.fixture(params=["folder", "memory", *S3_SERVERS])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStores:
    return opened(request, tmp_path)


@pytest.fixture(params=["folder", *S3_SERVERS])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStores:
    """What processes can share."""
    return opened(request, tmp_path)


def opened(request: pytest.FixtureRequest, folder: Path) -> ObjectStores:
    if request.param == "memory":
        return MemoryStores()
    return DiskStores(folder) if request.param == "folder" else S3Stores(s3_bucket(request))


@pytest.fixture
def disk(tmp_path: Path) -> DiskStores:
    return DiskStores(tmp_path)


# What every store promises


@in_loop
async def test_object_is_stored_whole(stores: ObjectStores) -> None:
    await stores.blobs().put(KEY, b"picture")

    assert stores.stored_object(KEY) == b"picture"
    assert await stores.blobs().get(KEY) == b"picture"


@in_loop
async def test_empty_object_is_an_object(stores: ObjectStores) -> None:
    await stores.blobs().put(KEY, b"")

    assert (await stores.blobs().head(KEY)).size_bytes == 0


@in_loop
async def test_first_bytes_can_be_read_alone(stores: ObjectStores) -> None:
    await stores.blobs().put(KEY, b"header and pixels")

    assert await stores.blobs().get(KEY, limit_bytes=6) == b"header"
    assert await stores.blobs().get(KEY, limit_bytes=1_000) == b"header and pixels"


@in_loop
async def test_put_replaces(stores: ObjectStores) -> None:
    blobs = stores.blobs()
    before = await blobs.put(KEY, b"old")

    after = await blobs.put(KEY, b"new")

    assert stores.stored_object(KEY) == b"new"
    assert before != after


@in_loop
async def test_create_only_put_leaves_what_is_there(stores: ObjectStores) -> None:
    await stores.blobs().put(KEY, b"first", create_only=True)

    with pytest.raises(AlreadyExists):
        await stores.blobs().put(KEY, b"second", create_only=True)

    assert stores.stored_object(KEY) == b"first"


@in_loop
async def test_one_of_many_racing_creates_wins(stores: ObjectStores) -> None:
    ends = [stores.blobs() for _ in range(8)]

    answers = await asyncio.gather(
        *(blobs.put(KEY, bytes([number]), create_only=True) for number, blobs in enumerate(ends)),
        return_exceptions=True,
    )

    winners = [number for number, answer in enumerate(answers) if isinstance(answer, str)]
    assert sum(isinstance(answer, AlreadyExists) for answer in answers) == 7
    assert stores.stored_object(KEY) == bytes(winners)


@in_loop
async def test_head_tells_size_etag_and_time(stores: ObjectStores) -> None:
    before = time.time()
    etag = await stores.blobs().put(KEY, b"12345")

    head = await stores.blobs().head(KEY)

    assert (head.key, head.size_bytes, head.etag) == (KEY, 5, etag)
    assert before - stores.tick_s <= head.modified_at <= time.time() + stores.tick_s


@in_loop
async def test_absent_object_is_not_found(stores: ObjectStores) -> None:
    blobs = stores.blobs()
    await blobs.put(KEY, b"x")

    for absent in ("outputs/job/other.png", "outputs/job", "outputs/job/nonce.png/below"):
        with pytest.raises(NotFound):
            await blobs.get(absent)
        with pytest.raises(NotFound):
            await blobs.head(absent)
        with pytest.raises(NotFound):
            await blobs.copy(absent, "inputs/a/b", if_etag="any")


@in_loop
async def test_copy_makes_a_second_object(stores: ObjectStores) -> None:
    blobs = stores.blobs()
    etag = await blobs.put("uploads/u", b"picture")

    await blobs.copy("uploads/u", "inputs/job/digest", if_etag=etag)
    await blobs.delete("uploads/u")

    assert stores.stored_object("inputs/job/digest") == b"picture"


@in_loop
async def test_copy_of_an_object_that_changed_since_is_refused(stores: ObjectStores) -> None:
    blobs = stores.blobs()
    checked = await blobs.put("uploads/u", b"checked")
    await blobs.put("uploads/u", b"swapped")

    with pytest.raises(NotFound):
        await blobs.copy("uploads/u", "inputs/job/digest", if_etag=checked)

    assert stores.stored_object("inputs/job/digest") is None


@in_loop
async def test_deleted_object_is_gone_and_deleting_it_again_is_harmless(stores: ObjectStores) -> None:
    await stores.blobs().put(KEY, b"x")

    await stores.blobs().delete(KEY)
    await stores.blobs().delete(KEY)

    assert stores.stored_object(KEY) is None


@in_loop
async def test_old_lists_what_is_under_the_prefix_and_was_written_before(stores: ObjectStores) -> None:
    blobs = stores.blobs()
    for key in ("inputs/a/1", "inputs/b/2", "outputs/a/3"):
        await blobs.put(key, b"x")

    assert {head.key async for head in blobs.old("inputs/", time.time() + 10)} == {"inputs/a/1", "inputs/b/2"}
    assert [head async for head in blobs.old("inputs/", time.time() - 10)] == []
    assert [head async for head in blobs.old("requests/", time.time() + 10)] == []


def test_one_of_several_racing_processes_creates_each_object(shared: ObjectStores) -> None:
    with racing_processes(3) as processes:
        won = list(processes.map(create_in_process, [shared] * 3, [60] * 3))

    assert sum(won) == 60


# What a folder promises beyond


@in_loop
async def test_young_objects_are_not_old(disk: DiskStores) -> None:
    blobs = disk.blobs()
    await blobs.put("inputs/old/x", b"x")
    await blobs.put("inputs/young/x", b"x")
    os.utime(disk.objects / "inputs/old/x", (1_000, 1_000))

    assert [head.key async for head in blobs.old("inputs/", 2_000)] == ["inputs/old/x"]


@in_loop
async def test_folders_vanish_with_their_last_object_and_come_back(disk: DiskStores) -> None:
    blobs = disk.blobs()
    await blobs.put("inputs/job/digest", b"x")

    await blobs.delete("inputs/job/digest")
    assert list((disk.objects / "inputs").iterdir()) == []

    await blobs.put("inputs/job/digest", b"y")
    assert disk.stored_object("inputs/job/digest") == b"y"


@in_loop
async def test_put_survives_deletes_that_remove_its_folder(disk: DiskStores) -> None:
    blobs = disk.blobs()

    for _ in range(50):
        await asyncio.gather(
            blobs.put("a/b/x", b"x", create_only=True), blobs.put("a/b/y", b"y"), blobs.delete("a/b/y")
        )
        await asyncio.gather(blobs.put("a/b/y", b"y"), blobs.delete("a/b/x"))


BAD_KEYS = ["", "/etc/passwd", "../up", "a/../b", "a/./b", "a//b", "a/", ".tmp/x", "a\0b", "a b", "ä", "a\n", "x" * 300]


@pytest.mark.parametrize("key", BAD_KEYS)
@in_loop
async def test_strange_key_reaches_no_file(disk: DiskStores, key: str) -> None:
    blobs = disk.blobs()

    with pytest.raises(InvalidRequest):
        await blobs.put(key, b"x")
    with pytest.raises(NotFound):
        await blobs.get(key)
    assert [path for path in disk.folder.rglob("*") if path.is_file()] == []


@in_loop
async def test_file_is_synced_before_and_its_folders_after_it_is_linked(
    disk: DiskStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, told = disk.blobs(), list[str]()
    fsync, link = os.fsync, os.link

    def tell_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(disk.objects)
        told.append("file" if path.parts[:1] == (".tmp",) else str(path))
        fsync(descriptor)

    def tell_link(source: Path, target: Path) -> None:
        link(source, target)
        told.append("link")

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(os, "link", tell_link)
    await blobs.put(KEY, b"x", create_only=True)

    assert told == ["file", "link", "outputs/job", "outputs", "."]


@in_loop
async def test_who_finds_it_stored_can_rely_on_it(disk: DiskStores, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, synced = disk.blobs(), list[int]()
    await blobs.put(KEY, b"x", create_only=True)

    monkeypatch.setattr(os, "fsync", synced.append)
    with pytest.raises(AlreadyExists):
        await blobs.put(KEY, b"x", create_only=True)

    assert len(synced) == 3


def _hang_before(call: str, disk: DiskStores, pipe: "Connection[Any, None]") -> None:
    """Put an object, but stop for ever at `call`."""
    blobs = disk.blobs()

    def hang(*args: Any) -> None:
        pipe.send("there")
        multiprocessing.Event().wait()

    setattr(os, call, hang)
    asyncio.run(blobs.put(KEY, b"half a picture", create_only=True))


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_killed_put_leaves_no_object(disk: DiskStores, call: str) -> None:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=_hang_before, args=(call, disk, theirs))
    child.start()
    assert ours.poll(20), "the child did not get there"

    child.kill()
    child.join()

    assert disk.stored_object(KEY) is None
    assert len(list((disk.objects / ".tmp").iterdir())) == 1


def test_leftovers_are_removed_at_start_when_they_are_old(disk: DiskStores) -> None:
    disk.blobs()
    left, writing = disk.objects / ".tmp/left", disk.objects / ".tmp/writing"
    left.touch()
    writing.touch()
    past = time.time() - LEFTOVER_AGE_S - 60
    os.utime(left, (past, past))

    disk.blobs()

    assert not left.exists()
    assert writing.exists()


def _failing(number: int) -> Callable[..., Any]:
    def fail(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("call", "number", "advice"),
    [
        ("write", errno.ENOSPC, "Free space"),
        ("fsync", errno.EDQUOT, "Free space"),
        ("link", errno.EROFS, "writable"),
        ("fsync", errno.EIO, "Check the disk"),
    ],
)
@in_loop
async def test_put_that_fails_says_what_to_do_and_leaves_nothing(
    disk: DiskStores, monkeypatch: pytest.MonkeyPatch, call: str, number: int, advice: str
) -> None:
    blobs = disk.blobs()

    with monkeypatch.context() as failing:
        failing.setattr(os, call, _failing(number))
        with pytest.raises(TransientError, match=advice):
            await blobs.put(KEY, b"x", create_only=True)

    assert [path for path in disk.folder.rglob("*") if path.is_file()] == []


def test_folder_that_is_a_file_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("not a folder")

    with pytest.raises(UnusableStore, match="must be a folder"):
        FolderBlobs(tmp_path / "blobs")


def test_folder_without_hard_links_is_refused_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _failing(errno.EPERM))

    with pytest.raises(UnusableStore, match="linked"):
        FolderBlobs(tmp_path / "blobs")
