"""A Quart application with common features. What it sees is printed to standard error."""

import asyncio
import hashlib
import sys

from quart import Quart, request, websocket


def say(text):
    print(text, file=sys.stderr, flush=True)


app = Quart(__name__)


@app.while_serving
async def lifespan():
    app.config["WORD"] = "from the lifespan"
    yield
    say("lifespan ended")


@app.get("/items/<int:number>")
async def item(number):
    return {"number": number, "q": request.args["q"], "word": app.config["WORD"]}


@app.post("/items")
async def create():
    return await request.get_json()


@app.post("/upload")
async def upload():
    file = (await request.files)["file"]
    content = file.read()
    return [file.filename, (await request.form)["title"], len(content), hashlib.sha256(content).hexdigest()]


@app.get("/stream")
async def stream():
    async def parts():
        for number in range(100):
            yield b"part %d\n" % number
            await asyncio.sleep(0)

    return parts(), {"Content-Type": "text/plain"}


@app.get("/endless")
async def endless():
    async def parts():
        try:
            while True:
                yield b"." * 1000
                await asyncio.sleep(0.01)
        finally:
            say("endless stream closed")

    return parts()


@app.get("/background")
async def background():
    async def task():
        say("background task done")

    app.add_background_task(task)
    return "responded"


@app.get("/fails")
async def fails():
    raise RuntimeError("asked for")


@app.websocket("/ws/<name>")
async def ws(name):
    await websocket.accept()
    await websocket.send_json({"name": name, "word": app.config["WORD"]})
    try:
        while True:
            await websocket.send(await websocket.receive())
    finally:
        say("websocket ended")
