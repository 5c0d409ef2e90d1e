"""Checks the wheel in one virtual environment: `serve.py ENVIRONMENT`, which has the wheel, Flask and Django.

Serves WSGI and ASGI applications under each class of their interface, and swaps the classes under load. A class whose
Python library is not installed is skipped.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
#: Module that a class needs in the environment.
WSGI = {"sync": None, "gthread": None, "pywsgi": None, "gevent": "gevent", "eventlet": "eventlet"}
ASGI = {"asgi": None}
APPLICATIONS = [
    (WSGI, "flask_app:app", TESTS / "apps", "/user/wheel", b"hello wheel\n"),
    (WSGI, "wsgi:application", TESTS / "apps" / "site", "/stream/", b"part 49\n"),
    (ASGI, "routes_asgi:application", TESTS / "apps", "/headers", b"Host: test\n"),
]
BOOT_SECONDS = 60
CLIENTS = 4


class Load:
    """Clients that send one request after the other, each on a new connection."""

    def __init__(self, address, path, expected):
        self.address = address
        self.request = b"GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n" % path.encode()
        self.expected = expected
        self.served = 0
        self.failures = []
        self.ends = threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(CLIENTS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.ends.set()
        for thread in self.threads:
            thread.join()

    def run(self):
        while not self.ends.is_set():
            try:
                answer = self.ask()
            except OSError as error:
                answer = repr(error).encode()
            if answer.startswith(b"HTTP/1.1 200 ") and self.expected in answer:
                self.served += 1
            else:
                self.failures.append(answer)

    def ask(self):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(BOOT_SECONDS)
            client.connect(self.address)
            client.sendall(self.request)
            parts = iter(lambda: client.recv(65536), b"")
            return b"".join(parts)

    def wait_for(self, count):
        """Wait until `count` more requests have been served."""
        goal, deadline = self.served + count, time.monotonic() + BOOT_SECONDS
        while self.served < goal:
            assert time.monotonic() < deadline and not self.failures, self.failures[:3]
            time.sleep(0.01)


def usable(environment, classes):
    def has(module):
        command = [environment / "bin/python", "-c", "import " + module]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0

    return [name for name, module in classes.items() if module is None or has(module)]


def serve(environment, classes, directory, application):
    """Serve an application under each class in turn, and return how many requests were served."""
    spec, chdir, path, expected = application
    address, control, log = (os.path.join(directory, name) for name in ("socket", "control", "log"))
    command = [environment / "bin/jimu", "-k", classes[0], "--workers", "2", "--bind", "unix:" + address]
    command += ["--control-socket", control, "--chdir", chdir, "--error-logfile", log, spec]
    server = subprocess.Popen(command, env=dict(os.environ, SITE_DATA=directory))
    try:
        deadline = time.monotonic() + BOOT_SECONDS
        while not os.path.exists(address):
            assert server.poll() is None and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.01)
        with Load(address, path, expected) as load:
            load.wait_for(20)
            shown = Path("/proc/%d/cmdline" % server.pid).read_bytes().rstrip(b"\0")
            assert shown == b"host: arbiter", shown
            for name in [*classes[1:], classes[0]]:
                subprocess.run([environment / "bin/jimuctl", "--socket", control, "swap", name], check=True,
                               stdout=subprocess.DEVNULL)
                load.wait_for(20)
        assert not load.failures, load.failures[:3]
        server.send_signal(signal.SIGTERM)
        assert server.wait(BOOT_SECONDS) == 0, server.returncode
        return load.served
    except BaseException:
        print(Path(log).read_text() if os.path.exists(log) else "no log", file=sys.stderr)
        raise
    finally:
        server.kill()
        server.wait()


def main():
    environment = Path(sys.argv[1]).absolute()
    for known, *application in APPLICATIONS:
        classes = usable(environment, known)
        with tempfile.TemporaryDirectory() as directory:
            served = serve(environment, classes, directory, application)
        print("%s: %d requests under %s" % (application[0], served, ", ".join(classes)))
    for name in sorted(set(WSGI) - set(usable(environment, WSGI))):
        print("skipped: %s cannot be imported" % name)


main()
