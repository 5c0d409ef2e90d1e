"""Responses whose headers and bodies do not match, or whose headers were copied from an upstream server."""

import io
import os
import tempfile
import time

closed = []


class Parts:
    def __init__(self, *parts):
        self.parts = parts

    def __iter__(self):
        return iter(self.parts)

    def close(self):
        closed.append("parts: closed")


def upstream(environ, start_response):
    headers = [("Connection", "X-Hop"), ("Keep-Alive", "timeout=5"), ("Transfer-Encoding", "chunked"),
               ("Upgrade", "h2c"), ("TE", "trailers"), ("Proxy-Connection", "keep-alive"),
               ("Trailer", "X-Checksum"), ("Proxy-Authenticate", "Basic")]
    start_response("200 OK", headers)
    return iter([b"passed ", b"on"])


class Waiting(Parts):
    """Its close() waits until a file exists."""

    def __init__(self, path, *parts):
        super().__init__(*parts)
        self.path = path

    def close(self):
        until = time.monotonic() + 10
        while not os.path.exists(self.path) and time.monotonic() < until:
            time.sleep(0.01)
        closed.append(self.path if os.path.exists(self.path) else "held up")


def close_waits(environ, start_response):
    kind = environ["QUERY_STRING"]
    if kind == "empty":
        start_response("204 No Content", [])
        return Waiting(kind)
    length = {"small": 4, "large": 400000, "chunked": 4}[kind]
    start_response("200 OK", [] if kind == "chunked" else [("Content-Length", str(length))])
    return Waiting(kind, b"x" * length)


def closes(environ, start_response):
    start_response("200 OK", [("Connection", "close")])
    return [b"over"]


def long_list(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"0123456789"]


def long_parts(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return Parts(b"012", b"3456", b"789")


def long_file(environ, start_response):
    path = os.path.join(tempfile.mkdtemp(), "file")
    with open(path, "wb") as file:
        file.write(b"0123456789")
    start_response("200 OK", [("Content-Length", "5")])
    return environ["wsgi.file_wrapper"](open(path, "rb"))


def long_file_like(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"0123456789"), 3)


def long_write(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "5")])
    write(b"0123")
    try:
        write(b"4567")
    except ValueError:
        return [b"4"]
    return [b"x"]


def short_parts(environ, start_response):
    start_response("200 OK", [("Content-Length", "9")])
    return iter([b"012", b"345"])


def list_(environ, start_response):
    start_response("200 OK", [])
    return [b"one ", b"two"]


def headers(environ, start_response):
    start_response("200 OK", [])
    return ["\n".join("%s=%s" % item for item in environ.items()).encode("latin-1")]


def last_closed(environ, start_response):
    start_response("200 OK", [])
    return [",".join(closed).encode()]


def compressed(module):
    def application(environ, start_response):
        path = os.path.join(tempfile.mkdtemp(), "file")
        with module.open(path, "wb") as file:
            file.write(b"content of the file")
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](module.open(path, "rb"))

    return application


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").replace("-", "_")
    if name in ("gzip", "bz2", "lzma"):
        return compressed(__import__(name))(environ, start_response)
    found = {"list": list_, "closed": last_closed}.get(name) or globals()[name]
    return found(environ, start_response)
