"""The environment itself: what children get of it, and what in it is ours by name and read by nobody."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from sfumato.config.settings import Settings
from sfumato.observability import sharing

__all__ = ["child_environment", "inherited_environment", "metrics_shared_in", "unknown_variables"]

PREFIX: Final = "SFUMATO_"
OF_THE_COMMAND: Final = frozenset({"SFUMATO_API_KEY", "SFUMATO_URL"})
"""Read by verbs that speak to a service, which have no settings."""
OF_KUBERNETES: Final = re.compile(r"SFUMATO_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
"""What every container gets that starts beside a Service called sfumato, whether it is wanted or not."""
LINK: Final = re.compile(r"(tcp|udp|sctp)://")
NEAR: Final = 0.65


def inherited_environment() -> dict[str, str]:
    """This process's environment, for a child that is none of our roles."""
    return dict(os.environ)


def child_environment(settings: Settings, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with `settings` written into it, for a child that must see the same ones.

    What nothing of ours reads is left out, so that the parent alone warns of it.
    """
    strays = unknown_variables()
    environment = {name: value for name, value in os.environ.items() if name not in strays}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is None:
            continue
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        environment[f"{PREFIX}{name.upper()}"] = str(plain)
    if settings.metrics_dir is not None:
        # prometheus_client reads its own variable when it is first imported, so the parent sets it for the child.
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(settings.metrics_dir)
    return environment | dict(extra or {})


def unknown_variables() -> Mapping[str, str]:
    """The variables SFUMATO_… that nothing reads, each with what to tell of it: mistyped ones have no other effect."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | OF_THE_COMMAND
    strays = {
        name
        for name, value in os.environ.items()
        if name.startswith(PREFIX) and name not in known and not OF_KUBERNETES.fullmatch(name) and not LINK.match(value)
    }
    return {name: _told(name, known) for name in sorted(strays)}


@contextmanager
def metrics_shared_in(folder: Path) -> Iterator[None]:
    """This process's own metrics lie in `folder` too, as those of the children that it starts meanwhile do."""
    before = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    try:
        with sharing():
            yield
    finally:
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR")
        if before is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = before


def _told(name: str, known: set[str]) -> str:
    # Without the prefix, which is alike in all and would make everything near.
    rest = {each.removeprefix(PREFIX): each for each in sorted(known)}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), rest, n=1, cutoff=NEAR)
    meant = f"is {rest[near[0]]} meant?" if near else "docs/settings.md lists what there is."
    return f"{name} is no setting and is ignored; {meant}"
