"""Log lines with what they are about: one line an event, for people or for machines."""

import contextvars
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["REPEATED_AFTER_S", "Seldom", "bound_log", "setup_logging"]

REPEATED_AFTER_S: Final = 5.0
"""A warning that says the same again and again is logged so often, however often it is said."""
SAYS_OF_MODELS: Final = ("up", "cluster", "gateway")

_bound: contextvars.ContextVar[tuple[tuple[str, str], ...]] = contextvars.ContextVar("bound", default=())


@contextmanager
def bound_log(**fields: str) -> Iterator[None]:
    """Every line logged inside carries `fields` (job, model, worker)."""
    token = _bound.set((*_bound.get(), *fields.items()))
    try:
        yield
    finally:
        _bound.reset(token)


class _Lines(logging.Formatter):
    def __init__(self, role: str, form: str) -> None:
        super().__init__()
        self.role, self.form = role, form

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        trouble = self.formatException(record.exc_info) if record.exc_info else ""
        fields = dict(_bound.get())
        if self.form == "json":
            line = {"at": stamp, "level": record.levelname.lower(), "role": self.role, "message": record.getMessage()}
            return json.dumps(line | fields | ({"trouble": trouble} if trouble else {}))
        tail = "".join(f" {name}={value}" for name, value in fields.items())
        text = f"{stamp} {record.levelname.lower():7} {self.role:10} {record.getMessage()}{tail}"
        return f"{text}\n{trouble}" if trouble else text


class Seldom(logging.Filter):
    """Lets one record of a kind through every REPEATED_AFTER_S, with how many like it were held back before it."""

    def __init__(self, kind: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._kind = kind
        self._last: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        kind, now = self._kind(record), record.created
        at, held_back = self._last.get(kind, (0.0, 0))
        if now - at < REPEATED_AFTER_S:
            self._last[kind] = (at, held_back + 1)
            return False
        self._last = {other: seen for other, seen in self._last.items() if now - seen[0] < 2 * REPEATED_AFTER_S}
        self._last[kind] = (now, 0)
        if held_back:
            record.msg, record.args = f"{record.getMessage()} ({held_back} more like it)", ()
        return True


def _text(record: logging.LogRecord) -> str:
    return f"{record.getMessage()} {_bound.get()} {record.exc_info and record.exc_info[1]!r}"


def setup_logging(role: str, level: str, form: str) -> None:
    """Log to standard error, one line an event, each with time, level and role; what is repeated now and then."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(role, form))
    # What is wrong with the list of models is said once, not by every process that reads it.
    handler.addFilter(lambda record: role in SAYS_OF_MODELS or not record.name.startswith("sfumato.models"))
    handler.addFilter(Seldom(_text))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("alembic", "aiosqlite", "PIL"):
        logging.getLogger(chatty).setLevel("WARNING")
