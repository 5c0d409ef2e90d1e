"""The gevent loop: the real package's hub, after its monkey.patch_all()."""

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
    # Else each worker would import for itself what its hub and its pool are made of.
    import gevent.event
    import gevent.pool

    for part in ("loop", "resolver", "threadpool", "format_context"):
        getattr(gevent.config, part)
    gevent.config.loop = _noting(gevent.config.loop)


#: What a greenlet can wait for. Fork and signal watchers are left out: they belong to the process.
_WATCHERS = ("async_", "child", "idle", "io", "stat", "timer")
#: The hub's watchers and callbacks in the mold.
_noted = []
#: How many may be noted before those that are no longer used are dropped.
_noted_max = 64
#: What sys.getrefcount() returns for an object that only such a list and such a loop refer to.
_UNUSED = [sys.getrefcount(one) for one in [object()]][0]
#: Callbacks of greenlets that stay in the mold. Kept: a greenlet that is freed is resumed with GreenletExit.
_left = []


def _noting(base):
    """The class of loops, which notes what it makes as long as the process is the mold."""

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

    names = [name for name in (*_WATCHERS, "run_callback") if hasattr(base, name)]
    members = {name: noting(name) for name in names}
    return type(base.__name__, (base,), {"__module__": base.__module__, **members})


def _is_due(one):
    return getattr(one, "active", False) or one.pending


def wait_in_mold(descriptor):
    """Runs greenlets that were started at import, until the descriptor is readable. Python's threads are greenlets."""
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
        # Nothing is left to run in a process that a greenlet has forked.
        if _messages is not None:
            raise
    finally:
        _messages = None
        watcher.close()


#: In the mold: the watcher of its messages, while it waits for them.
_messages = None
_watches_forks = False


def _forget_messages():
    """In a process that a greenlet of the mold has forked: the messages are the mold's."""
    global _messages
    if _messages is not None:
        _messages.stop()
        _messages = None


def after_fork():
    import gevent

    gevent.reinit()
    _leave_greenlets()
    for name in (*_WATCHERS, "run_callback"):
        if name in vars(gevent.config.loop):
            delattr(gevent.config.loop, name)


def _leave_greenlets():
    """What the application started while it was loaded runs in the mold alone, as threads do."""
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
    # gevent would do it behind the first os.fork(): a child that has ended by then is waited for in vain, for ever. Where
    # a child was run in the mold, gevent believes that its handler is in place, whatever has become of that.
    _hub.loop.reset_sigchld()
    _hub.loop.install_sigchld()


def run(descriptor, turn):
    import gevent.event

    global _watcher
    over = gevent.event.Event()
    failure = None

    def on_readable():
        nonlocal failure
        if _watcher is None:
            return
        try:
            goes_on, _ = turn()
        except BaseException as error:
            failure, goes_on = error, False
        if not goes_on:
            _watcher.stop()
            over.set()

    watcher = _watcher = _hub.loop.io(descriptor, 1)
    watcher.start(on_readable)
    # The first turn is the hub's too: greenlets go back to where the hub was, not to this one.
    _hub.loop.run_callback(on_readable)
    try:
        over.wait()
    finally:
        watcher.stop()
        watcher.close()
    if failure is not None:
        raise failure


def forget():
    """In a process that the application has forked: the engine is the parent's. The hub and its greenlets go on."""
    global _watcher
    _watcher.stop()
    _watcher = None


def spawn(function, *arguments):
    _pool.spawn(function, *arguments)


def to_hub():
    return _hub.switch()


def already_handled(result):
    return False
