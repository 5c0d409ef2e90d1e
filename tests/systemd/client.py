"""Requests to the server that systemd has started: client.py once|load|slow. Fails if one of them has no response."""

import http.client
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOCKET = "/run/jimu.sock"
STOP = Path("/tested/stop")
CLIENTS = 4


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(SOCKET)


def ask(path, expected):
    connection = Connection("localhost")
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert (response.status, body) == (200, expected), (response.status, body)


def at_once(work):
    """Runs a function in some threads, and returns the results."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        return [done.result() for done in [clients.submit(work) for _ in range(CLIENTS)]]


def ask_until_stopped():
    """Asks over new connections until the file STOP is there, and returns how often."""
    count = 0
    while not STOP.exists():
        ask("/", b"hello\n")
        count += 1
    return count


match sys.argv[1]:
    case "once":
        ask("/", b"hello\n")
    case "load":
        served = at_once(ask_until_stopped)
        print(sum(served), "requests")
        assert min(served) > 10, served
    case "slow":
        at_once(lambda: ask("/slow", b"finished\n"))
