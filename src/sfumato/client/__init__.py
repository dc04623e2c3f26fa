"""The Python client: sans-I/O conversations (`flows`) and two thin shells, `Client` and `AsyncClient`."""

from sfumato.client.async_client import AsyncClient
from sfumato.client.client import Client
from sfumato.client.errors import (
    AlreadyEnded,
    BadAnswer,
    Busy,
    InvalidRequest,
    JobFailed,
    NotFound,
    SfumatoError,
    TransientError,
    UnknownModel,
    Unreachable,
    WaitTimeout,
)
from sfumato.client.views import DeliveryInfo, JobInfo, ModelInfo, Result, WebhookInfo

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
