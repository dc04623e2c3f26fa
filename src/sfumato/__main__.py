"""`python -m sfumato` is the command `sfumato`."""

import sys

__all__ = ["command"]

INTERRUPTED = 130


def command() -> int:
    """The command's exit status. Ctrl-C is no fault, not even while the command is still being loaded."""
    try:
        from sfumato.cli import main

        return main()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(command())
