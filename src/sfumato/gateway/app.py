"""The gateway put together: the ASGI app over given ports, and the process that serves it."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from sfumato.broker.tail import tail
from sfumato.config import Settings
from sfumato.core.errors import SfumatoError
from sfumato.core.events import Event, Unreadable
from sfumato.core.keys import KeyStore, RateCounter
from sfumato.core.links import Links
from sfumato.core.ports import Broker, JobRows, Outcomes
from sfumato.core.scaling import DecisionReader
from sfumato.core.version import VERSION
from sfumato.core.webhooks import WebhookDesk
from sfumato.gateway import compat, page, problems
from sfumato.gateway.compat.dialects import Dialects
from sfumato.gateway.context import Gateway, ObjectStore
from sfumato.gateway.door import OPEN, Door
from sfumato.gateway.events import EventRoutes
from sfumato.gateway.intake import Intake
from sfumato.gateway.jobs import JobRoutes
from sfumato.gateway.keyring import Keyring
from sfumato.gateway.lingering import Lingering
from sfumato.gateway.live import Live
from sfumato.gateway.news import NewsRoutes
from sfumato.gateway.newsroom import Newsroom
from sfumato.gateway.protocol import BoundedHttp
from sfumato.gateway.quotas import POLICIES, Quotas, Rates
from sfumato.gateway.reception import Reception
from sfumato.gateway.remote import RemotePictures
from sfumato.gateway.service import ServiceRoutes
from sfumato.gateway.shared_rates import SharedRates
from sfumato.gateway.shortcut import Shortcut
from sfumato.gateway.submit import SubmitRoutes
from sfumato.gateway.uploads import InFlight
from sfumato.gateway.webhooks import WebhookRoutes
from sfumato.models.registry import Registry
from sfumato.net.addresses import Allowed
from sfumato.observability import begin
from sfumato.process import any_set, begin_role, run, settle_memory
from sfumato.storage.secrets import link_secrets, webhook_secrets
from sfumato.wiring import check_logs, open_counter, open_ports

__all__ = ["create_app", "serve"]

REFRESH_S: Final = 3.0
GRACE_S: Final = 2
log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    registry: Registry,
    broker: Broker,
    blobs: ObjectStore,
    outcomes: Outcomes,
    rows: JobRows,
    scaling: DecisionReader,
    keys: KeyStore,
    webhooks: WebhookDesk,
    clock: Callable[[], float] = time.time,
    counter: RateCounter | None = None,
) -> FastAPI:
    """The gateway as an ASGI app over these ports; `app.state.gateway` is its `Gateway`. Without a `counter` each
    gateway lets its part of a key's requests a second through.

    Raises:
        NoSecret: a secret of links or webhooks is not set, and can't be kept in the data folder.
    """
    live = Live(silent_s=max(settings.takeover_s, 3 * settings.beat_s))
    gateway = Gateway(
        settings=settings,
        registry=registry,
        broker=broker,
        blobs=blobs,
        outcomes=outcomes,
        rows=rows,
        scaling=scaling,
        webhooks=webhooks,
        webhook_allow=Allowed.parse(settings.webhook_allow),
        webhook_secrets=webhook_secrets(settings.webhook_secrets.get_secret_value(), settings.data_dir),
        links=Links(link_secrets(settings.link_secrets.get_secret_value(), settings.data_dir)),
        intake=Intake(broker, blobs, outcomes, rows, settings.job_wait_s),
        live=live,
        newsroom=Newsroom(rows),
        keyring=Keyring(keys),
        quotas=Quotas(keys, live.knows_ended, clock),
        in_flight=InFlight(settings.max_body_bytes_in_flight),
        remote=RemotePictures.of(settings),
        stopping=asyncio.Event(),
        clock=clock,
    )

    shared = None if counter is None else SharedRates(counter, Rates(settings.gateways))
    app = _routed(gateway, shared)
    app.state.gateway = gateway
    return app


def _routed(gateway: Gateway, shared: SharedRates | None) -> FastAPI:
    """All routes, with the door before them."""
    app = FastAPIOffline(
        title="Sfumato",
        description="Image-to-image generation.",
        version=VERSION,
        lifespan=lambda _app: _watching(gateway, shared),
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": None},  # else the page sends its address to a checker on the internet
    )
    reception = Reception(gateway)
    submit = SubmitRoutes(gateway, reception)
    followed = (JobRoutes(gateway), EventRoutes(gateway), NewsRoutes(gateway))
    for routes in (submit, *followed, WebhookRoutes(gateway), ServiceRoutes(gateway)):
        app.include_router(routes.router())
    dialects = compat.install(app, gateway, reception)
    page.install(app, gateway.settings)
    app.add_middleware(Lingering)
    problems.install(app)
    _describe_keys(app)
    inside, settings = Shortcut(app.build_middleware_stack(), submit.hot()), gateway.settings
    door = Door(inside, settings, gateway.keyring, Rates(settings.gateways), gateway.clock, shared)
    app.middleware_stack = Dialects(door, dialects, settings.public_url) if dialects else door
    return app


def _describe_keys(app: FastAPI) -> None:
    """Let the OpenAPI document say where a key goes: wherever the door is not open to everybody."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        described: dict[str, Any] = plain()
        described.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"key": []}, {}]
        for path in OPEN & described["paths"].keys():
            for operation in described["paths"][path].values():
                operation["security"] = []
        return described

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to extend it


