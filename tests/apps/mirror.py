"""tests/fixtures/mirror in Python: responds to every request with the request as it saw it, in hexadecimal headers."""


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    seen = {
        "X-Method": environ["REQUEST_METHOD"].encode("latin-1"),
        "X-Target": environ["RAW_URI"].encode("latin-1"),
        "X-Authority": environ.get("HTTP_HOST", "").encode("latin-1"),
        "X-Body": body,
    }
    start_response("200 OK", [(name, value.hex()) for name, value in seen.items()])
    return [b"seen\n"]
