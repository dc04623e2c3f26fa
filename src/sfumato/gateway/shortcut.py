"""A short way to the routes that thousands ask for each second: past the framework's routing and dependencies.

The routes stand in the app as all others do, for /docs and for every request that is not quite like these. FastAPI's
way to a handler that reads its request by itself costs as much as a third of the handler, and gives it nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sfumato.gateway import problems

__all__ = ["Handler", "Shortcut"]

Handler = Callable[[Request], Awaitable[Response]]
METHOD: Final = "POST"


class Shortcut:
    """ASGI middleware: a POST to one of these exact paths goes to its handler at once, failures answered as problems.

    What is unforeseen is raised, for the app's outermost layer to answer.
    """

    def __init__(self, app: ASGIApp, handlers: Mapping[str, Handler]) -> None:
        self._app, self._handlers = app, handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == METHOD else None
        # Below a prefix the path is another one, and the app knows which.
        if handler is None or scope.get("root_path"):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except problems.FORESEEN as error:
            response = problems.failed(request, error)
        await response(scope, receive, send)
