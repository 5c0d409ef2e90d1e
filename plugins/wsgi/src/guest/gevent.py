"""The gevent loop: the real package's hub, after its monkey.patch_all()."""


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


def after_fork():
    import gevent

    gevent.reinit()


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
