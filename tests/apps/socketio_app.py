"""python-socketio's ASGI application beside another one. What it sees is printed to standard error."""

import sys

import socketio


def say(text):
    print(text, file=sys.stderr, flush=True)


async def other(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"of the other application"})


def on_startup():
    say("socket.io started")


def on_shutdown():
    say("socket.io ended")


server = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(server, other, on_startup=on_startup, on_shutdown=on_shutdown)


@server.event
async def connect(sid, environ, auth):
    if auth != {"token": "known"}:
        raise socketio.exceptions.ConnectionRefusedError("who are you")
    await server.save_session(sid, {"path": environ["PATH_INFO"]})
    await server.enter_room(sid, "all")


@server.event
async def disconnect(sid, reason):
    say("socket.io client ended: %s" % reason)


@server.event
async def echo(sid, data):
    return data


@server.event
async def tell(sid, data):
    await server.emit("told", data, room="all")


@server.event
async def whoami(sid):
    return [server.transport(sid), (await server.get_session(sid))["path"]]


@server.event
async def leave(sid):
    await server.disconnect(sid)
