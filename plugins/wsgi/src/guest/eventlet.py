"""The eventlet loop: the real package's hub, after monkey_patch(os=False)."""

_OLDEST = (0, 9, 7)
#: How often the engine turns before the hub does, whose turn is in Python and costs more than a request.
_TURNS_MAX = 4


def patch():
    try:
        import eventlet
    except ImportError:
        raise RuntimeError("You need eventlet installed to use this worker.") from None
    version = tuple(int(part) for part in eventlet.__version__.split(".")[:3] if part.isdigit())
    if version < _OLDEST:
        raise RuntimeError("You need eventlet 0.9.7 or later to use this worker.")
    eventlet.monkey_patch(os=False)


def after_fork():
    import eventlet.hubs

    eventlet.hubs.use_hub()


def run(descriptor, turn):
    import eventlet
    import eventlet.event
    import eventlet.hubs

    global _hub, _pool
    _hub = eventlet.hubs.get_hub()
    # Its bound is the engine's: it hands over no more requests at once than there may be.
    _pool = eventlet.GreenPool(1 << 20)
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
        _hub.remove(listener)
    if failure is not None:
        raise failure


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
