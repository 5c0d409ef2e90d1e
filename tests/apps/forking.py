"""An application that forks during requests. The query says what the child does; `/pid` returns the worker's PID."""

import atexit
import multiprocessing
import os
import sys
import time
from urllib.parse import parse_qs


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    path = environ["PATH_INFO"]
    if path == "/fork":
        return fork(environ, start_response, query["then"])
    if path == "/yields":
        return yields(start_response)
    if path == "/process":
        return process(start_response)
    if path == "/lives":
        return lives(start_response, float(query.get("s", "20")))
    return text(start_response, f"{os.getpid()}\n")


def fork(environ, start_response, then):
    """Respond with the child's exit status."""
    child = os.fork()
    if child == 0:
        atexit.register(tell, then)
        if then == "waits":
            # Patched under gevent and eventlet: the child runs the loop.
            time.sleep(0.3)
            sys.exit(5)
        if then == "exits":
            sys.exit(7)
        if then == "raises":
            raise RuntimeError("in the child")
        if then == "reads":
            environ["wsgi.input"].read()
        if then == "writes":
            start_response("200 OK", [])(b"from the child")
        return text(start_response, "from the child\n")
    return text(start_response, f"{status_of(child)}\n")


def yields(start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one\n"
    child = os.fork()
    if child:
        yield f"{status_of(child)}\n".encode()
    else:
        yield b"from the child\n"


def process(start_response):
    """Start a process with multiprocessing. It waits in its loop if the standard library is patched."""
    made = multiprocessing.get_context("fork").Process(target=work)
    made.start()
    made.join()
    return text(start_response, f"{made.exitcode}\n")


def work():
    time.sleep(0.3)
    sys.exit(9)


def lives(start_response, seconds):
    """Fork a child that outlives the request."""
    child = os.fork()
    if child == 0:
        time.sleep(seconds)
        os._exit(0)
    return text(start_response, f"{child}\n")


def status_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tell(then):
    with open("atexit", "a") as file:
        file.write(f"{then}\n")


def text(start_response, body):
    data = body.encode()
    start_response("200 OK", [("Content-Length", str(len(data)))])
    return [data]
