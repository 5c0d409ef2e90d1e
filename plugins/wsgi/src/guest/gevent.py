"""The gevent loop: the hub of the gevent package, after monkey.patch_all()."""

import os
import sys


def patch():
    try:
        import gevent
    except ImportError:
        raise RuntimeError("You need gevent installed to use this worker.") from None
    version = tuple(int(part) for part in gevent.__version__.split(".")[:2] if part.isdigit())
    if version < (1, 4):
        raise RuntimeError("gevent worker requires gevent 1.4 or higher")
    import gevent.monkey

    gevent.monkey.patch_all()
    # Otherwise each worker would import the parts of its hub and its pool again.
    import gevent.event
    import gevent.pool

    for part in ("loop", "resolver", "threadpool", "format_context"):
        getattr(gevent.config, part)
    gevent.config.loop = _noting(gevent.config.loop)


def replace_rlock(factory):
    """Create the objects that threading.RLock() returns with `factory`."""
    import threading

    # gevent sets it to None, so that the implementation in Python is used.
    threading._CRLock = factory


#: Methods of a loop that create callbacks and the watchers for which a greenlet can wait. Those of fork and signal
#: watchers are not listed, because these belong to the process.
_MAKERS = ("async_", "child", "idle", "io", "stat", "timer", "run_callback")
#: The hub's watchers and callbacks in the mold.
_noted = []
#: Length of the list at which unused ones are removed from it.
_noted_max = 64
#: Result of sys.getrefcount() for an object to which only such a list and such a loop variable refer.
_UNUSED = [sys.getrefcount(one) for one in [object()]][0]
#: Callbacks of greenlets that stay in the mold. They must not be freed: that would resume them with GreenletExit.
_left = []


def _noting(base):
    """Return a loop class derived from `base` that records the watchers and callbacks it creates in the mold."""

    def noting(name):
        make = getattr(base, name)

        def noted(self, *arguments, **named):
            global _noted_max
            made = make(self, *arguments, **named)
            if self.default:
                if len(_noted) >= _noted_max:
                    _noted[:] = [one for one in _noted if sys.getrefcount(one) > _UNUSED or _is_due(one)]
                    _noted_max = 64 + 2 * len(_noted)
                _noted.append(made)
            return made

        return noted

    members = {name: noting(name) for name in _MAKERS if hasattr(base, name)}
    return type(base.__name__, (base,), {"__module__": base.__module__, **members})


def _is_due(one):
    return getattr(one, "active", False) or one.pending


def wait_in_mold(descriptor):
    """Run greenlets, and with them Python's threads, that were started at import until the descriptor is readable."""
    import gevent.hub

    global _messages, _watches_forks
    hub = gevent.hub._get_hub()
    if hub is None:
        return
    if not _watches_forks:
        _watches_forks = True
        os.register_at_fork(after_in_child=_forget_messages)
    watcher = _messages = hub.loop.io(descriptor, 1)
    try:
        hub.wait(watcher)
    except gevent.hub.LoopExit:
        # In a process that a greenlet has forked, nothing may be left to run.
        if _messages is not None:
            raise
    finally:
        _messages = None
        watcher.close()


#: Watcher of the mold's messages while the mold waits for them.
_messages = None
_watches_forks = False


def _forget_messages():
    """Stop watching the mold's messages in a process that a greenlet of the mold has forked."""
    global _messages
    if _messages is not None:
        _messages.stop()
        _messages = None


def after_fork():
    import gevent

    gevent.reinit()
    _leave_greenlets()
    for name in _MAKERS:
        if name in vars(gevent.config.loop):
            delattr(gevent.config.loop, name)


def _leave_greenlets():
    """Stop what the application started at import: it runs only in the mold, as threads do."""
    for one in _noted:
        if _is_due(one):
            _left.append((one.callback, one.args))
            one.stop()
    _noted.clear()


def start():
    import gevent
    import gevent.pool

    global _hub, _pool
    _hub = gevent.get_hub()
    _pool = gevent.pool.Pool()
    # gevent installs its handler after the first os.fork(), and never notices a child that has exited by then. If the
    # mold has run a child, gevent assumes that its handler is still installed, which it may not be.
    _hub.loop.reset_sigchld()
    _hub.loop.install_sigchld()


def run(descriptor, turn):
    import gevent.event

    global _watcher
    stopped = gevent.event.Event()
    failure = None

    def on_readable():
        nonlocal failure
        if _watcher is None:
            return
        try:
            running, _ = turn()
        except BaseException as error:
            failure, running = error, False
        if not running:
            _watcher.stop()
            stopped.set()

    watcher = _watcher = _hub.loop.io(descriptor, 1)
    watcher.start(on_readable)
    # The first turn runs in the hub, too: greenlets switch back to the hub, not to this greenlet.
    _hub.loop.run_callback(on_readable)
    try:
        stopped.wait()
    finally:
        watcher.stop()
        watcher.close()
    if failure is not None:
        raise failure


def end_requests():
    """Kill the greenlets of requests that outlast graceful_timeout. They have a second to clean up, as under gunicorn."""
    _pool.kill(timeout=1)


def forget():
    """Stop using the parent's engine in a process that the application has forked. The hub keeps running."""
    global _watcher
    _watcher.stop()
    _watcher = None


def spawn(function, *arguments):
    _pool.spawn(function, *arguments)


def to_hub():
    return _hub.switch()


def already_handled(result):
    return False
