"""From settings to ports: the one place that chooses which broker and which stores a role talks to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sfumato.broker.sqlite import SqliteBroker
from sfumato.config import Settings
from sfumato.core.ports import Broker
from sfumato.storage.blobs import FolderBlobs
from sfumato.storage.database import Database
from sfumato.storage.jobs import SqlJobs
from sfumato.storage.outcomes import SqliteOutcomes

__all__ = ["Ports", "open_ports"]


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a role may talk to; each role takes what its signature names."""

    broker: Broker
    blobs: FolderBlobs
    outcomes: SqliteOutcomes
    rows: SqlJobs


@asynccontextmanager
async def open_ports(settings: Settings) -> AsyncIterator[Ports]:
    """Open the embedded stores in `settings.data_dir`, close them at the end.

    Raises:
        SfumatoError: the folder can't be used; the message says why.
    """
    folder = settings.data_dir
    blobs = FolderBlobs(folder / "blobs")
    async with Database.open(folder / "rows.sqlite") as rows, SqliteOutcomes(folder / "outcomes.sqlite") as outcomes:
        broker = SqliteBroker(folder, takeover_s=settings.takeover_s)
        try:
            yield Ports(broker, blobs, outcomes, SqlJobs(rows))
        finally:
            await broker.close()
