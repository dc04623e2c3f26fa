"""The benchmark decorator: how long each call took and how much memory its process has had, one line a call."""

import fcntl
import functools
import inspect
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

__all__ = ["benchmark"]

P = ParamSpec("P")
R = TypeVar("R")


def benchmark(model_name: str, file: Path | None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for functions and coroutine functions: each call appends a line to `file`.

    The line is `model name;seconds;memory in MiB`, memory being the process's peak resident set so far. Lines of
    several processes never mix: one write under a lock. With `file` None the function is returned as it is. A call
    that raises is not recorded.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if file is None:
            return function
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def measured_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                begin = time.perf_counter()
                result = await function(*args, **kwargs)
                _append(file, model_name, time.perf_counter() - begin)
                return result

            return cast("Callable[P, R]", measured_async)

        @functools.wraps(function)
        def measured(*args: P.args, **kwargs: P.kwargs) -> R:
            begin = time.perf_counter()
            result = function(*args, **kwargs)
            _append(file, model_name, time.perf_counter() - begin)
            return result

        return measured

    return decorate


def _append(file: Path, model_name: str, seconds: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
    name = model_name.replace(";", ",").replace("\n", " ")
    with file.open("ab", buffering=0) as stream:
        # O_APPEND alone keeps short writes whole on local disks; the lock keeps them whole on network folders too.
        fcntl.flock(stream, fcntl.LOCK_EX)
        os.write(stream.fileno(), f"{name};{seconds:.6f};{mib:.1f}\n".encode())
