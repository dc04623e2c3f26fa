"""The benchmarks over real servers, with plans so small that they only show that everything works."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.bench import accept, dispatch, gateways
from sfumato.cluster.s3 import new_place
from sfumato.cluster.server import free_ports, running
from sfumato.core.errors import AlreadyExists, NotFound
from sfumato.storage.s3 import S3Blobs
from sfumato.storage.s3_place import S3Place

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]


def test_accepting_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "accept.json"

    table = accept.run(file, accept.Plan(connections=4, seconds=1.0, rounds=1, slow=20, slow_bytes=20_000))

    told = json.loads(file.read_text())
    assert table.row_count == 5
    assert [(row["what"], row["store"], row["gateway"]) for row in told["rows"]] == [
        ("50 KB multipart", "answers at once", "usual"),
        ("50 KB multipart", "answers at once", "sfumato"),
        ("50 KB multipart", "SeaweedFS", "usual"),
        ("50 KB multipart", "SeaweedFS", "sfumato"),
        ("JSON, small picture", "answers at once", "sfumato"),
    ]
    assert all(row["per_s"] > 0 and row["cpu_ms"] > 0 and 0 < row["p50_ms"] <= row["p99_ms"] for row in told["rows"])
    assert (told["slow"]["accepted"], told["slow"]["refused"]) == (20, 0)


def test_handing_out_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "dispatch.json"

    table = dispatch.run(file, dispatch.Plan(jobs=300, waiting=500, hops=10))

    rows = json.loads(file.read_text())
    assert table.row_count == len(rows) == 7
    assert [row["wanted"] for row in rows] == ["", "", "", "≤ 8", "≥ 5,000", "", "≤ 10"]
    # What is a difference may be nothing, or less: these few jobs can be taken over before the session timeout is out.
    assert all(row["figure"] > 0 for row in rows if not row["wanted"].startswith("≤"))


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[S3Place]:
    (port,) = free_ports(1)
    with running(gateways.stub(port), tmp_path / "stub.log"):
        yield new_place(port)


def test_the_stub_keeps_what_is_created_and_refuses_a_second_create(stub: S3Place) -> None:
    async def ask() -> None:
        async with S3Blobs.open(stub) as blobs:
            await blobs.put("requests/1", b"first", create_only=True)
            with pytest.raises(AlreadyExists):
                await blobs.put("requests/1", b"second", create_only=True)
            assert await blobs.get("requests/1") == b"first"
            assert (await blobs.head("requests/1")).size_bytes == 5
            await blobs.delete("requests/1")
            with pytest.raises(NotFound):
                await blobs.get("requests/1")

    asyncio.run(ask())


def test_the_stub_forgets_what_is_merely_put(stub: S3Place) -> None:
    async def ask() -> None:
        async with S3Blobs.open(stub) as blobs:
            await blobs.put("inputs/1", bytes(100_000))
            await blobs.put("inputs/1", bytes(100_000))
            with pytest.raises(NotFound):
                await blobs.get("inputs/1")

    asyncio.run(ask())


def test_the_gateways_are_told_the_same_servers(tmp_path: Path) -> None:
    place = new_place(1)
    ours = gateways.ours(tmp_path / "ours", 2, "kafka:3", place)
    usual = gateways.usual(2, "kafka:3", place)
    assert ours.environment["SFUMATO_KAFKA_SERVERS"] in usual.command
    assert ours.environment["SFUMATO_S3_ENDPOINT"] in usual.command
