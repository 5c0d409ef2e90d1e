"""An ASGI application, each path of which treats a WebSocket in another way. What it sees is printed to standard error."""

import asyncio
import gc
import json
import os
import sys
import weakref

#: The tasks of WebSockets that something refers to.
TASKS = weakref.WeakSet()


async def application(scope, receive, send):
    if scope["type"] != "websocket":
        raise RuntimeError("only websocket is served")
    TASKS.add(asyncio.current_task())
    assert (await receive()) == {"type": "websocket.connect"}
    await globals()[scope["path"][len(scope["root_path"]):].split("/")[1]](scope, receive, send)


def say(text):
    print(text, file=sys.stderr, flush=True)


async def echo(scope, receive, send):
    """Return each message, and print how the connection ended."""
    await send({"type": "websocket.accept"})
    message = await receive()
    while message["type"] == "websocket.receive":
        await send(dict(message, type="websocket.send"))
        message = await receive()
    say("echo: %(type)s %(code)d %(reason)r" % message)


async def facts(scope, receive, send):
    """Send the scope as JSON, with bytes as text behind "b:"."""
    subprotocol = scope["subprotocols"][-1] if scope["subprotocols"] else None
    headers = [(b"x-own", b"one"), (b"x-own", b"two")]
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
    shown = json.dumps(scope, default=lambda value: "b:" + value.decode("latin-1"))
    await send({"type": "websocket.send", "text": shown})
    await receive()


async def refuses(scope, receive, send):
    await send({"type": "websocket.close", "code": 1008})


async def denies(scope, receive, send):
    headers = [(b"x-own", b"denied")]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"are you"})


async def denies_at_length(scope, receive, send):
    """Give up two parts of a denial, and return."""
    await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    for letter, more in ((b"a", True), (b"b", False)):
        part = {"type": "websocket.http.response.body", "body": letter * LARGE, "more_body": more}
        try:
            await asyncio.wait_for(send(part), 0.2)
        except asyncio.TimeoutError:
            say("gave up " + letter.decode())


async def denies_in_part(scope, receive, send):
    await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})


async def returns(scope, receive, send):
    pass


async def fails_early(scope, receive, send):
    raise LookupError("before the handshake")


async def fails(scope, receive, send):
    await send({"type": "websocket.accept"})
    await receive()
    raise LookupError("after the handshake")


async def ends(scope, receive, send):
    """Return without a close."""
    await send({"type": "websocket.accept"})


async def tasks(scope, receive, send):
    """Send the number of tasks for each message."""
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        gc.collect()
        await send({"type": "websocket.send", "text": str(len(TASKS))})


async def closes(scope, receive, send):
    """Close with the code and the reason that the client has sent."""
    await send({"type": "websocket.accept"})
    code, reason = (await receive())["text"].split(" ", 1)
    await send({"type": "websocket.close", "code": int(code), "reason": reason})
    try:
        await send({"type": "websocket.send", "text": "after the close"})
    except OSError as error:
        say("send raised " + type(error).__name__)
    say("then received %(type)s %(code)d" % await receive())


async def deaf(scope, receive, send):
    """Receive one message, and close once a file exists, whatever else has arrived."""
    await send({"type": "websocket.accept"})
    say("deaf: accepted")
    await receive()
    say("deaf: received one message")
    while not os.path.exists("released"):
        await asyncio.sleep(0.01)
    await send({"type": "websocket.close", "code": 4000})


async def stubborn(scope, receive, send):
    """Neither receive nor send."""
    await send({"type": "websocket.accept"})
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("stubborn task cancelled")
        raise


async def stubborn_receiver(scope, receive, send):
    """Receive the disconnect, and go on."""
    await send({"type": "websocket.accept"})
    await receive()
    await stubborn(scope, receive, lambda message: asyncio.sleep(0))


async def floods(scope, receive, send):
    """Send more than any buffer holds, without receiving."""
    await send({"type": "websocket.accept"})
    for number in range(50):
        await send({"type": "websocket.send", "bytes": bytes([number]) * 100_000})
    await receive()


async def impatient(scope, receive, send):
    """Echo, and cancel each receive() that takes long."""
    await send({"type": "websocket.accept"})
    while True:
        try:
            message = await asyncio.wait_for(receive(), 0.01)
        except asyncio.TimeoutError:
            say("receive() cancelled")
            continue
        if message["type"] == "websocket.disconnect":
            return
        await send(dict(message, type="websocket.send"))


#: Length of a part that the buffers of the sockets do not hold.
LARGE = 16 << 20
