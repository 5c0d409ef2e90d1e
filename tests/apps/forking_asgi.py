"""An ASGI application that forks. The path says from where, the query what the child does; `/pid` returns the worker's PID."""

import asyncio
import atexit
import multiprocessing
import os
import sys
import threading


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    result = await globals()["from_" + scope["path"][1:]](scope["query_string"].decode(), receive, send)
    if result is not None:
        await text(send, "%s\n" % result)


async def text(send, words):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": words.encode()})


async def from_pid(then, receive, send):
    return os.getpid()


async def from_request(then, receive, send):
    """Return the child's exit status."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    # What the child's copy of the loop would run next.
    loop.call_soon(note_process)
    child = os.fork()
    if child:
        return status_of(child)
    atexit.register(tell, then)
    if then == "exits":
        sys.exit(7)
    if then == "raises":
        raise RuntimeError("in the child")
    if then == "waits":
        await future
    if then == "receives":
        while (await receive())["type"] == "http.request":
            pass
    if then == "sends":
        await text(send, "from the child\n")
    return None


async def from_task(then, receive, send):
    """Fork in a task that is not that of the request."""
    return await asyncio.get_running_loop().create_task(fork_after_a_step())


async def fork_after_a_step():
    await asyncio.sleep(0)
    return fork()


async def from_callback(then, receive, send):
    loop = asyncio.get_running_loop()
    forked = loop.create_future()
    loop.call_soon(lambda: forked.set_result(fork()))
    return await forked


async def from_pool(then, receive, send):
    return await asyncio.get_running_loop().run_in_executor(None, fork)


async def from_thread(then, receive, send):
    loop = asyncio.get_running_loop()
    forked = loop.create_future()

    def run():
        status = fork()
        if status is not None:
            loop.call_soon_threadsafe(forked.set_result, status)

    threading.Thread(target=run).start()
    return await forked


async def from_multiprocessing(then, receive, send):
    made = multiprocessing.get_context("fork").Process(target=work)
    made.start()
    made.join()
    return made.exitcode


def work():
    # A profile function would make every call of the process slow.
    sys.exit(9 if sys.getprofile() is None else 8)


def fork():
    """Return the child's exit status, in the parent."""
    child = os.fork()
    return status_of(child) if child else None


def status_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def note_process():
    with open("processes", "a") as file:
        file.write("%d\n" % os.getpid())


def tell(then):
    with open("atexit", "a") as file:
        file.write(then + "\n")
