"""Counts the requests of each context and of each thread, in context variables and thread-locals."""

import contextvars
import gc
import threading
import time

variable = contextvars.ContextVar("variable", default=0)
local = threading.local()
alive = 0


class Count:
    """A number. The module counts how many of them are alive."""

    def __init__(self):
        global alive
        alive += 1
        self.value = 0

    def __del__(self):
        global alive
        alive -= 1


def in_context():
    variable.set(variable.get() + 1)
    return variable.get(), 0


def in_both():
    if not hasattr(local, "count"):
        local.count = Count()
    # Lets other greenlets run.
    time.sleep(0.001)
    local.count.value += 1
    return in_context()[0], local.count.value


PATHS = {"/context": in_context, "/count": in_both, "/none": lambda: (0, 0)}


def greenlets():
    """Return the number of greenlets."""
    from greenlet import greenlet

    return sum(isinstance(one, greenlet) for one in gc.get_objects())


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/greenlets":
        body = str(greenlets())
    else:
        body = str(alive) if path == "/alive" else "%d %d" % PATHS[path]()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    # In the forms of Flask, which is an iterator, and of a list.
    return iter([body.encode()]) if path == "/none" else [body.encode()]
