"""A BlackSheep application with common features. What it sees is printed to standard error."""

import asyncio
import hashlib
import sys
from dataclasses import dataclass

from blacksheep import Application, FromJSON, Request, Response, StreamedContent, WebSocket, WebSocketDisconnectError
from blacksheep import json, text


def say(text):
    print(text, file=sys.stderr, flush=True)


app = Application()
words = {}


@app.lifespan
async def lifespan():
    words["word"] = "from the lifespan"
    yield
    say("lifespan ended")


@dataclass
class Item:
    name: str
    price: float


@app.router.get("/items/{int:number}")
async def item(number: int, q: str):
    return json({"number": number, "q": q, "word": words["word"]})


@app.router.post("/items")
async def create(item: FromJSON[Item]):
    return json({"name": item.value.name, "price": item.value.price})


@app.router.post("/upload")
async def upload(request: Request):
    parts = {part.name: part for part in await request.multipart()}
    file = parts[b"file"]
    title = parts[b"title"].data.decode()
    return json([file.file_name.decode(), title, len(file.data), hashlib.sha256(file.data).hexdigest()])


@app.router.get("/stream")
async def stream():
    async def parts():
        for number in range(100):
            yield b"part %d\n" % number
            await asyncio.sleep(0)

    return Response(200, content=StreamedContent(b"text/plain", parts))


@app.router.get("/endless")
async def endless():
    async def parts():
        try:
            while True:
                yield b"." * 1000
                await asyncio.sleep(0.01)
        finally:
            say("endless stream closed")

    return Response(200, content=StreamedContent(b"text/plain", parts))


@app.router.get("/background")
async def background():
    async def task():
        say("background task done")

    words["task"] = asyncio.create_task(task())
    return text("responded")


@app.router.get("/fails")
async def fails():
    raise RuntimeError("asked for")


@app.router.ws("/ws/{name}")
async def ws(websocket: WebSocket, name: str):
    await websocket.accept()
    await websocket.send_json({"name": name, "word": words["word"]})
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnectError:
        say("websocket ended")
