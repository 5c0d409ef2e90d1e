"""The routes of plugins/examples/hello as a WSGI application, so that the same tests apply to both."""

import os
import time
from urllib.parse import parse_qs


def application(environ, start_response):
    query = parse_qs(environ["QUERY_STRING"])

    def number(name, default):
        return int(query.get(name, [default])[0])

    path = environ["PATH_INFO"]
    if path == "/":
        return text(start_response, "Hello, world!\n")
    if path == "/pid":
        return text(start_response, f"{os.getpid()}\n")
    if path == "/echo":
        return echo(environ, start_response)
    if path == "/sleep":
        time.sleep(number("ms", 1000) / 1000)
        return text(start_response, "slept\n")
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return (b"." * number("size", 1024) for _ in range(number("n", 10)))
    if path == "/whole":
        body = b"." * number("size", 1024)
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    if path == "/headers":
        fields = [
            f"{key[5:].replace('_', '-').title()}: {value}\n"
            for key, value in environ.items()
            if key.startswith("HTTP_")
        ]
        return text(start_response, "".join(fields))
    if path == "/tls":
        return text(start_response, tls(environ))
    if path == "/file":
        return file(environ, start_response, query["path"][0])
    if path == "/panic":
        raise RuntimeError("a client asked for a panic")
    if path == "/abort":
        os.abort()
    return text(start_response, "nothing here\n", "404 Not Found")


def tls(environ):
    """Return the scheme, the TLS version, the server name, and the client's certificate in hexadecimal."""
    lines = environ["wsgi.url_scheme"] + "\n"
    if "SSL_PROTOCOL" in environ:
        lines += environ["SSL_PROTOCOL"] + "\n" + environ.get("SSL_TLS_SNI", "") + "\n"
    if environ.get("SSL_CLIENT_VERIFY") == "SUCCESS":
        import ssl

        lines += ssl.PEM_cert_to_DER_cert(environ["SSL_CLIENT_CERT"]).hex()
    return lines


def text(start_response, body, status="200 OK"):
    data = body.encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]


def echo(environ, start_response):
    """Return the body while it still arrives, so that an upload of any size needs one buffer."""
    fields = [("Content-Type", "application/octet-stream")]
    if environ.get("CONTENT_LENGTH"):
        fields.append(("Content-Length", environ["CONTENT_LENGTH"]))
    start_response("200 OK", fields)
    read = environ["wsgi.input"].read
    return iter(lambda: read(16384), b"")


def file(environ, start_response, name):
    if os.path.isabs(name) or ".." in name.split("/") or not os.path.isfile(name):
        return text(start_response, "no such file\n", "404 Not Found")
    fields = [
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", str(os.path.getsize(name))),
    ]
    start_response("200 OK", fields)
    return environ["wsgi.file_wrapper"](open(name, "rb"), 16384)
