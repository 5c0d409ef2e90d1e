"""An application for mypy: all names of the module `jimu` that its stubs promise."""

import logging
from typing import Callable, Iterable

import jimu
import jimu_server

logging.getLogger().addHandler(jimu.HostLogHandler())
PATH: str = jimu_server.executable()


@jimu.on_drain
def drain() -> None:
    assert jimu.is_draining()


def application(environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    return jimu.ALREADY_HANDLED
