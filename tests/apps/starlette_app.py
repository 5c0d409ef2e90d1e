"""A Starlette application: a stack of middleware, server-sent events of sse-starlette, and files."""

import asyncio
import contextlib
import sys

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute


def say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"visits": []}


class Marks(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["X-Marked"] = "yes"
        return response


async def visits(request):
    request.state.visits.append(request.url.query)
    return JSONResponse(request.state.visits)


async def echo(request):
    return PlainTextResponse(await request.body())


async def events(request):
    async def each():
        try:
            for number in range(int(request.query_params["n"])):
                yield {"event": "count", "data": number}
                await asyncio.sleep(0.05)
        finally:
            say("events ended")

    return EventSourceResponse(each())


async def file(request):
    return FileResponse("file")


class Echo(WebSocketEndpoint):
    encoding = "bytes"

    async def on_receive(self, websocket, data):
        await websocket.send_bytes(data)

    async def on_disconnect(self, websocket, close_code):
        say("endpoint disconnected with %d" % close_code)


app = Starlette(
    lifespan=lifespan,
    middleware=[Middleware(GZipMiddleware, minimum_size=100_000), Middleware(Marks)],
    routes=[
        Route("/visits", visits),
        Route("/echo", echo, methods=["POST"]),
        Route("/events", events),
        Route("/file", file),
        WebSocketRoute("/ws", Echo),
    ],
)
