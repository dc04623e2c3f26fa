"""How each verb reads its command line and shows its help: typer's way, in plainer words."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["Lists", "Verb", "Verbs"]


class Verb(TyperCommand):
    """One verb. A flag shows no type in the help, and a wrong value is told without the validator's own prefix."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All options and arguments, as click asks for them."""
        return _flags_without_type(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is left of the command line, as click asks for it."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as wrong:
            wrong.message = wrong.message.removeprefix("Value error, ")
            raise


class Verbs(TyperGroup):
    """Several verbs below one word; its own flags show no type either."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All options, as click asks for them."""
        return _flags_without_type(super().get_params(ctx))


class Lists(Verbs):
    """Verbs of which the bare word is `list`, whose options may follow it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is left of the command line, as click asks for it."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            if verb := next((word for word in args if word in self.commands), ""):
                raise typer.BadParameter(f"write options behind {verb}")
            args = ["list", *args]
        return super().parse_args(ctx, args)


def _flags_without_type(options: list[Any]) -> list[Any]:
    for option in options:
        if getattr(option, "is_flag", False):
            option.metavar = ""  # A flag takes no value, so there is no type to name.
    return options
