"""How each verb reads its command line and shows its help: typer's way, in plainer words."""

import difflib
from itertools import pairwise
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["Lists", "Verb", "Verbs"]

ALIKE: Final = 0.7
"""How alike a word must be to be meant: `lst` is list, and is not cluster."""
EXAMPLES: Final = {"per_day": 5_000_000_000, "port": 8000, "rate": 2.5, "weight": 2, "seed": 7, "strength": 0.5}
"""Numbers that would do, by the option's name, where some number alone would not help."""


class Verb(TyperCommand):
    """One verb. A flag shows no type in the help, and what is wrong with a value is told in plain words."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All options and arguments, as click asks for them."""
        return _flags_without_type(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is left of the command line, as click asks for it."""
        _refuse_empty_folder(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as wrong:
            wrong.message = _plain(wrong)
            raise


class Verbs(TyperGroup):
    """Several verbs below one word; its own flags show no type either."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All options, as click asks for them."""
        return _flags_without_type(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that the first word names; an unknown one is refused with those that may be meant."""
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}.{self._meant(args[0])}")
        return super().resolve_command(ctx, args)

    def _meant(self, word: str) -> str:
        near = difflib.get_close_matches(word, list(self.commands), cutoff=ALIKE)
        if not near:
            # None of its own; perhaps one of a group, such as `list`.
            inner = [(name, verb) for name, group in self.commands.items() for verb in getattr(group, "commands", ())]
            found = difflib.get_close_matches(word, {verb for _, verb in inner}, n=1, cutoff=ALIKE)
            near = [f"{name} {verb}" for name, verb in inner if verb in found]
        return f" Did you mean {', '.join(map(repr, near))}?" if near else ""


class Lists(Verbs):
    """Verbs of which the bare word is `list`, whose options may follow it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is left of the command line, as click asks for it."""
        # While a shell completes it, the line is not whole: its next word may be another verb.
        whole = args or not ctx.resilient_parsing
        if whole and (not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)):
            if verb := next((word for word in args if word in self.commands), ""):
                raise typer.BadParameter(f"write options behind {verb}")
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """What may stand there next: a verb, or an option of `list`."""
        found = super().shell_complete(ctx, incomplete)
        if not incomplete.startswith("-"):
            return found
        with self.commands["list"].make_context("list", [], parent=ctx, resilient_parsing=True) as of_list:
            return of_list.command.shell_complete(of_list, incomplete)


def _refuse_empty_folder(args: list[str]) -> None:
    # A path that is empty would be the folder one is in, and is mostly a variable that has no value.
    if ("--data-dir", "") in pairwise(args) or "--data-dir=" in args:
        raise typer.BadParameter("is empty; name a folder (. is the one you are in)", param_hint="--data-dir")


def _plain(wrong: typer.BadParameter) -> str:
    errors = getattr(wrong.__cause__, "errors", None)
    if errors is None:
        return wrong.message
    from sfumato.core.wording import plainly

    # Of several things wrong the first is told; the next attempt tells the next.
    return plainly(errors()[0], EXAMPLES.get(getattr(wrong.param, "name", ""), 20))


def _flags_without_type(options: list[Any]) -> list[Any]:
    for option in options:
        if getattr(option, "is_flag", False):
            option.metavar = ""  # A flag takes no value, so there is no type to name.
    return options
