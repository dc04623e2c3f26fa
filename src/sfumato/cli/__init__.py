"""The command `sfumato`: verbs only. Each parses, makes one call and gives an exit status.

0: done. 1: something failed, and why is on standard error. 2: the command line was wrong. 130: interrupted.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from sfumato.cli import (
    bench,
    cluster,
    db,
    dead,
    doctor,
    explain,
    history,
    jobs,
    keys,
    models,
    roles,
    simulate,
    storage,
    streams,
    trace,
    webhooks,
)
from sfumato.cli.options import API_KEY
from sfumato.cli.verb import Verbs
from sfumato.core.errors import SfumatoError
from sfumato.core.version import VERSION

__all__ = ["app", "main"]

INTERRUPTED = 130
JOBS_GO_ON = " Jobs that were accepted go on; see them with: sfumato jobs"
INTERRUPTED_HINTS = {
    ("submit",): JOBS_GO_ON,
    ("watch",): JOBS_GO_ON,
    ("get",): JOBS_GO_ON,
    ("jobs", "purge"): " What is gone is gone; the same command goes on with the rest.",
}
"""First words of a command line → what holds when it was interrupted."""

app = typer.Typer(
    name="sfumato",
    cls=Verbs,
    help="Self-hosted image-to-image diffusion: send a picture and a prompt, get a link to the future picture.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"sfumato {VERSION}\n")
        raise typer.Exit


@app.callback()
def _sfumato(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say which version this is.")
    ] = False,
    # Hidden: a key on a command line is seen by everybody on the machine.
    api_key: Annotated[str, typer.Option("--api-key", envvar="SFUMATO_API_KEY", hidden=True)] = "",
) -> None:
    """Options of the command itself; `version` has done its work when this is called."""
    context.meta[API_KEY] = api_key


jobs.add_to(app)
history.add_to(app)
models.add_to(app)
webhooks.add_to(app)
roles.add_to(app)
cluster.add_to(app)
explain.add_to(app)
dead.add_to(app)
db.add_to(app)
keys.add_to(app)
bench.add_to(app)
simulate.add_to(app)
doctor.add_to(app)
storage.add_to(app)
trace.add_to(app)


def main(arguments: Sequence[str] | None = None, transport: Any = None) -> int:
    """Run one command line (`sys.argv` by default) and give its exit status; `transport` (httpx's) is for tests."""
    streams.opened()
    try:
        return streams.flushed(_status(arguments, transport))
    except KeyboardInterrupt:
        return _interrupted(arguments)
    except SfumatoError as error:
        return _failed(explained(error))
    except OSError as error:
        streams.let_go()
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}")


def _status(arguments: Sequence[str] | None, transport: Any) -> int:
    try:
        app(arguments, prog_name="sfumato", obj=transport)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            return _interrupted(arguments)
        return end.code if isinstance(end.code, int) else 1
    return 0


def _interrupted(arguments: Sequence[str] | None) -> int:
    words = tuple(sys.argv[1:] if arguments is None else arguments)
    hint = INTERRUPTED_HINTS.get(words[:1]) or INTERRUPTED_HINTS.get(words[:2], "")
    sys.stderr.write(f"sfumato: interrupted.{hint}\n")
    return INTERRUPTED


def _failed(why: str) -> int:
    sys.stderr.write(f"sfumato: {why}\n")
    return 1


def explained(error: SfumatoError) -> str:
    """What went wrong and, where it is known, the command that helps."""
    hints = {
        "unreachable": "Is the service running? Start it with: sfumato up\n"
        "If it is elsewhere, say where by --url or SFUMATO_URL.",
        "unauthorized": "This command shows the key that is in SFUMATO_API_KEY.",
    }
    hint = hints.get(getattr(error, "case", error.slug), "")
    return f"{error.detail}\n{hint}".rstrip()
