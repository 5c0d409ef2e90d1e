"""A FastAPI application with common features. What it sees is printed to standard error."""

import asyncio
import hashlib
import sys
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, Form, HTTPException, Request, UploadFile, WebSocket
from fastapi import WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


def say(text):
    print(text, file=sys.stderr, flush=True)


@asynccontextmanager
async def lifespan(app):
    yield {"word": "from the lifespan"}
    say("lifespan ended")


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    price: float


async def session():
    say("session opened")
    try:
        yield "session"
    finally:
        say("session closed")


@app.get("/")
async def home(request: Request):
    return {"word": request.state.word}


@app.get("/thread")
def in_a_thread():
    return "of a thread"


@app.post("/items/{number}")
async def items(number: int, item: Item):
    return {"number": number, "name": item.name, "price": item.price}


@app.get("/depends")
async def depends(session: Annotated[str, Depends(session)]):
    return session


@app.get("/forbidden")
async def forbidden(session: Annotated[str, Depends(session)]):
    raise HTTPException(403, "not for you")


@app.get("/fails")
async def fails(session: Annotated[str, Depends(session)]):
    raise RuntimeError("asked for")


@app.get("/background")
async def background(tasks: BackgroundTasks):
    tasks.add_task(say, "background task done")
    return "responded"


@app.get("/stream")
async def stream():
    async def parts():
        for number in range(100):
            yield b"part %d\n" % number
            await asyncio.sleep(0)

    return StreamingResponse(parts(), media_type="text/plain")


@app.get("/endless")
async def endless():
    async def parts():
        try:
            while True:
                yield b"." * 1000
                await asyncio.sleep(0.01)
        finally:
            say("endless stream closed")

    return StreamingResponse(parts())


@app.post("/upload")
async def upload(file: UploadFile, title: Annotated[str, Form()]):
    content = await file.read()
    return [file.filename, title, len(content), hashlib.sha256(content).hexdigest()]


@app.websocket("/ws/{name}")
async def ws(websocket: WebSocket, name: str, session: Annotated[str, Depends(session)]):
    await websocket.accept()
    await websocket.send_json({"name": name, "session": session, "word": websocket.state.word})
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect as disconnect:
        say("disconnected with %d" % disconnect.code)
