"""An application that installs signal handlers at import: those that the environment variable HANDLERS names."""

import errno
import faulthandler
import os
import resource
import signal
import subprocess
import sys
import time
from urllib.parse import parse_qs

SERVERS = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"]
WANTED = os.environ.get("HANDLERS", "").split()


def tell(text):
    with open("handled", "a") as file:
        file.write(f"{text} {os.getpid()}\n")


def chain(number):
    """Install a handler as tracers and profilers do: it does its work, then calls the previous handler."""
    before = signal.getsignal(number)

    def handler(signum, frame):
        tell("chained")
        if callable(before):
            before(signum, frame)
        else:
            # There was no handler: perform the default action.
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    signal.signal(number, handler)


def ends(signum, frame):
    tell("ends")
    sys.exit(1)


def swallows(signum, frame):
    tell("swallowed")


def tells(signum, frame):
    tell(signal.Signals(signum).name if signum < signal.SIGRTMIN else "realtime")


if "chain" in WANTED:
    for name in ("SIGTERM", "SIGINT"):
        chain(getattr(signal, name))
if "end" in WANTED:
    signal.signal(signal.SIGTERM, ends)
if "swallow" in WANTED:
    signal.signal(signal.SIGTERM, swallows)
if "ignore" in WANTED:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "others" in WANTED:
    for number in (signal.SIGALRM, signal.SIGPROF, signal.SIGRTMIN + 5):
        signal.signal(number, tells)
if "faulthandler" in WANTED:
    faulthandler.enable()
    faulthandler.register(signal.SIGRTMIN + 6)
if "child" in WANTED:
    subprocess.run(["true"], check=True)


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    path = environ["PATH_INFO"]
    body = f"{os.getpid()}\n"
    if path == "/swaps":
        body = swaps()
    elif path == "/sleep":
        time.sleep(float(query["s"]))
    elif path == "/calls":
        signal.getsignal(getattr(signal, query["name"]))(getattr(signal, query["name"]), None)
    elif path == "/runs":
        body = subprocess.run(["echo", "a child"], stdout=subprocess.PIPE, check=True).stdout.decode()
    elif path == "/grows":
        body = grows()
    data = body.encode()
    start_response("200 OK", [("Content-Length", str(len(data)))])
    return [data]


def swaps():
    """Return the server's signals whose handler can be read, replaced and restored."""
    good = []
    for name in SERVERS:
        number = getattr(signal, name)
        before = signal.getsignal(number)
        if not callable(before):
            continue
        if signal.signal(number, swallows) is not before or signal.getsignal(number) is not swallows:
            continue
        if signal.signal(number, before) is swallows and signal.getsignal(number) is before:
            good.append(name)
    return " ".join(good) + "\n"


def grows():
    """Write beyond the limit of a file's size; return the name of the error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with open("large", "wb", buffering=0) as file:
            while file.write(bytes(600)):
                pass
    except OSError as error:
        return errno.errorcode[error.errno] + "\n"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return "no error\n"
