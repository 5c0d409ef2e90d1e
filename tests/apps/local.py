"""Counts the requests of a context and of a thread, as far as they have locals of their own."""

import contextvars
import threading
import time

variable = contextvars.ContextVar("variable", default=0)
local = threading.local()
alive = 0


class Count:
    """A number whose end is noticed."""

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
    # Others run between.
    time.sleep(0.001)
    local.count.value += 1
    return in_context()[0], local.count.value


PATHS = {"/context": in_context, "/count": in_both, "/none": lambda: (0, 0)}


def application(environ, start_response):
    path = environ["PATH_INFO"]
    body = str(alive) if path == "/alive" else "%d %d" % PATHS[path]()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body.encode()]
