"""Applications for the tests of guest loops. They use blocking calls to wait."""

import contextvars
import threading
import time

import apps
import rlocks

order = []
local = threading.local()
variable = contextvars.ContextVar("variable", default=None)


def sleeps(environ, start_response):
    order.append("in")
    time.sleep(0.05)
    order.append("out")
    start_response("200 OK", [])
    return [b"slept"]


def in_order(environ, start_response):
    start_response("200 OK", [])
    return [" ".join(order).encode()]


def fresh(environ, start_response):
    seen = getattr(local, "value", None), variable.get()
    local.value = environ["RAW_URI"]
    variable.set(environ["RAW_URI"])
    time.sleep(0.001)
    kept = (local.value, variable.get()) == (environ["RAW_URI"], environ["RAW_URI"])
    start_response("200 OK", [])
    return [repr((seen, kept)).encode()]


def exits(environ, start_response):
    raise SystemExit(3)


def sleeping_parts(environ, start_response):
    start_response("200 OK", [])

    def parts():
        for number in range(3):
            time.sleep(0.001)
            yield b"part %d " % number

    return parts()


def locks(environ, start_response):
    """What differs between the reentrant lock and the one in `threading.py`; their types if they are one."""
    ours, theirs = rlocks.observe(threading.RLock), rlocks.observe(threading._PyRLock)
    seen = {look: (ours[look], theirs[look]) for look in ours if ours[look] != theirs[look]}
    seen = seen or [(ours["alone"], ours["in_turn"]), type(threading.RLock()).__module__, len(ours)]
    start_response("200 OK", [])
    return [repr(seen).encode()]


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").replace("-", "_")
    found = globals().get(name) or getattr(apps, name)
    return found(environ, start_response)
