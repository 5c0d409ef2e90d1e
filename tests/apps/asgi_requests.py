"""An ASGI application, each route of which uses a part of the HTTP protocol. What it sees is printed to standard error."""

import asyncio
import collections
import contextvars
import json
import os
import sys
import time

seen = contextvars.ContextVar("seen", default="nothing")
released = asyncio.Event()


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    name = scope["path"][len(scope["root_path"]):].split("/")[1]
    await globals()[name](scope, receive, send)


async def lifespan(scope, receive, send):
    await receive()
    scope["state"].update(word="shared", list=[])
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("lifespan shutdown")
    await send({"type": "lifespan.shutdown.complete"})


def say(text):
    print(text, file=sys.stderr, flush=True)


async def start(send, status=200, headers=(), **more):
    await send({"type": "http.response.start", "status": status, "headers": list(headers), **more})


async def part(send, body, more=False):
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def text(send, words):
    await start(send, headers=[(b"content-type", b"text/plain")])
    await part(send, words.encode())


async def facts(scope, receive, send):
    """Return the scope as JSON, with bytes as text behind "b:", and change its state."""
    shown = json.dumps(scope, default=lambda value: "b:" + value.decode("latin-1"))
    scope["state"]["mine"] = True
    scope["state"]["list"].append(1)
    await text(send, shown)


async def loop(scope, receive, send):
    await text(send, type(asyncio.get_running_loop()).__module__)


