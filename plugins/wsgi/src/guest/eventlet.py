"""The eventlet loop: the hub of the eventlet package, after monkey_patch(os=False)."""

import os
import sys

_OLDEST = (0, 9, 7)
#: Maximum number of turns of the engine for one turn of the hub, which is Python code and costs more than a request.
_TURNS_MAX = 4
_pool = None
#: Hubs of the processes from which this one was forked.
_left = []


def patch():
    try:
        import eventlet
        import eventlet.patcher
    except ImportError:
        raise RuntimeError("You need eventlet installed to use this worker.") from None
    version = tuple(int(part) for part in eventlet.__version__.split(".")[:3] if part.isdigit())
    if version < _OLDEST:
        raise RuntimeError("You need eventlet 0.9.7 or later to use this worker.")
    # Imported before the patch. Otherwise it would use the patched select(), and so would the asyncio hub, which an
    # application could then not choose with use_hub().
    eventlet.patcher.original("selectors")
    eventlet.monkey_patch(os=False)


def replace_rlock(factory):
    """Create the objects that threading.RLock() returns with `factory`."""
    import threading

    # eventlet sets it to the implementation in Python.
    threading.RLock = factory


def wait_in_mold(descriptor):
    """Run greenlets, and with them Python's threads, that were started at import until the descriptor is readable."""
    import eventlet.hubs
    import greenlet

    global _hub, _watches_forks
    hub = getattr(eventlet.hubs._threadlocal, "hub", None)
    if hub is None:
        return
    if not _watches_forks:
        _watches_forks = True
        os.register_at_fork(after_in_child=_forget_mold)
    _hub = hub
    waiting = greenlet.getcurrent()
    listener = hub.add(hub.READ, descriptor, waiting.switch, waiting.throw, lambda: None)
    try:
        hub.switch()
    finally:
        if _hub is not None:
            _hub = None
            hub.remove(listener)


#: The hub; in the mold, only while it waits.
_hub = None
_watches_forks = False


def _forget_mold():
    """Stop using the mold's messages and poller in a process that a greenlet of the mold has forked."""
    global _hub
    if _pool is None and _hub is not None:
        forget()
        _hub = None


def after_fork():
    # The new hub is of the kind that the application has chosen or that EVENTLET_HUB names.
    _leave_hub()


def _leave_hub():
    import eventlet.hubs

    chosen = eventlet.hubs._threadlocal
    if hasattr(chosen, "hub"):
        # Not destroyed: that would change what the parent's poller waits for.
        _left.append(chosen.hub)
        del chosen.hub
        if "asyncio" in sys.modules:
            # The loop of the old hub does not run in this process.
            sys.modules["asyncio"].events._set_running_loop(None)


def start():
    import eventlet
    import eventlet.hubs

    global _hub, _pool
    _hub = eventlet.hubs.get_hub()
    # The engine bounds the number of requests, so the pool need not.
    _pool = eventlet.GreenPool(1 << 20)


def run(descriptor, turn):
    import _jimu_process as process
    import eventlet.event

    stopped = eventlet.event.Event()
    failure = None

    def on_readable(_):
        nonlocal failure
        try:
            for _ in range(_TURNS_MAX):
                running, busy = turn()
                if not busy or not running:
                    break
        except BaseException as error:
            failure, running = error, False
        if not running and not stopped.ready():
            stopped.send()

    listener = _hub.add(_hub.READ, descriptor, on_readable, lambda *error: None, lambda: None)
    # The first turn runs in the hub, too: greenlets switch back to the hub, not to this greenlet.
    _hub.schedule_call_global(0, on_readable, None)
    try:
        stopped.wait()
    finally:
        if not process.is_child:
            _hub.remove(listener)
    if failure is not None:
        raise failure


def end_requests():
    """Leave the requests that outlast graceful_timeout as they are, as gunicorn does under eventlet."""


def forget():
    """Stop using the parent's engine and poller in a process that the application has forked.

    The greenlet that forked continues with a new hub, and the process ends when it ends. No other greenlet runs again.
    """
    import threading

    import greenlet

    # multiprocessing calls it at the end of a child. It would wait for greenlets that never run again.
    threading._shutdown = lambda: None
    current = greenlet.getcurrent()
    if current is _hub.greenlet:
        _hub.abort()
    elif current.parent is _hub.greenlet:
        current.parent = _hub.greenlet.parent
    _leave_hub()


def spawn(function, *arguments):
    _pool.spawn_n(function, *arguments)


def to_hub():
    return _hub.switch()


def already_handled(result):
    import greenlet

    wsgi = sys.modules.get("eventlet.wsgi")
    local = getattr(wsgi, "WSGI_LOCAL", None)
    if local is not None:
        # To read an attribute would create locals, and a greenlet that has some serves only one connection.
        values = object.__getattribute__(local, "_local__greens").get(greenlet.getcurrent())
        if values and values.pop("already_handled", False):
            return True
    return result is getattr(wsgi, "ALREADY_HANDLED", already_handled)
