"""tests/fixtures/mirror as an ASGI application: responds to every request with the request as it saw it, in hexadecimal
headers. A scope has no authority but the Host header, and no target but path and query."""


async def application(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    query = scope["query_string"]
    seen = {
        b"x-method": scope["method"].encode("latin-1"),
        b"x-target": scope["raw_path"] + (b"?" + query if query else b""),
        b"x-authority": dict(scope["headers"]).get(b"host", b""),
        b"x-body": body,
    }
    headers = [(name, value.hex().encode()) for name, value in seen.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"seen\n"})
