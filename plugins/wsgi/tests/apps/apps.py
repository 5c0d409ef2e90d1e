"""Applications for the tests of the wsgi plugin, by path. Each is a small case of PEP 3333."""

import io
import json
import os
import sys
import threading
from wsgiref.validate import validator

closed = []
kept = []


class Parts:
    """An iterable that records when it is closed."""

    def __init__(self, *parts):
        self.parts = parts

    def __iter__(self):
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part

    def close(self):
        closed.append(self.parts[0] if self.parts else None)


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def no_length(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def environ_(environ, start_response):
    body = json.dumps({key: value if isinstance(value, (str, bool, int)) else repr(value)
                       for key, value in environ.items()}, sort_keys=True).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]


def generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one "
    yield b""
    yield b"two "
    yield b"three"


def late_start(environ, start_response):
    def parts():
        start_response("201 Created", [("Content-Type", "text/plain")])
        yield b"late"

    return parts()


def closing(environ, start_response):
    start_response("200 OK", [])
    return Parts(b"closing", b" well")


def closing_fault(environ, start_response):
    start_response("200 OK", [])
    return Parts(b"closing_fault", ValueError("in the middle"))


def write(environ, start_response):
    put = start_response("200 OK", [("Content-Type", "text/plain")])
    put(b"written ")
    return [b"returned"]


def replace(environ, start_response):
    start_response("200 OK", [("X-First", "1"), ("Content-Length", "3")])
    try:
        raise ValueError("changed my mind")
    except ValueError:
        start_response("503 Sorry", [("X-Second", "2")], sys.exc_info())
    return [b"sorry"]


def too_late(environ, start_response):
    put = start_response("200 OK", [])
    put(b"on its way")
    try:
        raise KeyError("the first")
    except KeyError:
        start_response("500 Oh", [], sys.exc_info())
    return [b"never"]


def twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b""]


def never_started(environ, start_response):
    return [b"body"]


def never_started_empty(environ, start_response):
    return []


def text_body(environ, start_response):
    start_response("200 OK", [])
    return ["text"]


def text_part(environ, start_response):
    start_response("200 OK", [])
    return iter([b"bytes", "text"])


def nothing(environ, start_response):
    start_response("200 OK", [])


def two_lengths(environ, start_response):
    start_response("200 OK", [("Content-Length", "2"), ("Content-Length", "3")])
    return [b"abc"]


def negative_length(environ, start_response):
    start_response("200 OK", [("Content-Length", "-1")])
    return [b"abc"]


def too_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"abc"]


def too_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "9")])
    return [b"abc"]


def too_long_parts(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return iter([b"abc", b"def"])


def too_long_closing(environ, start_response):
    start_response("200 OK", [("Content-Length", "9")])
    return Parts(b"too_long", b"", b"_closing", AssertionError("iterated past the length"))


def too_long_list(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return [b"ab", b"cd", b"ef"]


def too_long_write(environ, start_response):
    put = start_response("200 OK", [("Content-Length", "4")])
    put(b"ab")
    try:
        put(b"cde")
    except ValueError as error:
        kept.append(str(error))
    return [b"cd"]


def too_long_file(environ, start_response):
    source = open(os.path.join(os.path.dirname(__file__), "numbers.txt"), "rb")
    start_response("200 OK", [("Content-Length", "4")])
    return environ["wsgi.file_wrapper"](source)


def too_long_file_like(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"0123456789"), 3)


def list_(environ, start_response):
    start_response("200 OK", [])
    return [b"one ", b"", b"two"]


def list_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "9")])
    return [b"ab", b"cd"]


def too_short_parts(environ, start_response):
    start_response("200 OK", [("Content-Length", "9")])
    return iter([b"abc", b"def"])


def hop_by_hop(environ, start_response):
    start_response("200 OK", [("Connection", "close"), ("Keep-Alive", "5"), ("Trailer", "X")])
    return [b""]


def splitting(environ, start_response):
    start_response("200 OK", [("X-A", "b\r\nSet-Cookie: c")])
    return [b""]


def latin(environ, start_response):
    start_response("200 Sch\u00f6n", [("X-Name", "J\u00fcrgen")])
    return [b"x"]


def beyond_latin(environ, start_response):
    start_response("200 OK", [("X-Name", "\u79ef\u6728")])
    return [b"x"]


def bad_types(environ, start_response):
    start_response(b"200 OK", [])
    return [b"x"]


def fails(environ, start_response):
    raise LookupError("nothing here")


def exits(environ, start_response):
    sys.exit(3)


def recursion(environ, start_response):
    return recursion(environ, start_response)


def empty(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return []


def no_content(environ, start_response):
    start_response("204 No Content", [])
    return [b""]


def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def pieces(environ, start_response):
    source = environ["wsgi.input"]
    got = [source.read(3), source.readline(), source.readline(2), source.read(0), source.readlines(1)]
    got.append(list(source))
    got += [source.read(), source.readline(), source.read(5)]
    body = repr(got).encode()
    start_response("200 OK", [])
    return [body]


def mixed(environ, start_response):
    source = environ["wsgi.input"]
    start_response("200 OK", [])
    for size in (20000, 7, 8192, 8191, 262144, 262145, 65536, 30000, -1):
        part = source.read(size)
        assert len(part) == size or size < 0, (len(part), size)
        yield part
        yield source.readline()


def read_fault(environ, start_response):
    try:
        environ["wsgi.input"].read()
    except OSError as error:
        kept.append(type(error).__name__)
        raise
    start_response("200 OK", [])
    return [b"whole"]


def errors(environ, start_response):
    environ["wsgi.errors"].write("one\ntwo\nhalf a")
    environ["wsgi.errors"].writelines([" line"])
    environ["wsgi.errors"].flush()
    start_response("200 OK", [])
    return [b""]


def file(environ, start_response):
    source = open(os.path.join(os.path.dirname(__file__), "numbers.txt"), "rb")
    source.seek(3)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](source)


