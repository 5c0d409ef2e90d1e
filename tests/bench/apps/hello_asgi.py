"""The ASGI application of the benchmarks: one small coroutine for each path, so that they measure the server."""

import asyncio
import json

HELLO = b"Hello, world!\n"
ROWS = [{"id": n, "name": "item %d" % n, "tags": ["a", "b", "c"], "price": n * 1.25} for n in range(140)]
JSON = json.dumps(ROWS).encode()
EVENTS = 100


async def application(scope, receive, send):
    if scope["type"] == "http":
        await PATHS[scope["path"]](receive, send)
    elif scope["type"] == "websocket":
        await echo_messages(receive, send)
    else:
        await lifespan(receive, send)


async def hello(receive, send):
    await respond(send, b"text/plain", HELLO)


async def json_page(receive, send):
    await respond(send, b"application/json", JSON)


async def echo(receive, send):
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    await respond(send, b"application/octet-stream", b"".join(parts))


async def sleep(receive, send):
    await asyncio.sleep(0.01)
    await hello(receive, send)


async def long_sleep(receive, send):
    await asyncio.sleep(0.1)
    await hello(receive, send)


async def events(receive, send):
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for n in range(EVENTS):
        body = b'id: %d\ndata: {"item": %d, "price": 1.25}\n\n' % (n, n)
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def echo_messages(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def respond(send, content_type, body):
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


PATHS = {"/": hello, "/json": json_page, "/echo": echo, "/sleep": sleep, "/long-sleep": long_sleep, "/events": events}
