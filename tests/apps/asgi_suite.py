"""What the test suites of Starlette and asgiref exercise in memory, as one application to be served.

What it sees is printed to standard error.
"""

import asyncio
import sys
import threading

import flask
from asgiref.local import Local
from asgiref.sync import async_to_sync, sync_to_async
from asgiref.wsgi import WsgiToAsgi
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect


def say(text):
    print(text, file=sys.stderr, flush=True)


class Marks:
    """A middleware without Starlette's base class, which ends broken streams as if they were complete."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def marked(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-marked", b"yes")]
            await send(message)

        await self.app(scope, receive, marked)


async def shown(request):
    return JSONResponse(
        {
            "method": request.method,
            "path": request.path_params["path"],
            "query": request.query_params.multi_items(),
            "agent": request.headers["user-agent"],
            "cookies": request.cookies,
            "url": str(request.url),
            "body": (await request.body()).decode(),
        }
    )


async def lengths(request):
    """Receive the body in parts while the response is sent in parts."""

    async def each():
        total = 0
        async for part in request.stream():
            total += len(part)
            yield b"%d\n" % total

    return StreamingResponse(each(), media_type="text/plain")


async def abandoned(request):
    try:
        await request.body()
    except ClientDisconnect:
        say("client left within the body")
    return Response()


async def form(request):
    async with request.form() as form:
        fields = {}
        for name, value in form.multi_items():
            fields[name] = value if isinstance(value, str) else [value.filename, len(await value.read())]
    return JSONResponse(fields)


async def background(request):
    tasks = BackgroundTasks()
    tasks.add_task(asyncio.sleep, 0.01)
    tasks.add_task(say, "background task done")
    return PlainTextResponse("responded", background=tasks)


async def background_failure(request):
    async def task():
        raise RuntimeError("in the background")

    tasks = BackgroundTasks()
    tasks.add_task(task)
    return PlainTextResponse("responded", background=tasks)


async def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JSONResponse(request.session["visits"])


async def broken_stream(request):
    async def parts():
        yield b"." * 1000
        raise RuntimeError("within the response")

    return StreamingResponse(parts())


async def redirect(request):
    return RedirectResponse("/shown/redirected")


async def refused(request):
    raise HTTPException(418, "a teapot", headers={"X-Kind": "tea"})


async def handled(request):
    raise LookupError("nothing here")


async def on_lookup_error(request, error):
    return PlainTextResponse(str(error), status_code=404)


async def disconnects(request):
    """Wait until the client has left."""
    say("waits for a disconnect")
    while not await request.is_disconnected():
        await asyncio.sleep(0.01)
    say("disconnected")
    return Response()


class Verbs(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("get")

    def delete(self, request):
        # Not a coroutine: in a thread.
        return PlainTextResponse("deleted" if threading.current_thread() is not threading.main_thread() else "main")


local = Local()


async def threads(request):
    """Pass from the loop to a thread and back, with asgiref's locals."""
    local.value = "kept"

    def in_a_thread():
        assert local.value == "kept"
        return async_to_sync(in_the_loop)()

    async def in_the_loop():
        return [local.value, asyncio.get_running_loop() is loop]

    loop = asyncio.get_running_loop()
    seen = await sync_to_async(in_a_thread)()
    pool = await run_in_threadpool(threading.current_thread)
    return JSONResponse([*seen, pool is threading.main_thread()])


class Counts(WebSocketEndpoint):
    encoding = "json"

    async def on_connect(self, websocket):
        await websocket.accept(subprotocol=websocket.scope["subprotocols"][0], headers=[(b"x-own", b"yes")])

    async def on_receive(self, websocket, data):
        await websocket.send_json({"received": data})

    async def on_disconnect(self, websocket, close_code):
        say("endpoint disconnected with %d" % close_code)


async def chat(websocket):
    """Send by one task and receive by another."""
    await websocket.accept()
    queue = asyncio.Queue()

    async def sends():
        while True:
            await websocket.send_text(await queue.get())

    sender = asyncio.create_task(sends())
    try:
        async for text in websocket.iter_text():
            queue.put_nowait(text.upper())
    finally:
        sender.cancel()
        say("chat ended")


async def denied(websocket):
    await websocket.send_denial_response(JSONResponse({"who": "are you"}, status_code=401))


async def closing(websocket):
    await websocket.accept()
    await websocket.close(4001, "enough")
    try:
        await websocket.receive_text()
    except (WebSocketDisconnect, RuntimeError) as error:
        say("after the close: %s" % type(error).__name__)


wsgi = flask.Flask(__name__)


@wsgi.post("/echo/<name>")
def echo(name):
    return {"name": name, "root": flask.request.script_root, "body": flask.request.get_data(as_text=True)}


def any_method(path, endpoint):
    return Route(path, endpoint, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


app = Starlette(
    middleware=[
        Middleware(CORSMiddleware, allow_origins=["https://known"], allow_methods=["PUT"]),
        Middleware(GZipMiddleware, minimum_size=10_000),
        Middleware(SessionMiddleware, secret_key="of the tests"),
        Middleware(Marks),
    ],
    exception_handlers={LookupError: on_lookup_error},
    routes=[
        any_method("/shown/{path:path}", shown),
        any_method("/lengths", lengths),
        any_method("/abandoned", abandoned),
        any_method("/form", form),
        Route("/background", background),
        Route("/background_failure", background_failure),
        Route("/visits", visits),
        Route("/broken_stream", broken_stream),
        Route("/redirect", redirect),
        Route("/refused", refused),
        Route("/handled", handled),
        Route("/disconnects", disconnects),
        Route("/verbs", Verbs),
        Route("/threads", threads),
        Mount("/files", StaticFiles(directory=".", check_dir=False)),
        Mount("/flask", WsgiToAsgi(wsgi)),
        WebSocketRoute("/counts", Counts),
        WebSocketRoute("/chat", chat),
        WebSocketRoute("/denied", denied),
        WebSocketRoute("/closing", closing),
    ],
)
