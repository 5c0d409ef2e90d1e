"""An application that uses all of PEP 3333, inside the validator of the standard library."""

from wsgiref.validate import validator


def everything(environ, start_response):
    kind = environ["PATH_INFO"].strip("/")
    return KINDS.get(kind, plain)(environ, start_response)


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"plain"]


def parts(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([b"some ", b"", b"parts"])


def writes(environ, start_response):
    write = start_response("201 Created", [("Content-Type", "text/plain")])
    write(b"written ")
    write(b"first, ")
    return [b"then returned"]


def reads(environ, start_response):
    source = environ["wsgi.input"]
    seen = [source.read(3), source.readline(), source.readline(4), source.read(0)]
    seen += source.readlines(5)
    seen += list(source)
    seen.append(source.read(10))
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [b"|".join(seen)]


def replaced(environ, start_response):
    import sys

    start_response("200 OK", [("Content-Type", "text/plain"), ("X-First", "1")])
    try:
        raise ValueError("on the way")
    except ValueError:
        start_response("503 Busy", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"replaced"]


def complains(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("a word to the log\n")
    errors.writelines(["and ", "two more\n"])
    errors.flush()
    return plain(environ, start_response)


def nothing(environ, start_response):
    start_response("204 No Content", [])
    return []


KINDS = {
    "parts": parts,
    "writes": writes,
    "reads": reads,
    "replaced": replaced,
    "complains": complains,
    "nothing": nothing,
}

application = validator(everything)
