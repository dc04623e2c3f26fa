"""The servers that the settings name, and the database of a service on this machine alone."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from sfumato.cli.doctor.finding import Finding
from sfumato.core.errors import SfumatoError

if TYPE_CHECKING:
    from sfumato.config import Settings

__all__ = ["of"]

Keys = Literal["asked", "none", "unknown"]


def of(settings: "Settings") -> Iterator[Finding]:
    """Each server that is named, asked; the rows; and whether there is a key where others reach the service."""
    from sfumato.wiring import servers_asked

    answered = True
    for name, trouble in asyncio.run(servers_asked(settings)):
        answered = answered and not trouble
        yield Finding("bad" if trouble else "good", name if trouble else f"{name} answers", trouble)
    rows, keys = _rows(settings)
    if rows is not None:
        yield rows
    if answered and keys != "unknown" and settings.auth != "open" and not settings.on_loopback:
        yield _key(settings, keys)


def _rows(settings: "Settings") -> tuple[Finding | None, Keys]:
    """The SQLite file of the rows (None where there is none yet, or a server has them), and whether it can have keys.

    An older file is not asked for any: bringing it up for that would change it, perhaps below a service that runs.
    """
    from sfumato.storage import schema

    file = settings.rows_file
    try:
        if settings.database_url.get_secret_value():
            return None, "asked"
        if not file.exists():
            return None, "none"
        found = asyncio.run(schema.schema_of(file))
    except (SfumatoError, OSError) as error:
        why = error.detail if isinstance(error, SfumatoError) else f"{file}: {error.strerror}"
        return Finding("bad", "rows of the jobs", why), "unknown"
    if found.newer:
        return Finding("bad", f"database {file}", found.advice), "unknown"
    if found.revision is None:
        return Finding("good", f"database {file} is empty", "its tables will be made"), "none"
    advice = "its schema is old; who starts a service of this version brings it up" if found.advice else ""
    return Finding("good", f"database {file} is at {found.revision}", advice), "unknown" if advice else "asked"


def _key(settings: "Settings", keys: Keys) -> Finding:
    what = f"others reach {settings.host}, so requests need a key"
    advice = "there is none yet: sfumato keys create OWNER, or SFUMATO_AUTH=open for everybody"
    try:
        there = keys == "asked" and asyncio.run(_has_key(settings))
    except SfumatoError as error:
        return Finding("bad", "keys", error.detail)
    return Finding("good", f"{what}, and there is one") if there else Finding("bad", what, advice)


async def _has_key(settings: "Settings") -> bool:
    from sfumato.supervisor.place import has_good_key
    from sfumato.wiring import look_at_keys

    async with look_at_keys(settings) as keys:
        return await has_good_key(keys)
