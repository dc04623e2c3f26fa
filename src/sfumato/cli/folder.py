"""The data folder of a service, for verbs that work on what one left in it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfumato.config import Settings

__all__ = ["see_that_a_service_ran"]


def see_that_a_service_ran(settings: "Settings", *, elsewhere: object) -> None:
    """Refuse a data folder on which none did; `elsewhere`: whether the servers hold everything, so that none is needed.

    Raises:
        NotFound: there is no database in the folder. Opening the stores would make some, and find nothing in them.
    """
    from sfumato.core.errors import NotFound

    folder = settings.data_dir.absolute()
    if not elsewhere and not any(folder.glob("*.sqlite")):
        raise NotFound(f"no service ever ran on the folder {folder}; name the service's own with --data-dir.")
