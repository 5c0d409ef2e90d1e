"""WebSockets with the libraries that applications use for them, and without a library."""

import os
import sys

import simple_websocket
from flask import Flask
from flask_sock import Sock
from flask_socketio import SocketIO

if "WITHOUT_GEVENT_WEBSOCKET" in os.environ:
    sys.modules["geventwebsocket"] = None

flask = Flask(__name__)
sock = Sock(flask)
#: As recommended by the libraries: depends on what the worker class has patched.
modes = {"gevent": "gevent", "pywsgi": "gevent", "eventlet": "eventlet"}
socketio = SocketIO(flask, async_mode=modes.get(os.environ.get("CLASS"), "threading"))


@sock.route("/sock")
def echo(ws):
    while True:
        data = ws.receive()
        if data == "fail":
            raise RuntimeError("the handler fails")
        ws.send(data)


@socketio.on("echo")
def on_echo(data):
    socketio.emit("echo", data)


def simple(environ, start_response):
    ws = simple_websocket.Server.accept(environ, ping_interval=5)
    try:
        while True:
            ws.send(ws.receive())
    except simple_websocket.ConnectionClosed:
        pass
    # As in the library's documentation, although PEP 3333 does not permit it.
    raise StopIteration


def gevents(environ, start_response):
    """gevent-websocket, under gevent and pywsgi."""
    ws = environ["wsgi.websocket"]
    message = ws.receive()
    while message is not None:
        ws.send(message)
        message = ws.receive()
    return []


def eventlets(environ, start_response):
    """eventlet's own WebSockets, under eventlet."""
    from eventlet.websocket import WebSocketWSGI

    def handler(ws):
        message = ws.wait()
        while message is not None:
            ws.send(message)
            message = ws.wait()

    return WebSocketWSGI(handler)(environ, start_response)


def switches(environ, start_response):
    """Switch to another protocol as PEP 3333 permits: every line is returned in upper case."""
    write = start_response("101 Switching Protocols", [("Upgrade", "capitals"), ("Connection", "Upgrade")])
    write(b"")
    connection = environ["gunicorn.socket"]
    facts = [connection.getpeername()[0], str(connection.gettimeout()), str(connection.fileno() >= 0)]
    if environ["wsgi.url_scheme"] == "https":
        facts += [connection.version()[:4], str(connection.cipher()[2]), str(connection.getpeercert())]
    connection.sendall((" ".join(facts) + "\n").encode())
    with connection.makefile("rb") as lines:
        for line in lines:
            if line == b"end\n":
                break
            connection.send(line.upper())
    return []


def after(environ, start_response):
    """Use a kept connection after its request: it is closed, and raises the errors of a closed socket."""
    connection = environ["gunicorn.socket"]
    if kept:
        old = kept.pop()
        try:
            old.send(b"x")
            words = "sent"
        except OSError as error:
            words = type(error).__name__
        old.close()
        old.close()
    else:
        connection.getpeername()
        kept.append(connection)
        words = "kept"
    start_response("200 OK", [])
    return [words.encode()]


kept = []


def fails(environ, start_response):
    environ["gunicorn.socket"].sendall(b"raw bytes")
    raise RuntimeError("on purpose")


def stops(environ, start_response):
    raise StopIteration


routes = {
    "/simple": simple,
    "/gevent": gevents,
    "/eventlet": eventlets,
    "/switches": switches,
    "/after": after,
    "/fails": fails,
    "/stops": stops,
}


def application(environ, start_response):
    return routes.get(environ["PATH_INFO"], flask)(environ, start_response)
