"""The servers that the settings name, and the database of a service on this machine alone."""

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sfumato.cli.doctor.finding import Finding
from sfumato.core.errors import SfumatoError

if TYPE_CHECKING:
    from sfumato.config import Settings

__all__ = ["of"]


def of(settings: "Settings") -> Iterator[Finding]:
    """Each server that is named, asked; the rows; and whether there is a key where others reach the service."""
    from sfumato.wiring import servers_asked

    answered = True
    for name, trouble in asyncio.run(servers_asked(settings)):
        answered = answered and not trouble
        yield Finding("bad" if trouble else "good", name if trouble else f"{name} answers", trouble)
    rows = _rows(settings)
    if rows is not None:
        yield rows
    if answered and (rows is None or rows.state == "good") and settings.auth != "open" and not settings.on_loopback:
        yield _key(settings)


def _rows(settings: "Settings") -> Finding | None:
    """The SQLite file of the rows; None where there is none yet, or a server has them."""
    from sfumato.storage import schema

    file = settings.data_dir / "rows.sqlite"
    try:
        if settings.database_url.get_secret_value() or not file.exists():
            return None
        found = asyncio.run(schema.schema_of(file))
    except SfumatoError as error:
        return Finding("bad", "rows of the jobs", error.detail)
    except OSError as error:
        return Finding("bad", "rows of the jobs", f"{file}: {error.strerror}")
    if "newer version" in found.advice:
        return Finding("bad", f"database {file}", found.advice)
    # Older ones are brought up by who opens them.
    return Finding("good", f"database {file} is at {found.revision}")


def _key(settings: "Settings") -> Finding:
    what = f"others reach {settings.host}, so requests need a key"
    advice = "there is none yet: sfumato keys create OWNER, or SFUMATO_AUTH=open for everybody"
    there = settings.database_url.get_secret_value() or (settings.data_dir / "rows.sqlite").exists()
    if not there or not asyncio.run(_has_key(settings)):
        return Finding("bad", what, advice)
    return Finding("good", f"{what}, and there is one")


async def _has_key(settings: "Settings") -> bool:
    from sfumato.wiring import open_keys

    async with open_keys(settings) as keys:
        return any(key.good(time.time()) for key in (await keys.keys()).values())
