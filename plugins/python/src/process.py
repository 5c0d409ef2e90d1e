"""Signal handlers and forks of the application.

The server's signals have Python handlers that the application can read, call and replace. On such a signal, the server
acts first, whatever handler the application has installed; then Python runs the application's handler as usual. An
exception that the handler raises does not end a request.
"""

import _signal
import logging
import os
import signal
import sys
import threading

import jimu

#: Signals that the server handles.
OWNED = frozenset((
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
))
#: Whether this process was forked by the application in a worker.
is_child = False

_set, _get = _signal.signal, _signal.getsignal
_wakeup = -1
_DummyThread, _MainThread = threading._DummyThread, threading._MainThread


def server_handler(signum, frame=None):
    """Perform the server's action for a signal. Returned by signal.getsignal() for the server's signals."""
    if not is_child:
        _on_signal(int(signum))


class _Guarded:
    """Application's handler for a signal of the server. Exceptions that it raises do not end a request."""

    __slots__ = ("handler",)

    def __init__(self, handler):
        self.handler = handler

    def __call__(self, signum, frame):
        if is_child:
            return self.handler(signum, frame)
        try:
            self.handler(signum, frame)
        except (SystemExit, KeyboardInterrupt):
            # As under gunicorn, the worker exits; unlike there, after its requests.
            _stop()
        except BaseException as error:
            _report("error in the application's handler for %s" % signal.Signals(signum).name, error)


def _signal_of_application(signalnum, handler):
    """Replace signal.signal()."""
    if is_child or signalnum not in OWNED:
        return _set(signalnum, handler)
    guarded = callable(handler) and handler is not server_handler
    before = _set(signalnum, _Guarded(handler) if guarded else handler)
    _reclaim()
    return _plain(before)


def _getsignal_of_application(signalnum):
    """Replace signal.getsignal()."""
    return _plain(_get(signalnum))


def _plain(handler):
    return handler.handler if isinstance(handler, _Guarded) else handler


def install():
    """Install the server's handlers in the mold, before any application code is imported."""
    _signal.signal, _signal.getsignal = _signal_of_application, _getsignal_of_application
    reset()


def reset():
    """Install the server's handlers again. Other signals keep the handlers that the application has installed."""
    for number in OWNED:
        if _get(number) is not server_handler:
            _set(number, server_handler)


def start_worker(wakeup):
    """Prepare a worker. Python writes the numbers of signals with Python handlers to the descriptor `wakeup`."""
    global _wakeup
    _wakeup = wakeup
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _after_fork_in_child():
    global is_child
    is_child = True
    if (other := signal.set_wakeup_fd(-1)) != _wakeup:
        signal.set_wakeup_fd(other)
    for number in OWNED:
        if _get(number) is server_handler:
            _set(number, signal.default_int_handler if number == signal.SIGINT else _signal.SIG_DFL)
    current = threading.current_thread()
    if type(current) is _DummyThread:
        # A thread of the worker class, which Python has not created. In this process it is the main thread, but before
        # Python 3.12 it lacks what threading._shutdown() needs.
        current.__class__, current._name, current._daemonic = _MainThread, "MainThread", False
        if getattr(current, "_tstate_lock", True) is None:
            current._set_tstate_lock()


def handler_failed(exception):
    """Handle an exception that a signal handler raised on the main thread while the worker waited."""
    if isinstance(exception, (SystemExit, KeyboardInterrupt)):
        _stop()
    else:
        _report("error in a signal handler of the application", exception)


def _report(doing, exception):
    jimu._log(logging.ERROR, jimu._target, "%s\n%s" % (doing, jimu.describe(exception)[1].rstrip()))


def end_child(exception, waits):
    """End a process that the application has forked and whose code has returned to the server.

    It ends as a Python program does. If `waits` is true, the application's threads are joined first.
    """
    status = 0
    if isinstance(exception, SystemExit):
        code = exception.code
        if isinstance(code, int):
            status = code & 0xFF
        elif code is not None:
            print(code, file=sys.stderr)
            status = 1
    elif exception is not None and type(exception).__name__ != "GreenletExit":
        _report("error in a process that the application has forked", exception)
        status = 1
    try:
        jimu.shut_down(waits)
    finally:
        os._exit(status)
