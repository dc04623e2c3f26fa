"""Verbs of who runs the service, for the keys with which others ask it."""

import asyncio
import json
import os
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfumato.cli.options import AsJson, AsJsonLines
from sfumato.cli.times import span_s
from sfumato.cli.verb import Verb, Verbs

if TYPE_CHECKING:
    from sfumato.config import Settings
    from sfumato.core.keys import ApiKey, Scope

__all__ = ["add_to"]

DataDir = Annotated[
    Path | None, typer.Option(help="Data folder that holds the database when SFUMATO_DATABASE_URL is not set.")
]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command, below `keys`."""
    keys = typer.Typer(cls=Verbs, help="Make, list and revoke the keys that requests need.", no_args_is_help=True)
    keys.command(cls=Verb)(create)
    keys.command("list", cls=Verb)(list_them)
    keys.command(cls=Verb)(revoke)
    app.add_typer(keys, name="keys", rich_help_panel="Run the service")


def create(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Whose jobs are made with it.")],
    scope: Annotated[str, typer.Option(help="What it is for: submit, read, admin; comma separated.")] = "submit,read",
    expires: Annotated[str, typer.Option(help="After how long it ends, such as 90d or 12h. By default never.")] = "",
    max_priority: Annotated[
        Literal["high", "normal", "low"], typer.Option(help="The most urgent that it may ask for.")
    ] = "high",
    weight: Annotated[
        float,
        typer.Option(min=0.01, max=100, help="Its jobs' share of a model beside others, who have 1; 0.01 to 100."),
    ] = 1.0,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Requests a second. By default without end.")] = None,
    in_flight: Annotated[int | None, typer.Option(min=1, help="Jobs of its owner that have not ended.")] = None,
    per_day: Annotated[int | None, typer.Option(min=1, help="Pixels × steps of its owner from midnight UTC.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    from sfumato.config import load_settings
    from sfumato.core.job import Priority
    from sfumato.core.keys import ApiKey, Quota, key_text

    now, text = time.time(), key_text(os.urandom(37))
    key = ApiKey.of(
        text,
        owner,
        _scopes(scope),
        now,
        max_priority=Priority(max_priority),
        weight=weight,
        quota=Quota(rate, in_flight, per_day),
        expires_at=now + span_s(expires, "--expires") if expires else None,
    )
    settings = load_settings(data_dir=data_dir)
    alone = isinstance(settings.rows_address, Path) and not settings.rows_address.exists()
    asyncio.run(_add(settings, key))
    if alone:
        sys.stderr.write(f"No service has run in {settings.data_dir} yet: one that runs elsewhere knows no such key.\n")
    where = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir else ""
    sys.stderr.write(f"This is shown once. Revoke it with: sfumato keys revoke {key.prefix}{where}\n")
    sys.stdout.write((json.dumps({"key": text} | _fields(key, now)) if as_json else text) + "\n")


def list_them(
    owner: Annotated[str, typer.Option(help="Only this owner's.")] = "",
    as_json: AsJsonLines = False,
    data_dir: DataDir = None,
) -> None:
    """List the keys by their prefixes, oldest first, one a line; never the keys themselves."""
    from sfumato.config import load_settings

    found = asyncio.run(_all(load_settings(data_dir=data_dir)))
    for key in sorted(found, key=lambda each: (each.created_at, each.prefix)):
        if owner in ("", key.owner):
            sys.stdout.write(_told(key, as_json=as_json))
    if not found and not as_json:
        sys.stdout.write("no keys\n")


def revoke(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="As `sfumato keys list` shows it.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """End a key. Gateways refuse it within 30 seconds; its owner's jobs stay."""
    from sfumato.config import load_settings
    from sfumato.core.errors import NotFound
    from sfumato.core.keys import prefix_of

    # Who pastes the whole key has it in a shell's history now, and that is what it is revoked for.
    asked = prefix_of(prefix) or prefix.removeprefix("sfu_").rstrip("_")
    settings = load_settings(data_dir=data_dir)
    key = asyncio.run(_revoke(settings, asked))
    if key is None:
        where = "the database" if settings.database_url else settings.data_dir
        raise NotFound(f"no key in {where} has the prefix {asked[:8]}; see: sfumato keys list")
    sys.stdout.write(_told(key, as_json=as_json))


async def _add(settings: "Settings", key: "ApiKey") -> None:
    from sfumato.wiring import open_keys

    async with open_keys(settings) as store:
        await store.add(key)


def _none_yet(settings: "Settings") -> bool:
    """Whether there is no database; opening it would make one, and who only looks leaves nothing behind."""
    return not settings.database_url and not settings.rows_file.exists()


async def _all(settings: "Settings") -> "list[ApiKey]":
    from sfumato.wiring import look_at_keys

    if _none_yet(settings):
        return []
    async with look_at_keys(settings) as store:
        return list((await store.keys()).values())


async def _revoke(settings: "Settings", prefix: str) -> "ApiKey | None":
    from sfumato.wiring import open_keys

    if _none_yet(settings):
        return None
    async with open_keys(settings) as store:
        return await store.revoke(prefix, time.time())


def _scopes(text: str) -> "frozenset[Scope]":
    from sfumato.core.keys import Scope

    try:
        return frozenset(Scope(each.strip()) for each in text.split(",") if each.strip())
    except ValueError as error:
        raise typer.BadParameter(
            "must be some of submit, read, admin, comma separated", param_hint="--scope"
        ) from error


def _told(key: "ApiKey", *, as_json: bool) -> str:
    now = time.time()
    return f"{json.dumps(_fields(key, now)) if as_json else _line(key, now)}\n"


def _state(key: "ApiKey", now: float) -> str:
    return "revoked" if key.revoked_at is not None else "good" if key.good(now) else "expired"


def _fields(key: "ApiKey", now: float) -> dict[str, object]:
    return {
        "prefix": key.prefix,
        "state": _state(key, now),
        "owner": key.owner,
        "scopes": sorted(key.scopes),
        "max_priority": key.max_priority,
        "weight": key.weight,
        "rate": key.quota.rate,
        "in_flight": key.quota.in_flight,
        "per_day": key.quota.per_day,
        "created_at": _moment(key.created_at),
        "expires_at": _moment(key.expires_at),
        "revoked_at": _moment(key.revoked_at),
    }


def _moment(at: float | None) -> str | None:
    """As the HTTP API tells times: RFC 3339 in UTC with milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(key: "ApiKey", now: float) -> str:
    quota = key.quota
    shown = [
        f"{key.prefix}  {_state(key, now):7}  {key.owner}  {','.join(sorted(key.scopes))}",
        f"made {_day(key.created_at)}",
        f"expires {_day(key.expires_at)}" if key.expires_at is not None else "",
        f"at most {key.max_priority}" if key.max_priority != "high" else "",
        f"weight {key.weight:g}" if key.weight != 1.0 else "",
        f"{quota.rate:g}/s" if quota.rate is not None else "",
        f"{quota.in_flight} in flight" if quota.in_flight is not None else "",
        f"{quota.per_day} a day" if quota.per_day is not None else "",
    ]
    return "  ".join(part for part in shown if part)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
