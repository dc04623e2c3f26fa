"""Other services' protocols, spoken to their unmodified clients.

Each is a pure translation: what a client asks for becomes ordinary jobs by the one reception, and what is known of them
is told in the client's words. The gateway does not know that they exist: `app` adds their routes to its own and puts
`Dialects` before its door.
"""

from fastapi import FastAPI

from sfumato.gateway.compat import model_list
from sfumato.gateway.compat.automatic1111.lists import Automatic1111Lists
from sfumato.gateway.compat.automatic1111.routes import DIALECT as AUTOMATIC1111
from sfumato.gateway.compat.automatic1111.routes import Automatic1111Routes
from sfumato.gateway.compat.dialects import Dialect
from sfumato.gateway.compat.model_list import ModelList
from sfumato.gateway.compat.openai import DIALECT as OPENAI
from sfumato.gateway.compat.openai import OpenAIRoutes
from sfumato.gateway.compat.replicate.files import FILES_DIALECT, ReplicateFiles
from sfumato.gateway.compat.replicate.models import ReplicateModels
from sfumato.gateway.compat.replicate.predictions import DIALECT as REPLICATE
from sfumato.gateway.compat.replicate.predictions import ReplicateRoutes
from sfumato.gateway.context import Gateway
from sfumato.gateway.reception import Reception

__all__ = ["install"]


def install(app: FastAPI, gateway: Gateway, reception: Reception) -> list[Dialect]:
    """Add the routes of the protocols that are switched on; how each of them tells its failures."""
    spoken = gateway.settings.protocols.split(",")
    dialects: list[Dialect] = []
    if "automatic1111" in spoken:
        for spoken_here in (Automatic1111Routes(gateway, reception), Automatic1111Lists(gateway, reception)):
            app.include_router(spoken_here.router())
        dialects.append(AUTOMATIC1111)
    if "openai" in spoken:
        app.include_router(OpenAIRoutes(gateway, reception).router())
        dialects.append(OPENAI)
    if "replicate" in spoken:
        for routes in (ReplicateRoutes(gateway, reception), ReplicateModels(gateway), ReplicateFiles(gateway)):
            app.include_router(routes.router())
        dialects += [REPLICATE, FILES_DIALECT]
    if "openai" in spoken or "replicate" in spoken:
        app.include_router(ModelList(gateway, spoken).router())
        dialects += model_list.shared(spoken)
    return dialects
