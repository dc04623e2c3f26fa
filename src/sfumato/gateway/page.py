"""The page at `/`: files of this package as they are, without a build step and without anything from elsewhere."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from sfumato.config import Settings

__all__ = ["FILES", "install", "policy"]

FILES: Final = Path(__file__).parent / "static"


def install(app: FastAPI, settings: Settings) -> None:
    """Serve the page at `/` and what it consists of below `/static/`."""
    headers = {
        "Content-Security-Policy": policy(settings),
        "Cache-Control": "no-cache",  # kept, and asked for anew: after an upgrade no half of an old page is left
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "same-origin",  # links carry their token
        "X-Content-Type-Options": "nosniff",
    }
    files = _Files(headers)

    async def page(request: Request) -> Response:
        """The page, for people; everything that it does goes over the other routes."""
        return await files.get_response("index.html", request.scope)

    app.add_api_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", files, name="static")


def policy(settings: Settings) -> str:
    """The page's Content-Security-Policy (W3C CSP 3): scripts, styles and data from here alone.

    Results also from the object store, where they are delivered by a link into it.
    """
    store = urlsplit(settings.s3_public_url)
    pictures = f" {store.scheme}://{store.netloc}" if store.netloc and settings.result_delivery == "redirect" else ""
    rules = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": f"'self' blob: data:{pictures}",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


class _Files(StaticFiles):
    """Static files that carry these headers."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(directory=FILES)
        self._headers = headers

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response
