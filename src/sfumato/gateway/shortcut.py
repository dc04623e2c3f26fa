"""A short way to the routes that thousands ask for each second: past the framework's layers and routing.

The routes stand in the app as all others do, for /docs and for every request that is not quite like these. FastAPI's
way to a handler that reads its request by itself costs as much as a third of the handler, and gives it nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sfumato.gateway import problems
from sfumato.gateway.lingering import Lingering

__all__ = ["Handler", "Shortcut"]

Handler = Callable[[Request], Awaitable[Response]]
METHOD: Final = "POST"


class Shortcut:
    """An ASGI app: a POST to one of these exact paths goes to its handler at once, everything else to `app`.

    Failures are answered as `app` answers them; what is unforeseen is raised behind its answer, for the server to log.
    """

    def __init__(self, app: ASGIApp, handlers: Mapping[str, Handler]) -> None:
        self._app, self._handlers = app, handlers
        self._handle = Lingering(self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hot = scope["type"] == "http" and scope["method"] == METHOD and scope["path"] in self._handlers
        # Below a prefix the path is another one, and the app knows which.
        await (self._handle if hot and not scope.get("root_path") else self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            response = await self._handlers[scope["path"]](request)
        except problems.FORESEEN as error:
            response = problems.failed(request, error)
        except Exception as error:
            await problems.unforeseen(request, error)(scope, receive, send)
            raise
        await response(scope, receive, send)
