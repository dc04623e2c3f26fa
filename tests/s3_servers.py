"""Real object stores for tests: one server of each kind a session, started when first asked for, a bucket a test."""

import dataclasses
import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from sfumato.cluster.minio import minio
from sfumato.cluster.s3 import made, new_place
from sfumato.cluster.seaweedfs import seaweedfs
from sfumato.cluster.server import ServerMissing, free_ports, running
from sfumato.storage.s3_http import ask
from sfumato.storage.s3_place import S3Place
from tests.support import poll

__all__ = ["RECIPES", "S3_SERVERS", "S3Servers", "s3_bucket"]

RECIPES: Final = {"seaweedfs": seaweedfs, "minio": minio}
S3_SERVERS: Final = [pytest.param(name, marks=pytest.mark.server) for name in RECIPES]


class S3Servers:
    """The servers of one test session."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._places: dict[str, S3Place] = {}
        self._numbers = itertools.count()

    def bucket(self, name: str) -> S3Place:
        """An empty bucket of the server with this name, ready for objects.

        Raises:
            ServerMissing: this server is not on this machine.
        """
        if name not in self._places:
            (port,) = free_ports(1)
            place, folder = new_place(port), self._folder / name
            self._stack.enter_context(running(RECIPES[name](folder, place), folder / "log"))
            self._places[name] = place
        place = dataclasses.replace(self._places[name], bucket=f"test-{next(self._numbers)}")
        poll(lambda: made(place) and ask(place, "PUT", "ready").status == 200)
        assert ask(place, "DELETE", "ready").status == 204
        return place


def s3_bucket(request: pytest.FixtureRequest, name: str = "") -> S3Place:
    """A bucket of the server that the test's parameter (or `name`) says; skips where only MinIO is missing."""
    servers: S3Servers = request.getfixturevalue("s3_servers")
    try:
        return servers.bucket(name or request.param)
    except ServerMissing as error:
        # Its project ships no binaries any more, so a fresh machine has none; SeaweedFS comes with the test extra.
        if (name or request.param) != "minio":
            raise
        pytest.skip(error.detail)
