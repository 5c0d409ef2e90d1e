"""Raises errors at every point at which a server calls an application."""

import logging
import threading


class Body:
    def __init__(self, path):
        self.path = path
        self.parts = [b"a", b"b"]

    def __iter__(self):
        return self

    def __next__(self):
        if self.path == "/iterate":
            iterate()
        if not self.parts:
            raise StopIteration
        return self.parts.pop()

    def close(self):
        if self.path == "/close":
            close()


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/call":
        call()
    if path == "/read":
        environ["wsgi.input"].read()
    if path == "/spin":
        spin()
    if path == "/thread":
        task = threading.Thread(target=thread)
        task.start()
        task.join()
    if path == "/logged":
        try:
            logged()
        except ValueError:
            logging.getLogger("gunicorn.error").exception("an error")
    start_response(3 if path == "/status" else "200 OK", [("A\n", "b")] if path == "/header" else [])
    return [3] if path == "/part" else Body(path)


def call():
    raise ValueError("in call")


def iterate():
    raise ValueError("in iterate")


def close():
    raise ValueError("in close")


def thread():
    raise ValueError("in thread")


def logged():
    raise ValueError("in logged")


def spin():
    while True:
        pass
