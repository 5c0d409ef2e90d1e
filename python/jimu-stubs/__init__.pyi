"""The module `jimu`, which the server provides to applications and hooks."""

import logging
from typing import Callable, Final, Iterable, TypeVar

_Function = TypeVar("_Function", bound=Callable[[], object])

ALREADY_HANDLED: Final[Iterable[bytes]]
"""Return value for an application that has responded directly on environ["gunicorn.socket"]."""

class HostLogHandler(logging.Handler):
    """Logging handler that writes records to the server's error log."""

    def emit(self, record: logging.LogRecord) -> None: ...

def is_draining() -> bool:
    """Return whether this worker has stopped accepting connections and finishes those that it has."""

def on_drain(function: _Function) -> _Function:
    """Call `function` when this worker begins to drain, or now if it already drains. Can be used as a decorator."""
