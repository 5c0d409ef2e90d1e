"""Takes over the connection of /take, and sends a line at the start and another when the worker drains."""

import os
import threading
import time

import jimu

drains = []
jimu.on_drain(lambda: drains.append(True))


def serve(sock):
    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nbegun\n")
    while not drains:
        time.sleep(0.02)
    # As long as a last exchange with the client takes.
    time.sleep(0.5)
    sock.sendall(b"draining\n" if jimu.is_draining() else b"serving\n")
    sock.close()


def application(environ, start_response):
    if environ["PATH_INFO"] == "/take":
        sock = environ["gunicorn.socket"].dup()
        sock.settimeout(60)
        threading.Thread(target=serve, args=(sock,), daemon=True).start()
        return jimu.ALREADY_HANDLED
    data = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]
