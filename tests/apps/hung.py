"""Hangs in C with the interpreter's lock held, when it is asked to."""

import ctypes
import os


def application(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        # Unlike CDLL, PyDLL calls a function without giving the lock back.
        ctypes.PyDLL(None).sleep(60)
    data = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]
