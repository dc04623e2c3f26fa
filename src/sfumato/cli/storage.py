"""Verbs about the object store: for now, its lifecycle rules."""

import json
import sys
from typing import TYPE_CHECKING

import typer

from sfumato.cli.options import AsJson
from sfumato.cli.verb import Verb, Verbs

if TYPE_CHECKING:
    from sfumato.config import Settings

__all__ = ["add_to", "kept_days"]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    storage = typer.Typer(cls=Verbs, no_args_is_help=True, help="Look after the object store.")
    storage.command(cls=Verb)(lifecycle)
    # Without a verb of its own at this level, the only verb would take the group's place.
    storage.callback()(lambda: None)
    app.add_typer(storage, name="storage", rich_help_panel="Run the service")


def lifecycle(as_json: AsJson = False) -> None:
    """Let the bucket itself remove what is older than it is kept."""
    from sfumato.config import load_settings
    from sfumato.storage.lifecycle import set_rules

    settings = load_settings()
    rules: dict[str, int] = {}
    if settings.s3_place is None:
        said = "There is no bucket (SFUMATO_S3_BUCKET); the recorder removes what is old from the folder."
    elif not set_rules(settings.s3_place, kept_days(settings)):
        said = "This store has no lifecycle rules; the recorder removes what is old, as it does anyway."
    else:
        rules = kept_days(settings)
        said = "\n".join(f"{prefix:<10} {days} days" for prefix, days in rules.items())
    fields = {"bucket": settings.s3_bucket or None, "days": rules}
    sys.stdout.write(f"{json.dumps(fields) if as_json else said}\n")


def kept_days(settings: "Settings") -> dict[str, int]:
    """Prefix → whole days after which the bucket removes what is under it."""
    from sfumato.recorder.sweep import promised
    from sfumato.storage.lifecycle import days

    keep = promised(settings)
    kept = {"outcomes/": days(keep.result_s)} | {prefix: days(kept_s) for prefix, kept_s in keep.objects.items()}
    # A picture is stored before its outcome, S3 counts to midnights: a day more, or an outcome outlives its picture.
    return kept | {"outputs/": kept["outputs/"] + 1}
