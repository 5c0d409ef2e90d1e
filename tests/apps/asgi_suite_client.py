"""Client for asgi_suite.py, using the packages httpx and websockets: asgi_suite_client.py URL

The server's directory has the file large.txt: 100,000 times "x".
"""

import asyncio
import json
import sys

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

url = sys.argv[1]
ws_url = url.replace("http", "ws", 1)


async def requests(http):
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        body = "" if method == "GET" else "b\u00f6dy"
        params = [("a", "1"), ("a", "2"), ("empty", "")]
        response = await http.request(method, "/shown/p%C3%A4th/%2F", params=params, content=body.encode())
        seen = response.json()
        assert seen["method"] == method and seen["path"] == "p\u00e4th//", seen
        assert seen["query"] == [["a", "1"], ["a", "2"], ["empty", ""]], seen
        assert seen["agent"].startswith("python-httpx/") and seen["body"] == body, seen
        assert seen["url"].startswith(url + "/shown/"), seen
        assert response.headers["x-marked"] == "yes"
    response = await http.get("/shown/cookies", headers={"Cookie": "one=1; two=2"})
    assert response.json()["cookies"] == {"one": "1", "two": "2"}
    assert (await http.get("/redirect", follow_redirects=True)).json()["path"] == "redirected"
    response = await http.get("/refused")
    assert (response.status_code, response.text, response.headers["x-kind"]) == (418, "a teapot", "tea")
    response = await http.get("/handled")
    assert (response.status_code, response.text) == (404, "nothing here")
    assert (await http.post("/redirect")).status_code == 405
    assert (await http.delete("/verbs")).text == "deleted"
    assert (await http.get("/verbs")).text == "get"
    assert (await http.get("/threads")).json() == ["kept", True, False]
    for _ in range(2):
        many = await asyncio.gather(*(http.get("/shown/%d" % number) for number in range(100)))
        assert [response.json()["path"] for response in many] == [str(number) for number in range(100)]


async def bodies(http):
    async def parts():
        for _ in range(20):
            yield b"." * 10_000
            await asyncio.sleep(0)

    async with http.stream("POST", "/lengths", content=parts()) as response:
        totals = [int(line) async for line in response.aiter_lines()]
    assert totals == sorted(totals) and totals[-1] == 200_000, totals
    files = {"file": ("a.bin", b"\0" * 2_000_000), "other": ("b.txt", b"text")}
    response = await http.post("/form", data={"title": "a title"}, files=files)
    assert response.json() == {"title": "a title", "file": ["a.bin", 2_000_000], "other": ["b.txt", 4]}
    assert (await http.post("/form", data={"a": "1", "b": "\u00fc"})).json() == {"a": "1", "b": "\u00fc"}
    response = await http.post("/flask/echo/me", content="." * 200_000)
    assert response.json() == {"name": "me", "root": "/flask", "body": "." * 200_000}
    assert (await http.post("/flask/nothing")).status_code == 404
    assert (await http.get("/background")).text == "responded"
    assert (await http.get("/background_failure")).text == "responded"
    try:
        await http.get("/broken_stream")
        raise SystemExit("the end of a broken stream is not noticed")
    except httpx.RemoteProtocolError:
        pass
    response = await http.post("/shown/large", content="x" * 50_000)
    assert response.headers["content-encoding"] == "gzip" and response.json()["body"] == "x" * 50_000
    assert [(await http.get("/visits")).json() for _ in range(3)] == [1, 2, 3]


async def files(http):
    response = await http.get("/files/large.txt")
    assert response.text == "x" * 100_000 and response.headers["content-length"] == "100000"
    again = await http.get("/files/large.txt", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    part = await http.get("/files/large.txt", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.text) == (206, "x" * 10)
    assert part.headers["content-range"] == "bytes 10-19/100000"
    head = await http.head("/files/large.txt")
    assert head.headers["content-length"] == "100000" and head.content == b""
    assert (await http.get("/files/missing.txt")).status_code == 404
    assert (await http.get("/files/%2e%2e/%2e%2e/etc/passwd")).status_code == 404
    preflight = {"Origin": "https://known", "Access-Control-Request-Method": "PUT"}
    response = await http.options("/shown/x", headers=preflight)
    assert response.headers["access-control-allow-origin"] == "https://known"
    preflight["Origin"] = "https://unknown"
    assert (await http.options("/shown/x", headers=preflight)).status_code == 400


async def sockets():
    async with connect(ws_url + "/counts", subprotocols=["first", "second"]) as ws:
        assert ws.subprotocol == "first" and ws.response.headers["x-own"] == "yes"
        for data in (1, ["two"], {"three": "\u00fc" * 100_000}):
            await ws.send(json.dumps(data))
            assert json.loads(await ws.recv()) == {"received": data}
        await ws.send("not JSON")
        await ends(ws, 1003)
    async with connect(ws_url + "/chat") as ws:
        for number in range(200):
            await ws.send("message %d" % number)
        assert [await ws.recv() for _ in range(200)] == ["MESSAGE %d" % number for number in range(200)]
    try:
        await connect(ws_url + "/denied")
        raise SystemExit("not denied")
    except InvalidStatus as error:
        assert error.response.status_code == 401 and json.loads(error.response.body) == {"who": "are you"}
    async with connect(ws_url + "/closing") as ws:
        await ends(ws, 4001, "enough")
    many = await asyncio.gather(*(connect(ws_url + "/chat") for _ in range(50)))
    for number, ws in enumerate(many):
        await ws.send("m%d" % number)
    assert [await ws.recv() for ws in many] == ["M%d" % number for number in range(50)]
    await asyncio.gather(*(ws.close() for ws in many))


async def ends(ws, code, reason=None):
    try:
        await ws.recv()
        raise SystemExit("no end with %d" % code)
    except ConnectionClosed as closed:
        assert closed.rcvd.code == code, closed
        assert reason is None or closed.rcvd.reason == reason, closed


async def leaves(http):
    async def slow():
        yield b"the start"
        await asyncio.sleep(60)

    # The subject is a client that gives up.
    requests = http.get("/disconnects"), http.post("/abandoned", content=slow())
    for task in [asyncio.create_task(request) for request in requests]:
        done, pending = await asyncio.wait([task], timeout=0.5)
        assert pending, task
        task.cancel()


async def main():
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        await requests(http)
        await bodies(http)
        await files(http)
        await leaves(http)
    await sockets()


asyncio.run(asyncio.wait_for(main(), 50))
print("well")
