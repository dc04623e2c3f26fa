"""A whole gateway over ports in memory: what the HTTP tests talk to, and hands to play the other roles with."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from fastapi import FastAPI
from fastapi.testclient import TestClient

from sfumato.config import load_settings
from sfumato.core.errors import TransientError
from sfumato.core.events import Alive, Ended, JobEvent, Running, Standing, Started, decode_event, new_row
from sfumato.core.job import Job, Outcome, Picture, Problem, State
from sfumato.core.keys import ApiKey, Scope, key_text
from sfumato.core.ports import RowChange
from sfumato.gateway.app import create_app
from sfumato.gateway.context import ObjectStore
from sfumato.models.registry import Registry
from tests.memory_keys import MemoryKeys
from tests.memory_scaling import MemoryScaling
from tests.memory_webhooks import MemoryWebhooks
from tests.sample_pictures import picture
from tests.simulation.memory import MemoryBlobs, MemoryBroker, MemoryOutcomes, MemoryRows, World

__all__ = ["MODEL", "GatewayService", "OpenStream", "gateway_service", "problem"]

MODEL = "quick"
MODELS = """
[models.quick]
backend = "simulated"

[models.small]
backend = "simulated"
max_backlog = 2
"""


class _Faults:
    """Awaited around every effect of the ports; raises where it was told to."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.asked: list[str] = []

    async def __call__(self, what: str) -> None:
        self.asked.append(what)
        if what in self.failing:
            raise TransientError(f"{what} was told to fail")


@dataclass(frozen=True)
class GatewayService:
    """The client, the world behind the gateway, and what is made to fail in it."""

    app: FastAPI
    client: TestClient
    world: World
    faults: _Faults
    scaling: MemoryScaling
    keys: MemoryKeys
    webhooks: MemoryWebhooks

    def submit(self, *, image: bytes | None = None, headers: dict[str, str] | None = None, **query: Any) -> Any:
        """POST /api/diffusion with a good picture and model, unless told otherwise."""
        parameters = {"model_name": MODEL, "prompt": "as a mosaic"} | query
        files = {"image": ("in.png", picture() if image is None else image, "image/png")}
        return self.client.post("/api/diffusion", params=parameters, files=files, headers=headers)

    def accepted(self, **given: Any) -> dict[str, Any]:
        """A submitted job's answer."""
        response: httpx.Response = self.submit(**given)
        assert response.status_code == 202, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def key(self, owner: str = "alice", *scopes: str, **more: Any) -> dict[str, str]:
        """The header that shows a new key of this owner, for `submit` and `read` unless told otherwise."""
        text = key_text(os.urandom(37))
        wanted = [Scope(each) for each in scopes or ("submit", "read")]
        key = ApiKey.of(text, owner, wanted, time.time(), **more)
        self.keys.kept[key.prefix] = key
        self.read_keys()
        return {"Authorization": f"Bearer {text}"}

    def read_keys(self) -> None:
        """Let the gateway read the keys again now."""
        assert self.client.portal is not None
        self.client.portal.call(self.app.state.gateway.keyring.refresh)

    def published(self, model: str = MODEL) -> list[Job]:
        """The messages in the model's jobs log."""
        return [Job.model_validate_json(raw) for raw in self.world.topic(model).jobs]

    def record(self) -> None:
        """Do the recorder's work for jobs: every published one gets its row."""
        for slug in list(self.world.topics):
            for job in self.published(slug):
                self.world.rows.setdefault(job.id, new_row(job))

    def fold(self) -> None:
        """Do the recorder's work: what the logs hold is in the rows, and in what is told of them."""
        changes = []
        for slug in list(self.world.topics):
            changes += [RowChange(job=job) for job in self.published(slug)]
            for position, raw in enumerate(self.world.topic(slug).events, 1):
                if isinstance(event := decode_event(raw), JobEvent):
                    changes.append(RowChange(event=event, position=position))
        assert self.client.portal is not None
        self.client.portal.call(MemoryRows(self.world).record, changes, {})

    def end(self, job_id: str, state: State = State.SUCCEEDED, data: bytes = b"the picture") -> Outcome:
        """Do the worker's work: store a picture, decide the outcome, tell it."""
        made = error = None
        if state is State.SUCCEEDED:
            made = Picture(key=f"outputs/{job_id}/a1b2.png", media_type="image/png", width=64, height=48, size_bytes=11)
            self.world.blobs[made.key] = (data, time.time())
        if state is State.FAILED:
            error = Problem(slug="bad-picture", title="The picture can't be decoded", detail="It is cut off.")
        outcome = Outcome(job_id=job_id, state=state, at=time.time(), picture=made, error=error, seconds={"fetch": 0.1})
        held = self.world.outcomes.setdefault(job_id, outcome)
        event = Ended(job_id=job_id, at=held.at, attempt=0, delivery=0, outcome=held)
        self.world.topic(MODEL).events.append(event.model_dump_json())
        return held

    def end_soon(self, job_id: str, after_s: float = 0.3) -> None:
        """`end`, a moment from now, so that a request can be under way before."""
        threading.Timer(after_s, self.end, [job_id]).start()

    def start(self, job_id: str, step: int = 0, steps: int = 0, preview: int = 0) -> None:
        """Do the worker's work: tell that it started the job and, with `steps`, how far it is and was shown."""
        events = self.world.topic(MODEL).events
        now = time.time()
        events.append(Started(job_id=job_id, at=now, attempt=0, delivery=0, worker="w").model_dump_json())
        if steps:
            running = Running(job_id=job_id, attempt=0, delivery=0, step=step, steps=steps, preview=preview)
            events.append(Alive(at=now, worker="w", slots=1, lanes=(0,), running=(running,)).model_dump_json())

    def stand(self, model: str = MODEL, *, waiting: int, running: int = 0, **changes: Any) -> None:
        """Do the dispatcher's work: tell its standing of a second from now, when it has counted what was accepted."""
        plain: dict[str, Any] = {"slots": 1, "workers": 1, "oldest_created_at": None, "seconds_per_job": 1.0}
        standing = Standing(at=time.time() + 1, waiting=waiting, running=running, **(plain | changes))
        self.app.state.gateway.live.apply(model, 1, standing, time.time())


