"""The command's standard streams, whatever a shell made of them: closed, a pipe nobody reads, an old encoding."""

import io
import os
import sys

__all__ = ["flushed", "let_go", "opened"]


def opened() -> None:
    """Give each standard stream that is closed (`>&-`) a place that keeps nothing, and let none refuse a character."""
    # In this order each is given the lowest free number, its own; else the next socket would be standard output.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # ✓ and → are no ASCII, and some terminals' encodings are.


def flushed(status: int) -> int:
    """The exit status once all is written: `status`, or 1 where that can't be.

    Raises:
        OSError: standard output can't take it, but for a pipe whose reader has gone, who wants no more of it.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout)
        return status or 1
    except OSError:
        _drop(sys.stdout)
        raise
    return status


def let_go() -> None:
    """Drop what standard output did not take: Python would try again when it ends, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop(sys.stdout)


def _drop(stream: object) -> None:
    """Let what is left in the stream go, or Python complains of it when it ends."""
    if isinstance(stream, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
