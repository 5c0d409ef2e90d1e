"""An application that violates a rule of PEP 3333 at each path `/FAULT`."""

import atexit
import ctypes
import os
import sys
import threading
import time


def application(environ, start_response):
    fault = environ["PATH_INFO"].strip("/")
    if fault in FAULTS:
        return FAULTS[fault](environ, start_response)
    if fault.startswith("exit"):
        os._exit(int(fault[4:]))
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]


def never_starts(environ, start_response):
    return [b"a body without a head"]


def text_body(environ, start_response):
    start_response("200 OK", [])
    return ["not bytes"]


def two_lengths(environ, start_response):
    start_response("200 OK", [("Content-Length", "2"), ("Content-Length", "3")])
    return [b"abc"]


def negative_length(environ, start_response):
    start_response("200 OK", [("Content-Length", "-1")])
    return [b"abc"]


def too_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "100")])
    return [b"abc"]


def splits(environ, start_response):
    start_response("200 OK", [("X-Field", "a\r\nSet-Cookie: stolen=1")])
    return [b"abc"]


def splits_status(environ, start_response):
    start_response("200 OK\r\nSet-Cookie: stolen=1", [])
    return [b"abc"]


def bodies_where_none_is(environ, start_response):
    start_response("204 No Content", [("Content-Length", "6")])
    return [b"a body"]


def hints(environ, start_response):
    """Use an extension of gunicorn, which is not a fault."""
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]


def fails_under_way(environ, start_response):
    start_response("200 OK", [])
    yield b"the first part"
    raise RuntimeError("under way")


def recursion(environ, start_response):
    return recursion(environ, start_response)


def forks(environ, start_response):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    start_response("200 OK", [("Content-Length", "7")])
    return [b"forked\n"]


def leaves_a_thread(environ, start_response):
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    start_response("200 OK", [("Content-Length", "5")])
    return [b"left\n"]


def finishes_later(environ, start_response):
    def finish():
        time.sleep(0.5)
        with open("finished", "a") as file:
            file.write(f"{os.getpid()}\n")

    threading.Thread(target=finish).start()
    start_response("200 OK", [("Content-Length", "6")])
    return [b"begun\n"]


def ends(environ, start_response):
    sys.exit(7)


def spins(environ, start_response):
    while True:
        pass


def segfaults(environ, start_response):
    return ctypes.string_at(0)


def raises(environ, start_response):
    raise RuntimeError("on purpose")


class Closing:
    """An endless body that records in a file when it is closed."""

    def __iter__(self):
        return self

    def __next__(self):
        return b"x" * 65536

    def close(self):
        with open("closed", "a") as file:
            file.write("closed\n")


def endless(environ, start_response):
    start_response("200 OK", [])
    return Closing()


@atexit.register
def told_at_exit():
    with open("atexit", "a") as file:
        file.write(f"{os.getpid()}\n")


FAULTS = {
    "never-starts": never_starts,
    "text-body": text_body,
    "two-lengths": two_lengths,
    "negative-length": negative_length,
    "too-short": too_short,
    "splits": splits,
    "splits-status": splits_status,
    "bodies-where-none-is": bodies_where_none_is,
    "hints": hints,
    "fails-under-way": fails_under_way,
    "recursion": recursion,
    "forks": forks,
    "leaves-a-thread": leaves_a_thread,
    "finishes-later": finishes_later,
    "ends": ends,
    "spins": spins,
    "segfaults": segfaults,
    "raises": raises,
    "endless": endless,
}
