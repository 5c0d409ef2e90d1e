"""Serves in a bare asyncio loop: watches the engine's descriptor, and waits for what its wakers tell."""

import asyncio
import ctypes

FAILED, NOT_YET, WELL = -1, 0, 1


def native(address, *arguments):
    # Holds the lock of the interpreter: nothing that is called here takes long.
    return ctypes.PYFUNCTYPE(ctypes.c_int64, *arguments)(address)


def run(descriptor, turn, came, woken, delay, read, put):
    number = ctypes.c_int64
    functions = native(turn), native(came), native(woken)
    functions += native(delay, number), native(read, number), native(put, number)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(serve(descriptor, *functions))
    loop.close()


async def serve(descriptor, turn, came, woken, delay, read, put):
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    waiting = {}
    tasks = set()

    async def until(step, number):
        """Until a step of the exchange with that number need not wait any more."""
        result = step(number)
        while result == NOT_YET:
            waiting[number] = loop.create_future()
            await waiting[number]
            result = step(number)
        if result == FAILED:
            raise ConnectionError("the exchange has failed")

    async def answer(number):
        await until(read, number)
        await asyncio.sleep(delay(number) / 1000)
        await until(put, number)

    def on_readable():
        turned = turn()
        while number := woken():
            waiter = waiting.pop(number, None)
            if waiter is not None:
                waiter.set_result(None)
        while number := came():
            task = loop.create_task(answer(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if turned == WELL and not over.done():
            over.set_result(None)
        if turned == FAILED and not over.done():
            over.set_exception(RuntimeError("the engine cannot turn"))

    loop.add_reader(descriptor, on_readable)
    on_readable()
    await over
    loop.remove_reader(descriptor)