class OpenStream:
    """A stream of events that is read as it comes, which the test client can't; closed when the block ends."""

    def __init__(self, service: GatewayService, path: str, headers: dict[str, str]) -> None:
        self._app, self._text, self.ended = service.app, "", False
        route, _, query = path.partition("?")
        lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._scope: dict[str, Any] = {
            **{"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1"},
            **{"method": "GET", "scheme": "http", "server": ("testserver", 80), "client": ("testclient", 1)},
            **{"path": route, "raw_path": route.encode(), "query_string": query.encode(), "root_path": ""},
            "headers": [(b"host", b"testserver"), *lines],
        }
        assert service.client.portal is not None
        self._portal = service.client.portal

    def __enter__(self) -> Self:
        self._left = self._portal.call(asyncio.Event)
        self._task = self._portal.start_task_soon(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._portal.call(self._left.set)
        self._task.result(timeout=10)

    async def _run(self) -> None:
        async def receive() -> dict[str, Any]:
            await self._left.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 200, message
            self._text += message.get("body", b"").decode()

        await self._app(self._scope, receive, send)
        self.ended = True

    @property
    def last_id(self) -> str:
        """The id that a client would come back with."""
        return next((line[4:] for line in reversed(self._text.splitlines()) if line.startswith("id: ")), "")

    def events(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(kind, id, data) of what came so far."""
        blocks = [block for block in self._text.split("\n\n")[:-1] if not block.startswith(":")]
        parsed = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
        return [(each["event"], each.get("id", ""), json.loads(each["data"])) for each in parsed]


def problem(response: Any, status: int, slug: str) -> dict[str, Any]:
    """The body of an answer that must be this problem, in the one shape that all have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == f"urn:sfumato:problem:{slug}", body
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


@contextmanager
def gateway_service(
    folder: Path, listed: str = MODELS, blobs: Callable[[World], ObjectStore] = MemoryBlobs, **settings: Any
) -> Iterator[GatewayService]:
    """A gateway whose data folder is `folder`, with `listed` as its models.toml; `settings` go on top of small ones.

    `blobs` makes its object store.
    """
    models = folder / "models.toml"
    models.write_text(listed)
    faults = _Faults()
    world = World(clock=time.time, io=faults)
    stores = MemoryBroker(world), blobs(world), MemoryOutcomes(world), MemoryRows(world)
    plain = {"data_dir": folder, "max_upload_bytes": 200_000, "max_input_pixels": 1_000_000, "max_wait_s": 2.0}
    scaling, keys, webhooks = MemoryScaling(time.time, faults), MemoryKeys(world), MemoryWebhooks(faults)
    app = create_app(load_settings(**(plain | settings)), Registry.load(models), *stores, scaling, keys, webhooks)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield GatewayService(app, client, world, faults, scaling, keys, webhooks)
