"""Verbs about the object store: for now, its lifecycle rules."""

import sys
from typing import TYPE_CHECKING

import typer

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


def lifecycle() -> None:
    """Let the bucket itself remove what is older than it is kept."""
    from sfumato.config import load_settings
    from sfumato.storage.lifecycle import set_rules

    settings = load_settings()
    if settings.s3_place is None:
        sys.stdout.write("There is no bucket (SFUMATO_S3_BUCKET); the recorder removes what is old from the folder.\n")
        return
    kept = kept_days(settings)
    if not set_rules(settings.s3_place, kept):
        sys.stdout.write("This store has no lifecycle rules; the recorder removes what is old, as it does anyway.\n")
        return
    for prefix, days in kept.items():
        sys.stdout.write(f"{prefix:<10} {days} days\n")


def kept_days(settings: "Settings") -> dict[str, int]:
    """Prefix → whole days after which the bucket removes what is under it."""
    from sfumato.recorder.sweep import promised
    from sfumato.storage.lifecycle import days

    keep = promised(settings)
    kept = {"outcomes/": days(keep.result_s)} | {prefix: days(kept_s) for prefix, kept_s in keep.objects.items()}
    # A picture is stored before its outcome, S3 counts to midnights: a day more, or an outcome outlives its picture.
    return kept | {"outputs/": kept["outputs/"] + 1}
