"""The event loop of an ASGI application: its tasks, and the lifespan protocol (ASGI lifespan specification 2.0).

The loop watches the descriptor of the worker class's engine. A turn of the engine calls start() for each request.
"""

import asyncio
import concurrent.futures.thread
import contextvars
import importlib
import logging
import os
import selectors
import sys
import threading
import time
import traceback

import _jimu_process as process
import jimu

#: Whether a task can run its first step at once.
_EAGER = sys.version_info >= (3, 12)
#: How often a heartbeat is sent while the application starts or shuts down.
_BEAT_SECONDS = 0.5
#: How long tasks that were cancelled may take to end.
_CANCEL_SECONDS = 0.5
#: How much later than graceful_timeout the application's shutdown may end.
_SHUT_DOWN_SECONDS = 1.5


def run(engine, application):
    """Run the event loop until the engine has stopped."""
    loop = _new_loop(jimu._setting("asgi_loop") or "auto")
    asyncio.set_event_loop(loop)
    server = _Server(loop, engine, application)
    os.register_at_fork(after_in_child=_end_where_the_child_returns)
    try:
        loop.run_until_complete(server.serve())
    finally:
        try:
            _cancel_all(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


#: The innermost code of a thread whose loop waits: that of asyncio, and run() under uvloop, which is written in C.
_WAITING = {selectors.EpollSelector.select.__code__, run.__code__}


def await_stack(task):
    """Return the frames in which a task waits, the outermost first."""
    lines, awaited = [repr(task) + ":\n"], task.get_coro()
    while awaited is not None:
        frame = None
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(awaited, prefix + "_frame", None)
            if frame is not None:
                lines.extend(traceback.format_stack(frame, 1))
                awaited = getattr(awaited, prefix + ("_yieldfrom" if prefix == "gi" else "_await"), None)
                break
        if frame is None:
            break
    return "".join(lines)


def _new_loop(name):
    """Return a new event loop, as the setting asgi_loop names it."""
    if name == "auto":
        try:
            name, uvloop = "uvloop", importlib.import_module("uvloop")
        except ImportError:
            name = "asyncio"
    if name == "asyncio":
        return asyncio.new_event_loop()
    if name == "uvloop":
        try:
            return importlib.import_module("uvloop").new_event_loop()
        except ImportError:
            raise jimu.ApplicationError("asgi_loop is uvloop, which is not installed in %s" % sys.prefix) from None
    module, _, factory = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise jimu.ApplicationError("asgi_loop is %r: %s" % (name, error)) from None
    return make()


#: The code from which a loop and a pool of threads call the application.
_CALLERS = {run.__code__, asyncio.Handle._run.__code__, concurrent.futures.thread._WorkItem.run.__code__}


def _end_where_the_child_returns():
    """Make a process that the application has forked end where its code returns to the loop, which belongs to the parent.

    A task returns to the loop where it waits, too: the loop of the child would serve copies of the other tasks.
    """
    callers = _CALLERS | {getattr(type(threading.current_thread()).run, "__code__", None)}
    frame = sys._getframe(1)
    while frame.f_code is not _Server._serve.__code__ and (frame.f_back is None or frame.f_back.f_code not in callers):
        if frame.f_back is None or frame.f_globals.get("__name__") == "multiprocessing.popen_fork":
            # This child ends by itself.
            return
        frame = frame.f_back

    def profile(at, event, argument):
        if at is frame and event == "return":
            sys.setprofile(None)
            # When a request ends, _end() ends the process.
            waits = frame.f_code is _Server._serve.__code__
            process.end_child(RuntimeError("the event loop belongs to the parent process") if waits else None, False)

    sys.setprofile(profile)


def _cancel_all(loop):
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


class _Server:
    def __init__(self, loop, engine, application):
        self._loop = loop
        self._engine = engine
        self._application = application
        self._grace = jimu._setting("asgi_disconnect_grace_period")
        self._graceful_timeout = jimu._setting("graceful_timeout") or 0
        self._stopped = loop.create_future()
        self._drained_from = 0.0
        self._timer = None
        #: The requests whose tasks have not ended in their first step, by task.
        self.tasks = {}
        # These are made once: with a context and a method each, a request would cost the collector more.
        self._context = contextvars.copy_context()
        self._forget = self._ended

    async def serve(self):
        """Start the application, serve until the engine has stopped, and shut the application down."""
        lifespan = _Lifespan(self._application, jimu._setting("asgi_lifespan") or "auto")
        await lifespan.start_up()
        watchdog = _Watchdog(self._loop, jimu._setting("greenlet_block_warning"))
        loop, engine = self._loop, self._engine
        engine.start(loop.create_future, self._arm, lifespan.state, self._start, self._gone, self._stop)
        descriptor = engine.descriptor()
        loop.add_reader(descriptor, self._turn)
        loop.call_soon(self._turn)
        try:
            await self._stopped
        finally:
            if self._timer is not None:
                self._timer.cancel()
            loop.remove_reader(descriptor)
            watchdog.stop()
        # The arbiter aborts a worker that has not ended two seconds after graceful_timeout.
        until = self._drained_from + self._graceful_timeout
        await self._end_tasks(until)
        await self._beating(lifespan.shut_down(), until + _SHUT_DOWN_SECONDS)

    def _arm(self, nanoseconds):
        """Set the timer for what is due first for WebSockets."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(nanoseconds / 1e9, self._run, self._engine.tick)

    def _turn(self):
        self._run(self._engine.turn)

    def _run(self, step):
        try:
            step()
        except BaseException as error:
            if not self._stopped.done():
                self._stopped.set_exception(error)

    def _stop(self, drained_ns):
        self._drained_from = time.monotonic() - drained_ns / 1e9
        if not self._stopped.done():
            self._stopped.set_result(None)

    def _start(self, request, scope, receive, send):
        """Start the task of a request. Return it, or None if it has ended."""
        served = self._serve(request, scope, receive, send)
        if _EAGER and self._loop.get_task_factory() is None:
            task = asyncio.Task(served, loop=self._loop, eager_start=True)
            if task.done():
                return None
        else:
            task = self._loop.create_task(served)
        self.tasks[task] = request
        task.add_done_callback(self._forget, context=self._context)
        return task

    def _ended(self, task):
        request = self.tasks.pop(task)
        if task.cancelled():
            # Before its first step: _serve() has not run. Otherwise the request has ended, and this does nothing.
            request._end(asyncio.CancelledError())

    async def _serve(self, request, scope, receive, send):
        try:
            await self._application(scope, receive, send)
        except BaseException as error:
            if not request._end(error) and not isinstance(error, asyncio.CancelledError):
                jimu.report("%s %s: error after the response" % (scope.get("method", "WebSocket"), scope["path"]))
        else:
            request._end(None)

    def _gone(self, task, is_late):
        """Handle the disconnect of a client, or a deadline that has passed."""
        if is_late:
            # The log has its stack already.
            task.cancel()
        elif self._grace is not None and not task.done():
            timer = self._loop.call_later(self._grace, task.cancel)
            # The timer would keep the task.
            task.add_done_callback(lambda _: timer.cancel(), context=self._context)

    async def _end_tasks(self, until):
        """Wait for tasks that still run, such as background tasks after a response, and cancel them at `until`."""
        while self.tasks and time.monotonic() < until:
            self._engine.beat()
            await asyncio.wait(list(self.tasks), timeout=min(_BEAT_SECONDS, until - time.monotonic()))
        if self.tasks:
            jimu._log(logging.WARNING, "asgi", "%d tasks cancelled: they did not end within graceful_timeout"
                      % len(self.tasks))
            tasks = list(self.tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)

    async def _beating(self, awaited, until):
        """Await with heartbeats, until `until` at the latest."""
        task = self._loop.create_task(awaited)
        await asyncio.sleep(0)
        while not task.done() and time.monotonic() < until:
            self._engine.beat()
            await asyncio.wait([task], timeout=min(_BEAT_SECONDS, max(0, until - time.monotonic())))
        if task.done():
            return task.result()
        jimu._log(logging.WARNING, "asgi", "the application's lifespan shutdown did not end within graceful_timeout")
        task.cancel()


class _Watchdog:
    """Names what blocks the loop for longer than `limit` seconds, once per occurrence. None disables it.

    A thread sends the loop a mark, and looks whether it has been seen in time.
    """

    def __init__(self, loop, limit):
        self._loop = loop
        self._limit = limit
        self._main = threading.get_ident()
        self._sent = None
        self._stopped = threading.Event()
        self._thread = None
        if limit:
            self._thread = threading.Thread(target=self._watch, name="jimu-watchdog", daemon=True)
            self._thread.start()

    def stop(self):
        """Return once the thread has ended: it may be about to use the loop, which is closed next."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self):
        reported = False
        while not self._stopped.wait(self._limit / 4):
            sent = self._sent
            if sent is None:
                reported = False
                if self._is_idle():
                    continue
                self._sent = time.monotonic()
                self._loop.call_soon_threadsafe(self._seen)
            elif not reported and time.monotonic() - sent >= self._limit:
                reported = True
                self._report(time.monotonic() - sent)

    def _is_idle(self):
        """Return whether the loop waits for events: a mark would wake it up."""
        frame = sys._current_frames().get(self._main)
        return frame is not None and frame.f_code in _WAITING

    def _seen(self):
        self._sent = None

    def _report(self, seconds):
        frame = sys._current_frames().get(self._main)
        if frame is None:
            return
        code, stack = frame.f_code, "".join(traceback.format_stack(frame))
        jimu._log(logging.WARNING, "asgi", "the event loop has been blocked for %.1f seconds by %s:%d, in %s\n%s"
                  % (seconds, code.co_filename, frame.f_lineno, code.co_name, stack.rstrip()))


class _Lifespan:
    """The application's side of the lifespan protocol: one task, from its start to its shutdown."""

    def __init__(self, application, mode):
        self._application = application
        self._mode = mode
        self._events = asyncio.Queue()
        self._started = asyncio.get_running_loop().create_future()
        self._ended = asyncio.get_running_loop().create_future()
        self._task = None
        #: What the application has stored in the scope's state; None without the protocol.
        self.state = None

    async def start_up(self):
        if self._mode == "off":
            return
        state = {}
        self._events.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.get_running_loop().create_task(self._run(state))
        if await self._started:
            self.state = state
        else:
            self._task = None

    async def shut_down(self):
        if self._task is None or self._task.done():
            return
        self._events.put_nowait({"type": "lifespan.shutdown"})
        await self._ended
        await asyncio.wait([self._task])

    async def _run(self, state):
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        try:
            await self._application(scope, self._events.get, self._send)
        except BaseException as error:
            self._failed(error)
        finally:
            if not self._started.done():
                self._started.set_result(False)
            if not self._ended.done():
                self._ended.set_result(None)

    def _failed(self, error):
        if isinstance(error, asyncio.CancelledError):
            return
        if self._started.done():
            if not self._started.exception():
                jimu.report("error in the application's lifespan")
        elif self._mode == "on":
            self._started.set_exception(error)
        else:
            jimu._log(logging.INFO, "asgi", "the application does not support the lifespan protocol")

    async def _send(self, message):
        kind = message["type"]
        if kind == "lifespan.startup.complete" and not self._started.done():
            self._started.set_result(True)
        elif kind == "lifespan.startup.failed" and not self._started.done():
            text = message.get("message") or "no reason given"
            self._started.set_exception(jimu.ApplicationError("lifespan startup failed: " + text.rstrip()))
        elif kind == "lifespan.shutdown.complete" and not self._ended.done():
            self._ended.set_result(None)
        elif kind == "lifespan.shutdown.failed" and not self._ended.done():
            jimu._log(logging.ERROR, "asgi", "lifespan shutdown failed: " + (message.get("message") or "").rstrip())
            self._ended.set_result(None)
        else:
            raise RuntimeError("unexpected ASGI message %r" % kind)
