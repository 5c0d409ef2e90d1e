"""An application that describes the interpreter that it runs in."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading


def answer(name):
    return "answer to %s" % name


def ask(name, results):
    results.put(answer(name))


#: Before the server's handlers exist, as at the import under gunicorn.
AT_IMPORT = {name: repr(signal.getsignal(getattr(signal, name))) for name in ("SIGINT", "SIGPIPE", "SIGXFSZ")}


def application(environ, start_response):
    method = environ["PATH_INFO"].lstrip("/")
    if method == "descriptors":
        text = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, stdout=subprocess.PIPE, check=True).stdout.decode()
    elif method in multiprocessing.get_all_start_methods():
        text = of_child(method)
    else:
        text = json.dumps({
            "executable": sys.executable,
            "argv": sys.argv,
            "path": sys.path,
            "empty": "" in sys.path,
            "prefix": sys.prefix,
            "base": sys.base_prefix,
            "version": "%d.%d" % sys.version_info[:2],
            "dev": sys.flags.dev_mode,
            "utf8": sys.flags.utf8_mode,
            "optimize": sys.flags.optimize,
            "warnings": sys.warnoptions,
            "main": threading.current_thread() is threading.main_thread(),
            "libraries": libraries(),
            "at_import": AT_IMPORT,
            "environment": os.environ.get("OF_TEST"),
        })
    data = text.encode()
    start_response("200 OK", [("Content-Length", str(len(data)))])
    return [data]


def of_child(method):
    """Return what a function returns in a child that multiprocessing starts."""
    context = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=ask, args=(method, results))
    child.start()
    text = results.get(timeout=20)
    child.join(20)
    return "%s, %s\n" % (text, child.exitcode)


def libraries():
    """Return the names of Python's libraries in this process."""
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "/" in line}
    return sorted(os.path.basename(path) for path in paths if "libpython" in path)
