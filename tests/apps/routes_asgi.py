"""The routes of plugins/examples/hello as an ASGI application, so that the same tests apply to both."""

import asyncio
import os
from urllib.parse import parse_qs


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only http is served")
    query = parse_qs(scope["query_string"].decode())

    def number(name, default):
        return int(query.get(name, [default])[0])

    path = scope["path"]
    if path == "/":
        await text(send, "Hello, world!\n")
    elif path == "/pid":
        await text(send, f"{os.getpid()}\n")
    elif path == "/echo":
        await echo(scope, receive, send)
    elif path == "/sleep":
        await asyncio.sleep(number("ms", 1000) / 1000)
        await text(send, "slept\n")
    elif path == "/stream":
        await start(send, {"Content-Type": "application/octet-stream"})
        for _ in range(number("n", 10)):
            await part(send, b"." * number("size", 1024), True)
        await part(send, b"")
    elif path == "/whole":
        body = b"." * number("size", 1024)
        await start(send, {"Content-Length": len(body)})
        await part(send, body)
    elif path == "/headers":
        fields = "".join(f"{name.decode().title()}: {value.decode('latin-1')}\n" for name, value in scope["headers"])
        await text(send, fields)
    elif path == "/tls":
        await text(send, tls(scope))
    elif path == "/file":
        await file(send, query["path"][0])
    elif path == "/panic":
        raise RuntimeError("a client asked for a panic")
    elif path == "/abort":
        os.abort()
    else:
        await text(send, "nothing here\n", 404)


def tls(scope):
    """Return the scheme, the TLS version, the server name, and the client's certificate in hexadecimal."""
    lines = scope["scheme"] + "\n"
    facts = scope["extensions"].get("tls")
    if facts:
        lines += {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}[facts["tls_version"]] + "\n" + facts["server_name"] + "\n"
        for certificate in facts["client_cert_chain"]:
            import ssl

            lines += ssl.PEM_cert_to_DER_cert(certificate).hex()
    return lines


async def start(send, fields, status=200):
    headers = [(name.lower().encode(), str(value).encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def part(send, body, more=False):
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def text(send, body, status=200):
    await start(send, {"Content-Type": "text/plain", "Content-Length": len(body)}, status)
    await part(send, body.encode())


async def echo(scope, receive, send):
    """Return the body while it still arrives, so that an upload of any size needs one buffer."""
    fields = {"Content-Type": "application/octet-stream"}
    length = dict(scope["headers"]).get(b"content-length")
    if length:
        fields["Content-Length"] = length.decode()
    await start(send, fields)
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
        await part(send, message["body"], more)


async def file(send, name):
    if os.path.isabs(name) or ".." in name.split("/") or not os.path.isfile(name):
        return await text(send, "no such file\n", 404)
    fields = {"Content-Type": "application/octet-stream", "Content-Length": os.path.getsize(name)}
    await start(send, fields)
    await send({"type": "http.response.pathsend", "path": os.path.abspath(name)})
