"""Verbs about models: those of a running service, and the list that a service on this machine reads."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfumato.cli import completion
from sfumato.cli.options import DEFAULT_URL, AsJson, AsJsonLines, Url, client
from sfumato.cli.verb import Lists, Verb

if TYPE_CHECKING:
    from sfumato.models.list_file import Added

__all__ = ["add_to"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="What jobs call the model.")]
ListedName = Annotated[
    str, typer.Argument(metavar="NAME", help="What jobs call the model.", autocompletion=completion.listed_models)
]
DataDir = Annotated[
    Path | None, typer.Option(help="Data folder whose models.toml is meant. By default ./sfumato-data.")
]
ListFile = Annotated[Path | None, typer.Option("--models", dir_okay=False, help="The models.toml that is meant.")]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command, below `models`; the bare word is its `list`."""
    group = typer.Typer(cls=Lists, help="The models: list those of a service, add one, remove one.")
    group.command("list", cls=Verb)(list_models)
    group.command(cls=Verb)(add)
    group.command(cls=Verb)(remove)
    app.add_typer(group, name="models", rich_help_panel="Make pictures")


def list_models(context: typer.Context, as_json: AsJsonLines = False, url: Url = DEFAULT_URL) -> None:
    """List the models of a service, and what waits for each."""
    from sfumato.cli import show

    with client(context, url) as service:
        found = service.models()
    if as_json:
        for model in found:
            show.line(show.as_json(model))
    else:
        show.show_models(found)


def add(
    name: Name,
    source: Annotated[str, typer.Argument(metavar="PATH|HUB_ID", help="A folder, or a hub's owner/name to fetch.")],
    revision: Annotated[
        str, typer.Option(help="Branch, tag or commit of the hub's model. By default its newest.")
    ] = "",
    backend: Annotated[
        Literal["onnx", "diffusers"] | None, typer.Option(help="What runs it. By default told by its files.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    models: ListFile = None,
) -> None:
    """Add a model to the list in models.toml; a running service takes it up by itself."""
    from sfumato.config import load_settings_before_list
    from sfumato.models.adding import add as add_model

    settings = load_settings_before_list(data_dir=data_dir, models=models)
    file = settings.models_file
    added = add_model(file, name, source, revision=revision, backend=backend or "", cache=settings.models_cache)
    if as_json:
        sys.stdout.write(json.dumps(_fields(added, file)) + "\n")
        return
    sys.stdout.write(f"{_told(added)}\n")
    if added.kept_bundled:
        sys.stdout.write(f"{file} names restyle too now, the bundled model, so that it goes on being served\n")


def remove(name: ListedName, as_json: AsJson = False, data_dir: DataDir = None, models: ListFile = None) -> None:
    """Remove a model from the list in models.toml; its files stay. Jobs that wait for it wait until they expire."""
    from sfumato.config import load_settings_before_list
    from sfumato.models.list_file import remove as remove_model

    file = load_settings_before_list(data_dir=data_dir, models=models).models_file
    left = remove_model(file, name)
    if as_json:
        sys.stdout.write(json.dumps({"name": name, "models_file": str(file), "left": list(left)}) + "\n")
        return
    served = f"left: {', '.join(left)}" if left else "none is left, so the bundled model restyle is served"
    sys.stdout.write(f"removed {name} from {file}; {served}\n")


def _fields(added: "Added", file: Path) -> dict[str, object]:
    from sfumato.models.kind import pipeline_of

    model = added.model
    return {
        "name": model.name,
        "backend": model.backend,
        "path": str(model.path),
        "pipeline": pipeline_of(model.path) or None,
        "shapes": [[shape.width, shape.height] for shape in model.rules.shapes],
        "models_file": str(file),
        "kept_bundled": added.kept_bundled,
    }


def _told(added: "Added") -> str:
    from sfumato.models.kind import pipeline_of

    model = added.model
    shapes = ", ".join(f"{shape.width}x{shape.height}" for shape in model.rules.shapes)
    kind = pipeline_of(model.path) or "a model"
    return (
        f"added {model.name}: {kind}, {model.backend}, shapes {shapes}; "
        "a running service has it in some seconds (sfumato models), else start one: sfumato up"
    )
