"""Gives up a read of the body, and then reads the body in other ways."""

import sys


def timeout(seconds):
    loop = sys.modules.get("gevent") or __import__("eventlet")
    return loop.Timeout(seconds)


def application(environ, start_response):
    source = environ["wsgi.input"]
    waiting = timeout(0.2)
    try:
        with waiting:
            source.read(20000)
        raise AssertionError("the client has sent less")
    except type(waiting) as raised:
        assert raised is waiting
    print("given up", file=environ["wsgi.errors"], flush=True)
    parts = [source.readline(), source.read(9000), source.read(12000), source.readline(), source.read()]
    start_response("200 OK", [])
    return parts