async def parts(scope, receive, send):
    """Return the body, and print the length of each part."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return say("disconnected behind %d bytes" % len(body))
        say("received %d bytes" % len(message["body"]))
        body, more = body + message["body"], message["more_body"]
    await start(send)
    await part(send, body)


async def impatient(scope, receive, send):
    """Return the body, and cancel each receive() that takes long."""
    body, more = b"", True
    while more:
        try:
            message = await asyncio.wait_for(receive(), 0.01)
        except asyncio.TimeoutError:
            say("cancelled behind %d bytes" % len(body))
            continue
        body, more = body + message["body"], message["more_body"]
    await start(send)
    await part(send, body)


async def tasks(scope, receive, send):
    """Receive in a task, as Starlette does."""
    message = await asyncio.create_task(receive())
    await start(send)
    await asyncio.create_task(send({"type": "http.response.body", "body": message["body"]}))


async def disconnect(scope, receive, send):
    """Wait for the client to disconnect, and send after it."""
    await receive()
    await start(send)
    await part(send, b"begun", True)
    message = await receive()
    say("received " + message["type"])
    try:
        await part(send, b"more", True)
    except OSError as error:
        say("send raised " + type(error).__name__)
    # The end of a stream that has nothing more to say.
    await part(send, b"")
    say("ended the response")


async def stubborn(scope, receive, send):
    """Ignore the disconnect of the client."""
    say("waits")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        say("stubborn task cancelled")
        raise


async def wrong_order(scope, receive, send):
    await part(send, b"body before head")


async def wrong_type(scope, receive, send):
    await start(send)
    await part(send, "text")


class Mapping(collections.UserDict):
    """A message that is no dict."""


async def mappings(scope, receive, send):
    await send(Mapping(type="http.response.start", status=200, headers=[]))
    await send(Mapping(type="http.response.body", body=b"mapped"))


async def no_mapping(scope, receive, send):
    await send("http.response.start")


async def no_status(scope, receive, send):
    await send({"type": "http.response.start"})


async def no_response(scope, receive, send):
    pass


async def incomplete(scope, receive, send):
    await start(send)
    await part(send, b"begun", True)


async def fails(scope, receive, send):
    raise LookupError("before the head")


async def fails_late(scope, receive, send):
    await incomplete(scope, receive, send)
    raise LookupError("after the head")


async def context(scope, receive, send):
    """Return what an earlier request has left in the context."""
    before = seen.get()
    seen.set("something")
    await asyncio.sleep(0)
    assert seen.get() == "something"
    await text(send, before)


async def background(scope, receive, send):
    """Work after the response until another request releases it."""
    released.clear()
    # The task waits once before it responds: from then on the server notices when the client leaves.
    await asyncio.sleep(0.01)
    await text(send, "responded")
    await released.wait()
    say("background work done")


async def release(scope, receive, send):
    released.set()
    await text(send, "released")


async def later(scope, receive, send):
    """Respond after some turns of the loop."""
    await asyncio.sleep(0.5)
    await text(send, "later")


async def slow(scope, receive, send):
    """Respond once a file exists."""
    say("slow request waits")
    while not os.path.exists("released"):
        await asyncio.sleep(0.01)
    await text(send, "at last")
    say("slow request responded")


async def pathsend(scope, receive, send):
    await start(send, headers=[(b"content-length", str(os.path.getsize("file")).encode())])
    await send({"type": "http.response.pathsend", "path": os.path.abspath("file")})


async def zerocopysend(scope, receive, send):
    """Send two parts of a file around a part of the usual kind."""
    with open("file", "rb") as file:
        await start(send)
        await send({"type": "http.response.zerocopysend", "file": file, "offset": 2, "count": 3, "more_body": True})
        await part(send, b"|", True)
        file.seek(6)
        await send({"type": "http.response.zerocopysend", "file": file.fileno()})


async def hints(scope, receive, send):
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
    await text(send, "hinted")


async def trailers(scope, receive, send):
    await start(send, trailers=True, headers=[(b"trailer", b"x-sum, x-more")])
    await part(send, b"body")
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"4")], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": [(b"x-more", b"5")]})


async def hang(scope, receive, send):
    await first_inner()


async def first_inner():
    await second_inner()


async def second_inner():
    await asyncio.get_running_loop().create_future()


async def block(scope, receive, send):
    await asyncio.sleep(0)
    time.sleep(1)
    await text(send, "blocked")


async def events(scope, receive, send):
    """Send events until the client, or the server, disconnects."""
    await start(send, headers=[(b"content-type", b"text/event-stream")])
    await part(send, b"data: first\n\n", True)
    await receive()
    while (await receive())["type"] != "http.disconnect":
        pass
    say("stream of events disconnected")


async def ticks(scope, receive, send):
    """Send events without receiving, which start once a file exists."""
    say("ticks wait")
    while not os.path.exists("released"):
        await asyncio.sleep(0.01)
    await start(send, headers=[(b"content-type", b"text/event-stream; charset=utf-8")])
    while True:
        await part(send, b"data: tick\n\n", True)
        await asyncio.sleep(0.01)


async def give_up(sent):
    """Give up to wait until a part is sent."""
    try:
        await asyncio.wait_for(sent, 0.2)
    except asyncio.TimeoutError:
        say("given up")


async def given_up(scope, receive, send):
    """Give up a part, and send another one."""
    await start(send)
    await give_up(part(send, b"a" * LARGE, True))
    await part(send, b"b")


async def given_up_while_idle(scope, receive, send):
    """Give up a part, and send another one when another request demands it."""
    released.clear()
    await start(send)
    await give_up(part(send, b"a" * LARGE, True))
    await released.wait()
    await part(send, b"b")


async def given_up_at_end(scope, receive, send):
    """Give up the last part, and return."""
    await start(send)
    await give_up(part(send, b"a" * LARGE))


async def given_up_before_trailers(scope, receive, send):
    """Give up the last part, and send trailers."""
    await start(send, trailers=True)
    await give_up(part(send, b"a" * LARGE))
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"4")]})


async def given_up_file(scope, receive, send):
    """Give up a file, close it, and open another one."""
    await start(send)
    with open("file", "rb") as file:
        await give_up(send({"type": "http.response.zerocopysend", "file": file, "more_body": True}))
        descriptor = file.fileno()
    with open(os.devnull, "rb") as other:
        assert other.fileno() == descriptor
        await part(send, b"b")


async def together(scope, receive, send):
    """Send parts from several tasks, each of which would have to wait."""
    await start(send)
    tasks = [asyncio.ensure_future(part(send, letter * LARGE, True)) for letter in (b"a", b"b", b"c")]
    # Each task calls send in this turn of the loop.
    await asyncio.sleep(0)
    say("three tasks send")
    await asyncio.gather(*tasks)
    await part(send, b"")


#: Length of a part that the buffers of the sockets do not hold.
LARGE = 16 << 20