def file_like(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"0123456789"), 4)


class Upper(io.FileIO):
    def read(self, size=-1):
        return super().read(size).upper()

    def readinto(self, buffer):
        count = super().readinto(buffer)
        buffer[:count] = bytes(buffer[:count]).upper()
        return count


def file_kinds(environ, start_response):
    """Return a file wrapper for the kind of file that the query names."""
    import bz2
    import gzip
    import lzma
    import tempfile

    kind = environ["QUERY_STRING"]
    directory = tempfile.mkdtemp()
    path = os.path.join(directory, "file")
    openers = {"gzip": gzip.open, "bz2": bz2.open, "lzma": lzma.open}
    with openers.get(kind, open)(path, "wb") as target:
        target.write(b"0123456789abc")
    if kind in openers:
        source = openers[kind](path, "rb")
    elif kind == "subclass":
        source = Upper(path)
    elif kind == "buffered-subclass":
        source = io.BufferedReader(Upper(path))
    elif kind == "raw":
        source = open(path, "rb", buffering=0)
    elif kind == "random":
        source = open(path, "r+b")
        source.write(b"X123456789ABC")
    elif kind == "named":
        source = tempfile.NamedTemporaryFile()
        source.write(b"0123456789abc")
    elif kind in ("spooled", "rolled"):
        source = tempfile.SpooledTemporaryFile(1000 if kind == "spooled" else 1)
        source.write(b"0123456789abc")
    else:
        source = open(path, "rb")
    os.unlink(path)
    os.rmdir(directory)
    source.seek(2)
    # This moves the descriptor of a buffered file to its end.
    source.read(1)
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](source)


def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    start_response("200 OK", [])
    return [b"late"]


def keeps(environ, start_response):
    kept.append((environ, start_response))
    start_response("200 OK", [])
    return [b"kept"]


def use_kept(environ, start_response):
    old_environ, old_start = kept.pop()
    found = []
    for attempt in (lambda: old_start("200 OK", []), lambda: old_environ["wsgi.input"].read(1)):
        try:
            attempt()
            found.append("worked")
        except RuntimeError:
            found.append("refused")
    start_response("200 OK", [])
    return [" ".join(found).encode()]


def close_count(environ, start_response):
    start_response("200 OK", [])
    body = repr(closed).encode()
    del closed[:]
    return [body]


def handled(environ, start_response):
    import jimu

    return jimu.ALREADY_HANDLED


def takes_over(environ, start_response):
    """Use gunicorn.socket as libraries do that take a connection over."""
    import selectors
    import socket

    connection = environ["gunicorn.socket"]
    assert connection.family == socket.AF_UNIX and connection.type == socket.SOCK_STREAM, connection.family
    assert connection.gettimeout() is None and connection.getblocking()
    connection.settimeout(2)
    assert connection.gettimeout() == connection.timeout == 2.0
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
        raise AssertionError("there is nothing to read")
    except BlockingIOError:
        pass
    connection.setblocking(True)
    assert not hasattr(connection, "getpeercert"), "it is no TLS"
    connection.send(b"ready ")
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        assert selector.select(10)
    assert connection.recv(2) == b"he"
    buffer = bytearray(3)
    assert connection.recv_into(buffer) == 3 and buffer == b"llo"
    connection.sendall(b"raw ")
    connection.sendmsg([b"by", b"tes"])
    how = environ["QUERY_STRING"]
    if how == "closes":
        connection.close()
        connection.close()
        try:
            connection.send(b"x")
            raise AssertionError("it is closed")
        except OSError:
            pass
    if how == "fails":
        raise LookupError("after it took over")
    if how == "returns":
        return []
    if how == "returns-text":
        return [b"discarded"]
    raise StopIteration


def switches(environ, start_response):
    start_response("101 Switching Protocols", [("Upgrade", "x"), ("Connection", "Upgrade")])
    environ["gunicorn.socket"].send(b"raw")
    return []


def stops(environ, start_response):
    raise StopIteration


def closed_later(environ, start_response):
    environ["gunicorn.socket"].fileno()
    kept.append(environ["gunicorn.socket"])
    start_response("200 OK", [])
    return [b""]


def use_closed(environ, start_response):
    old = kept.pop()
    old.close()
    found = [str(old.fileno())]
    for attempt in (lambda: old.send(b""), lambda: old.recv(1), old.getpeername, old.makefile):
        try:
            attempt()
            found.append("worked")
        except OSError:
            found.append("refused")
    start_response("200 OK", [])
    return [" ".join(found).encode()]


def threads(environ, start_response):
    start_response("200 OK", [])
    is_main = threading.current_thread() is threading.main_thread()
    return [("%d %s" % (len(threading.enumerate()), is_main)).encode()]


def everything(environ, start_response):
    body = environ["wsgi.input"].read(100)
    put = start_response("200 OK", [("Content-Type", "text/plain")])
    put(b"<")
    environ["wsgi.errors"].write("noted\n")
    return Parts(body, b">")


validated = validator(everything)


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").replace("-", "_")
    return globals()[name](environ, start_response)


def factory(word, *, suffix="!"):
    def made(environ, start_response):
        start_response("200 OK", [])
        return [(word + suffix).encode()]

    return made


class Holder:
    application = staticmethod(hello)
    number = 5
