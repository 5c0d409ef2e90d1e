"""The WSGI application of the benchmarks: one small function for each path, so that they measure the server."""

import json
import os
import time

HELLO = b"Hello, world!\n"
ROWS = [{"id": n, "name": "item %d" % n, "tags": ["a", "b", "c"], "price": n * 1.25} for n in range(140)]
JSON = json.dumps(ROWS).encode()
BIG_FILE = "megabyte"
PART = 64 * 1024


def application(environ, start_response):
    return PATHS[environ["PATH_INFO"]](environ, start_response)


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14")])
    return [HELLO]


def json_page(environ, start_response):
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(JSON)))]
    start_response("200 OK", headers)
    return [JSON]


def file(environ, start_response):
    headers = [("Content-Type", "application/octet-stream"), ("Content-Length", str(os.path.getsize(BIG_FILE)))]
    start_response("200 OK", headers)
    opened = open(BIG_FILE, "rb")
    wrapper = environ.get("wsgi.file_wrapper")
    return wrapper(opened, PART) if wrapper else iter(lambda: opened.read(PART), b"")


def upload(environ, start_response):
    length = 0
    while part := environ["wsgi.input"].read(PART):
        length += len(part)
    return number(start_response, length)


def upload_whole(environ, start_response):
    return number(start_response, len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))


def number(start_response, value):
    body = b"%d\n" % value
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def sleep(environ, start_response):
    time.sleep(0.1)
    return hello(environ, start_response)


PATHS = {
    "/": hello,
    "/json": json_page,
    "/file": file,
    "/upload": upload,
    "/upload-whole": upload_whole,
    "/sleep": sleep,
}
