"""A Litestar application with common features. What it sees is printed to standard error."""

import asyncio
import hashlib
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Litestar, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State, UploadFile
from litestar.enums import RequestEncodingType
from litestar.exceptions import WebSocketDisconnect
from litestar.params import Body
from litestar.response import Response, Stream


def say(text):
    print(text, file=sys.stderr, flush=True)


@asynccontextmanager
async def lifespan(app):
    app.state.word = "from the lifespan"
    yield
    say("lifespan ended")


@dataclass
class Item:
    name: str
    price: float


@dataclass
class Form:
    title: str
    file: UploadFile


@get("/items/{number:int}")
async def item(number: int, q: str, state: State) -> dict[str, Any]:
    return {"number": number, "q": q, "word": state.word}


@post("/items", status_code=200)
async def create(data: Item) -> Item:
    return data


@post("/upload", status_code=200)
async def upload(data: Annotated[Form, Body(media_type=RequestEncodingType.MULTI_PART)]) -> list[Any]:
    content = await data.file.read()
    return [data.file.filename, data.title, len(content), hashlib.sha256(content).hexdigest()]


@get("/stream")
async def stream() -> Stream:
    async def parts():
        for number in range(100):
            yield b"part %d\n" % number
            await asyncio.sleep(0)

    return Stream(parts(), media_type="text/plain")


@get("/endless")
async def endless() -> Stream:
    async def parts():
        try:
            while True:
                yield b"." * 1000
                await asyncio.sleep(0.01)
        finally:
            say("endless stream closed")

    return Stream(parts())


@get("/background")
async def background() -> Response[str]:
    return Response("responded", background=BackgroundTask(say, "background task done"))


@get("/fails")
async def fails() -> None:
    raise RuntimeError("asked for")


@websocket("/ws/{name:str}")
async def ws(socket: WebSocket, name: str, state: State) -> None:
    await socket.accept()
    await socket.send_json({"name": name, "word": state.word})
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        say("websocket ended")


app = Litestar([item, create, upload, stream, endless, background, fails, ws], lifespan=[lifespan])
