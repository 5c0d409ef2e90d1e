"""An ASGI application that prints the events of its lifespan, and whose startup is what the file `startup` says."""

import asyncio
import os
import sys


def say(text):
    print(text, file=sys.stderr, flush=True)


say("imported in %d" % os.getpid())
with open("startup") as file:
    startup = file.read()


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": startup.encode() + b" " + str(scope.get("state")).encode()})


async def lifespan(scope, receive, send):
    if startup == "unsupported":
        raise RuntimeError("only http is served")
    message = await receive()
    say("%s in %d" % (message["type"], os.getpid()))
    if startup == "fails":
        return await send({"type": "lifespan.startup.failed", "message": "the database is away"})
    if startup == "raises":
        raise LookupError("the database is away")
    if startup == "hangs":
        await asyncio.sleep(100)
    scope["state"]["pid"] = os.getpid()
    await send({"type": "lifespan.startup.complete"})
    message = await receive()
    say(message["type"])
    if startup == "fails at the end":
        return await send({"type": "lifespan.shutdown.failed", "message": "the database stays"})
    if startup == "never ends":
        await asyncio.sleep(100)
    await send({"type": "lifespan.shutdown.complete"})
