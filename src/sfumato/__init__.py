"""Sfumato: self-hosted image-to-image diffusion.

`import sfumato` loads nothing heavy: each name is fetched from its module when it is first asked for (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING

from sfumato.core.version import VERSION

if TYPE_CHECKING:
    from sfumato.client import (
        AlreadyEnded,
        AsyncClient,
        BadAnswer,
        Busy,
        Client,
        DeliveryInfo,
        InvalidRequest,
        JobFailed,
        JobInfo,
        ModelInfo,
        NotFound,
        Result,
        SfumatoError,
        TransientError,
        UnknownModel,
        Unreachable,
        WaitTimeout,
        WebhookInfo,
    )

__all__ = [
    "AlreadyEnded",
    "AsyncClient",
    "BadAnswer",
    "Busy",
    "Client",
    "DeliveryInfo",
    "InvalidRequest",
    "JobFailed",
    "JobInfo",
    "ModelInfo",
    "NotFound",
    "Result",
    "SfumatoError",
    "TransientError",
    "UnknownModel",
    "Unreachable",
    "WaitTimeout",
    "WebhookInfo",
]

__version__ = VERSION


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'sfumato' has no attribute {name!r}")
    return getattr(import_module("sfumato.client"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
