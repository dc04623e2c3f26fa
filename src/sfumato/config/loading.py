"""Settings read from the environment, or a sentence about each that has a value it can't have."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sfumato.config.settings import Settings
from sfumato.core.errors import SfumatoError
from sfumato.core.wording import plainly

__all__ = ["BadSettings", "load_settings", "load_settings_before_list"]


class BadSettings(SfumatoError):
    """A setting has a value it can't have; the message names the variable."""

    slug = "bad-settings"
    title = "A setting has a value it can't have"


def load_settings(**given: object) -> Settings:
    """Settings from the environment, with `given` (command line options that are not None) on top.

    Raises:
        BadSettings: a value is wrong; the message names every wrong variable and what it must be.
    """
    settings = load_settings_before_list(**given)
    if trouble := settings.trouble_with_models:
        raise BadSettings(trouble)
    return settings


def load_settings_before_list(**given: object) -> Settings:
    """As `load_settings`, but a list of models that is named need not be there yet.

    Raises:
        BadSettings: as in `load_settings`.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        said = "; ".join(_said(problem) for problem in error.errors())
        raise BadSettings(f"{said}. See docs/settings.md.") from error


def _said(problem: Mapping[str, Any]) -> str:
    name = "_".join(str(part) for part in problem["loc"]).removeprefix("sfumato_")
    if not name:
        return plainly(problem)
    field = Settings.model_fields.get(name)
    return f"SFUMATO_{name.upper()}: {plainly(problem, field and field.default)}"