@asynccontextmanager
async def _watching(gateway: Gateway, shared: SharedRates | None) -> AsyncIterator[None]:
    """The gateway follows what it must know: the models' events, the list of models, the keys, who counts requests."""
    begin("sfumato_rates_alone_total")
    begin("sfumato_refusals_total", problem="key-in-address")
    for policy in POLICIES:
        begin("sfumato_quota_refusals_total", policy=policy)
    tasks = [asyncio.create_task(_follow_models(gateway)), asyncio.create_task(gateway.newsroom.run())]
    if gateway.settings.auth != "open":
        tasks.append(asyncio.create_task(gateway.keyring.keep_fresh()))
    if shared is not None:
        tasks.append(asyncio.create_task(shared.keep_asking()))
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _follow_models(gateway: Gateway) -> None:
    """Follow each model's event log, and the registry's file for models that come and go."""
    followed: dict[str, asyncio.Task[None]] = {}
    try:
        while not gateway.stopping.is_set():
            slugs = {model.slug for model in gateway.registry}
            for slug in followed.keys() - slugs:
                followed.pop(slug).cancel()
            for slug in slugs - followed.keys():
                followed[slug] = asyncio.create_task(_follow(gateway, slug))
            await any_set(REFRESH_S, gateway.stopping)
            gateway.registry.refresh()
    finally:
        for task in followed.values():
            task.cancel()
        await asyncio.gather(*followed.values(), return_exceptions=True)


async def _follow(gateway: Gateway, slug: str) -> None:
    def take(position: int, event: Event | Unreadable) -> None:
        gateway.live.apply(slug, position, event, time.time())

    await tail(slug, gateway.broker.events(slug), take)


class _Server(uvicorn.Server):
    """A server that tells its app of the end at once, so that callers who wait for a job do not hold it up."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        settle_memory()
        for listener in self.servers:
            for address in (each.getsockname() for each in listener.sockets):
                log.info("Listening on http://%s:%s", *address[:2])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._leave)

    def watch(self, gateway: Gateway) -> None:
        self._loop = asyncio.get_running_loop()
        self._gateway = gateway

    def _leave(self) -> None:
        self._gateway.stopping.set()
        self._gateway.live.release()
        self._gateway.newsroom.ring_all()


def serve(settings: Settings, fd: int | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. `fd` is a listening socket inherited from the parent."""
    begin_role("gateway", settings, http=True)
    # uvicorn raises the signal that stopped it once more when it is done; it has then been answered.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    try:
        return run(_serve(settings, fd))
    except SfumatoError as error:
        log.error("%s: %s", error.title, error.detail)
        return 1


async def _serve(settings: Settings, fd: int | None) -> int:
    registry = Registry.load(settings.models_file, settings.last_models_file)
    async with open_ports(settings) as ports, open_counter(settings) as counter:
        await check_logs(ports.broker, settings, [model.slug for model in registry])
        stores = ports.blobs, ports.outcomes, ports.rows, ports.scaling, ports.keys, ports.webhooks
        app = create_app(settings, registry, ports.broker, *stores, counter=counter)
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            access_log=False,
            log_config=None,
            log_level="warning",
            http=BoundedHttp,
            forwarded_allow_ips=settings.trusted_proxies,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=GRACE_S,
            server_header=False,
        )
        server = _Server(config)
        server.watch(app.state.gateway)
        await server.serve(sockets=None if fd is None else [socket.socket(fileno=fd)])
        return 0 if server.started else 1
