"""Recurses to the requested depth through C, because Python calls use no C stack from 3.11 on."""

import os
import sys
import threading
from urllib.parse import parse_qs

sys.setrecursionlimit(1_000_000)
threading.stack_size(int(os.environ.get("STACK_MIB", "0")) << 20)


def reached(n):
    if n > 0:
        max((n - 1,), key=reached)
    return n


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/pid":
        return [str(os.getpid()).encode()]
    return [str(reached(int(parse_qs(environ["QUERY_STRING"])["depth"][0]))).encode()]
