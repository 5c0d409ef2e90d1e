"""Hangs in Python, in C with the interpreter's lock held, or after the head of its response, depending on the path."""

import ctypes
import os
import time


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hang":
        # Unlike CDLL, PyDLL calls a function without releasing the lock.
        ctypes.PyDLL(None).sleep(60)
    if path == "/spin":
        spin(5)
    if path == "/late":
        write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "10")])
        write(b"begun")
        spin(5)
        write(b"ended")
        return []
    data = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
