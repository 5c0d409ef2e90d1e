"""The eventlet loop: the real package's hub, after monkey_patch(os=False)."""

import os

_OLDEST = (0, 9, 7)
#: How often the engine turns before the hub does, whose turn is in Python and costs more than a request.
_TURNS_MAX = 4
_pool = None
#: Hubs of the processes that this one was forked from.
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
    # Taken only after the patch, it would be one that waits with the patched select(), and the asyncio hub with it: an
    # application that chooses that hub by use_hub() could not.
    eventlet.patcher.original("selectors")
    eventlet.monkey_patch(os=False)


def wait_in_mold(descriptor):
    """Runs greenlets that were started at import, until the descriptor is readable. Python's threads are greenlets."""
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


#: The hub: in the mold while it waits, in a worker always.
_hub = None
_watches_forks = False


def _forget_mold():
    """In a process that a greenlet of the mold has forked: the messages and the hub's poller are the mold's."""
    global _hub
    if _pool is None and _hub is not None:
        forget()
        _hub = None


def after_fork():
    # A new hub of the kind that the application has chosen, or of the one that EVENTLET_HUB names.
    _leave_hub()


def _leave_hub():
    import sys

    import eventlet.hubs

    chosen = eventlet.hubs._threadlocal
    if hasattr(chosen, "hub"):
        # Kept: to take it apart would change what the parent's poller waits for.
        _left.append(chosen.hub)
        del chosen.hub
        if "asyncio" in sys.modules:
            # The loop of the hub that was left does not run in this process.
            sys.modules["asyncio"].events._set_running_loop(None)


def start():
    import eventlet
    import eventlet.hubs

    global _hub, _pool
    _hub = eventlet.hubs.get_hub()
    # Its bound is the engine's: it hands over no more requests at once than there may be.
    _pool = eventlet.GreenPool(1 << 20)


def run(descriptor, turn):
    import _jimu_process as process
    import eventlet.event

    over = eventlet.event.Event()
    failure = None

    def on_readable(_):
        nonlocal failure
        try:
            for _ in range(_TURNS_MAX):
                goes_on, busy = turn()
                if not busy or not goes_on:
                    break
        except BaseException as error:
            failure, goes_on = error, False
        if not goes_on and not over.ready():
            over.send()

    listener = _hub.add(_hub.READ, descriptor, on_readable, lambda *error: None, lambda: None)
    # The first turn is the hub's too: greenlets go back to where the hub was, not to this one.
    _hub.schedule_call_global(0, on_readable, None)
    try:
        over.wait()
    finally:
        if not process.is_child:
            _hub.remove(listener)
    if failure is not None:
        raise failure


def forget():
    """In a process that the application has forked: the engine and the hub's poller are the parent's.

    The greenlet that forked goes on with a new hub, and when it ends the process does; no other runs again.
    """
    import threading

    import greenlet

    # multiprocessing calls it at the end of a child. Here it would wait for greenlets that never run again.
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
    import eventlet.wsgi

    local = getattr(eventlet.wsgi, "WSGI_LOCAL", None)
    if getattr(local, "already_handled", False):
        local.already_handled = False
        return True
    return result is getattr(eventlet.wsgi, "ALREADY_HANDLED", already_handled)
