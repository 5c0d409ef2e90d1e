"""Gives up a read of the body, and then reads the body in other ways; or a `write()` to a client that does not read."""

import sys


def timeout(seconds):
    loop = sys.modules.get("gevent") or __import__("eventlet")
    return loop.Timeout(seconds)


def give_up(environ, operation):
    waiting = timeout(0.2)
    try:
        with waiting:
            operation()
        raise AssertionError("the client has done its part")
    except type(waiting) as raised:
        assert raised is waiting
    print("given up", file=environ["wsgi.errors"], flush=True)


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/write"):
        body = bytes(64 << 20)
        length = [("Content-Length", str(len(body)))]
        write = start_response("200 OK", length if path == "/write-length" else [])
        give_up(environ, lambda: write(body))
        return [b"the rest"] if path == "/write-rest" else []
    source = environ["wsgi.input"]
    give_up(environ, lambda: source.read(20000))
    parts = [source.readline(), source.read(9000), source.read(12000), source.readline(), source.read()]
    start_response("200 OK", [])
    return parts
