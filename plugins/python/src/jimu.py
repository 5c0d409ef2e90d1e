"""The module `jimu`: the parts of the server that are simpler in Python and not on the path of every request.

Applications can import it, for HostLogHandler in a logging configuration, ALREADY_HANDLED, is_draining() and
on_drain(). Everything else is private to the server.
"""

import ast
import atexit
import faulthandler
import gc
import importlib
import io
import logging
import os
import signal
import stat
import sys
import sysconfig
import threading
import traceback
from sys import setprofile, settrace

#: Return value for an application that has responded directly on environ["gunicorn.socket"].
ALREADY_HANDLED = object()


#: Functions passed to on_drain().
_drain_functions = []


class HostLogHandler(logging.Handler):
    """Logging handler that writes records to the server's error log."""

    def emit(self, record):
        try:
            _log(record.levelno, record.name, self.format(record))
        except Exception:
            self.handleError(record)


class _LogStream(io.TextIOBase):
    """Text stream that writes to the server's error log unchanged.

    Each write is passed on in one piece, up to its last newline. The rest is kept until the line is complete or flush()
    is called.
    """

    def __init__(self, target):
        self._target = target
        # By thread, so that print() calls of two threads do not mix: print() writes the newline separately.
        self._unfinished = {}

    def writable(self):
        return True

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not %s" % type(text).__name__)
        thread = threading.get_ident()
        lines, end, unfinished = (self._unfinished.pop(thread, "") + text).rpartition("\n")
        if end:
            self._pass_on(lines + end)
        if unfinished:
            self._unfinished[thread] = unfinished
            if len(unfinished) > _UNFINISHED_MAX or len(self._unfinished) > _UNFINISHED_LINES_MAX:
                self.flush()
        return len(text)

    def flush(self):
        # Flush the lines of all threads, because a thread that has ended cannot flush its line.
        for thread in list(self._unfinished):
            unfinished = self._unfinished.pop(thread, "")
            if unfinished:
                self._pass_on(unfinished)

    def _pass_on(self, text):
        _write(self._target, text.encode("utf-8", "backslashreplace"))


#: wsgi.errors
errors = _LogStream("wsgi.errors")


class FileWrapper:
    """wsgi.file_wrapper: the server sends a plain file without reading it, and any other object in parts."""

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        part = self.filelike.read(self.blksize)
        if not part:
            raise StopIteration
        return part


def file_span(wrapper):
    """Return descriptor, position and length of the plain file in a FileWrapper; None if it holds anything else.

    Only for file objects of exactly the standard types does read() return the bytes of the descriptor. Those of gzip,
    bz2 and lzma, and classes derived from a file, have a fileno(), too, but return other bytes.
    """
    file = _unwrapped(wrapper.filelike)
    kind = type(file)
    raw = file.raw if kind is io.BufferedReader or kind is io.BufferedRandom else file
    if type(raw) is not io.FileIO:
        return None
    try:
        if not raw.readable():
            return None
        if kind is io.BufferedRandom:
            file.flush()
        descriptor = raw.fileno()
        position = file.tell()
        facts = os.fstat(descriptor)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(facts.st_mode):
        return None
    return descriptor, position, max(0, facts.st_size - position)


def _unwrapped(file):
    """Return the file inside a temporary file of the standard library; both have the same position."""
    tempfile = sys.modules.get("tempfile")
    if tempfile is None:
        return file
    if type(file) is tempfile.SpooledTemporaryFile:
        file = file._file
    if type(file) is tempfile._TemporaryFileWrapper:
        file = file.file
    return file


def describe(exception):
    """Return an exception as one line, and as a traceback without the server's frames."""
    line = "".join(traceback.format_exception_only(type(exception), exception)).strip()
    frames = exception.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _FILES:
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(exception), exception, frames))
    return line, text


def prepare(directories):
    """Put the application's directories at the start of sys.path, and configure gunicorn's loggers."""
    for directory in reversed(directories):
        if directory in sys.path:
            sys.path.remove(directory)
        sys.path.insert(0, directory)
    _prepare_loggers()


def _prepare_loggers():
    """Set handler and level of gunicorn's loggers, which applications copy to their loggers."""
    level = (_setting("loglevel") or "info").upper()
    for name, level in ("gunicorn.error", level), ("gunicorn.access", logging.INFO):
        logger = logging.getLogger(name)
        logger.addHandler(HostLogHandler())
        logger.setLevel(level)
        logger.propagate = False


def capture_output():
    """Make standard output line-buffered.

    The descriptors of standard output and standard error already refer to the log. If that is a file or a pipe, Python
    block-buffers standard output by default.
    """
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)


class ApplicationError(Exception):
    """The argument that names the application is wrong. The message is complete: no traceback is logged."""


class InterfaceError(ApplicationError):
    """The application speaks another interface than the worker class calls."""


def load(spec):
    """Load and return the WSGI application named by `spec`."""
    application = _load(spec, "wsgi")
    if _is_asgi(application) and _setting("interface") != "wsgi":
        raise InterfaceError("%s is an ASGI application, which the worker class %s cannot serve: use --worker-class "
                               "asgi" % (spec, _setting("worker_class")))
    return application


def load_asgi(spec):
    """Load and return the ASGI application named by `spec`."""
    application = _load(spec, "asgi")
    if not _is_asgi(application) and _setting("interface") != "asgi" and _positional(application) != 3:
        raise InterfaceError("%s is not an ASGI application: for a WSGI application, use another worker class, such "
                               "as gthread; otherwise set interface to asgi" % spec)
    return application


def _load(spec, interface):
    if not spec or spec.startswith("django:"):
        return _django(spec.partition(":")[2], interface)
    module_name, _, expression = spec.partition(":")
    module = _module(module_name)
    expression = expression or _usual_expression(module)
    application = _evaluate(module, module_name, expression)
    if application is None:
        raise ApplicationError("Failed to find application object: %r" % expression)
    if not callable(application):
        raise ApplicationError("Application object must be callable: %s is of type %s."
                               % (spec, type(application).__name__))
    return application


def _usual_expression(module):
    """Return what a module names its application if the user does not: gunicorn's name, Flask's, or a factory."""
    for name in "application", "app":
        if callable(vars(module).get(name)):
            return name
    if "application" not in vars(module) and callable(vars(module).get("create_app")):
        return "create_app()"
    # Also a name that the module's __getattr__ provides. Its absence is reported.
    return "application"


def _is_asgi(application):
    """Return whether calling the application creates a coroutine. Uvicorn detects ASGI applications this way, too."""
    if isinstance(application, type):
        return hasattr(application, "__await__")
    # Some wrappers set `__call__` on the object, for servers that look there.
    calls = application, type(application).__call__, getattr(application, "__call__")
    return any(_is_coroutine_function(call) for call in calls)


def _positional(application):
    """Return how many positional arguments a callable takes that are not optional; 0 if that cannot be told."""
    import inspect

    try:
        parameters = inspect.signature(application).parameters.values()
    except (TypeError, ValueError):
        return 0
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return sum(one.kind in kinds and one.default is one.empty for one in parameters)


def _is_coroutine_function(function):
    # Does the work of inspect.iscoroutinefunction(): importing inspect would delay each start by some milliseconds.
    while hasattr(function, "func"):
        function = function.func
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code is not None and bool(code.co_flags & _CO_COROUTINE)


def _module(name):
    if not name or name.startswith("."):
        raise ApplicationError("%r is not a module name" % name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if name.endswith(".py") and os.path.exists(name):
            raise ApplicationError("Failed to find application, did you mean '%s:application'?"
                                   % name[:-3].replace("/", ".")) from None
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ApplicationError("No module named %r in %s"
                                   % (error.name, ", ".join(sys.path))) from None
        raise


def _evaluate(module, module_name, text):
    """Evaluate `text`: an attribute, an attribute of an attribute, or a call of one with literal arguments."""
    try:
        expression = ast.parse(text, mode="eval").body
    except SyntaxError:
        raise ApplicationError("Failed to parse %r as an attribute name or function call." % text) from None
    if not isinstance(expression, ast.Call):
        return _attribute(module, module_name, expression, text)
    factory = _attribute(module, module_name, expression.func, text)
    try:
        arguments = [ast.literal_eval(argument) for argument in expression.args]
        named = {argument.arg: ast.literal_eval(argument.value) for argument in expression.keywords}
    except (TypeError, ValueError):
        raise ApplicationError("Failed to parse arguments as literal values: %r" % text) from None
    try:
        return factory(*arguments, **named)
    except TypeError as error:
        if error.__traceback__.tb_next is None:
            # Raised by the call, not inside the function: the arguments are wrong.
            raise ApplicationError(str(error)) from None
        raise


def _attribute(module, module_name, expression, text):
    names = []
    while isinstance(expression, ast.Attribute):
        names.append(expression.attr)
        expression = expression.value
    if not isinstance(expression, ast.Name):
        raise ApplicationError("Failed to parse %r as an attribute name or function call." % text)
    names.append(expression.id)
    found, path = module, module_name
    for name in reversed(names):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            if error.__traceback__.tb_next is not None:
                # Raised by code of the application: a property, or the module's __getattr__.
                raise
            raise ApplicationError("Failed to find attribute %r in %r." % (name, path)) from None
        path += "." + name
    return found


def _django(settings, interface):
    """Return the application of the Django project in the working directory."""
    settings = settings or os.environ.get("DJANGO_SETTINGS_MODULE") or _settings_of("manage.py")
    if not settings:
        raise ApplicationError("manage.py does not set DJANGO_SETTINGS_MODULE: set it in the environment")
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    try:
        if interface == "asgi":
            return _django_asgi()
        from django.core.wsgi import get_wsgi_application
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "django":
            raise ApplicationError("manage.py needs Django, which is not installed in %s"
                                   % sys.prefix) from None
        raise
    return get_wsgi_application()


def _django_asgi():
    """Return the application that ASGI_APPLICATION of the settings names, as Channels does, or Django's own."""
    from django.conf import settings
    from django.core.asgi import get_asgi_application

    named = getattr(settings, "ASGI_APPLICATION", None)
    if not named:
        return get_asgi_application()
    module_name, _, name = named.rpartition(".")
    return _evaluate(_module(module_name), module_name, name)


def _settings_of(path):
    """Return the default of DJANGO_SETTINGS_MODULE that a manage.py sets."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(), path)
    except FileNotFoundError:
        raise ApplicationError("No application named, and the working directory has no manage.py") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            words = [getattr(argument, "value", None) for argument in node.args]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            key = node.targets[0].slice
            key = getattr(key, "value", key)
            words = [getattr(key, "value", key), getattr(node.value, "value", None)]
        else:
            continue
        if len(words) >= 2 and words[0] == "DJANGO_SETTINGS_MODULE" and isinstance(words[1], str):
            return words[1]
    return None


def freeze():
    """Exclude existing objects from garbage collection: before a fork, so that their pages stay shared; after loading,
    so that collections do not visit them."""
    gc.collect()
    gc.freeze()


def trace():
    """Return the stack of each thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        parts.append("Thread %s (%d):\n%s" % (names.get(ident, "?"), ident, stack))
    return "\n".join(parts)


def report_faults(log, dump_signal):
    """Write tracebacks of all threads at a fault and on `dump_signal`, unless that is 0.

    They go to the file `log`, or to standard error if it is empty or cannot be opened.
    """
    try:
        # The descriptor stays open, because a crashing process cannot open files.
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND) if log else 2
    except OSError:
        descriptor = 2
    # faulthandler may be enabled already, in the mold or by the application. It would then not install its handlers
    # again, although a library may have replaced them since.
    faulthandler.disable()
    faulthandler.enable(descriptor, all_threads=True)
    if dump_signal:
        faulthandler.register(dump_signal, descriptor, all_threads=True)


def handle_abort(hooks, age, end):
    """Make Python handle SIGABRT with the hook worker_abort, then `end`. Return False if there is no such hook."""
    if not hooks.has("worker_abort"):
        return False

    def aborted(number, frame):
        try:
            hooks.call("worker_abort", [os.getpid(), age()])
        except BaseException:
            report("the hook worker_abort failed")
        finally:
            end()

    signal.signal(signal.SIGABRT, aborted)
    return True


def files():
    """Return the files of loaded modules, one per line, without those of the standard library."""
    own = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
    found = set()
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and os.path.isabs(path) and not (
            path.startswith(own) and "site-packages" not in path
        ):
            found.add(path[:-1] if path.endswith(".pyc") else path)
    return "\n".join(sorted(found))


def adopt_thread():
    """Give a thread of the worker class what Python gives to the threads that it starts.

    Python assumes that it is a daemon: threads that it starts would inherit that, and would not be joined at exit.
    Coverage tools, profilers and debuggers register their functions for all threads but the main one with
    `threading.settrace()` and `threading.setprofile()`; Python 3.9 has no function that returns them.
    """
    thread = threading.current_thread()
    thread._daemonic = False
    if thread is threading.main_thread():
        return
    for hook, install in ((threading._profile_hook, setprofile), (threading._trace_hook, settrace)):
        if hook is not None:
            install(hook)


def stack_size():
    """Return the value that the application set with threading.stack_size(), in bytes; 0 if it set none."""
    return str(threading.stack_size())


def on_drain(function):
    """Call `function` without arguments when this worker begins to drain, or now if it already drains.

    It runs on the main thread, under gevent and eventlet in the hub, and must not block: set an event, or close the
    sockets that the application has taken over. Can be used as a decorator.
    """
    _drain_functions.append(function)
    _watch_drain()
    if is_draining():
        run_drain_functions()
    return function


def run_drain_functions():
    """Call the functions passed to on_drain(), each once."""
    while _drain_functions:
        try:
            _drain_functions.pop(0)()
        except Exception:
            report("error in a function passed to jimu.on_drain()")


def shut_down(waits=True):
    """Do what an interpreter does at exit before it finalizes: run atexit functions and flush the streams.

    If `waits` is true, join the application's threads first. Those of the worker class have ended, which Python does not
    notice: debuggers, which end with the last thread that is no daemon, would wait for them.
    """
    for thread in threading.enumerate():
        if isinstance(thread, threading._DummyThread):
            thread._daemonic = True
    steps = [atexit._run_exitfuncs, errors.flush, sys.stdout.flush, sys.stderr.flush]
    if waits:
        steps.insert(0, threading._shutdown)
    for step in steps:
        try:
            step()
        except Exception:
            _log(logging.ERROR, _target, "error at shutdown\n" + traceback.format_exc())


def report(doing):
    """Log the exception that is being handled."""
    _log(logging.ERROR, _target, doing + "\n" + traceback.format_exc())


#: File names of the server's code in tracebacks.
_FILES = ("<jimu>", "<_jimu_hooks>", "<_jimu_driver>", "<_jimu_asgi>", "<_jimu_process>")
#: Maximum length of an unfinished line, and maximum number of threads with one. Beyond these, they are written.
_UNFINISHED_MAX = 64 * 1024
_UNFINISHED_LINES_MAX = 64
#: inspect.CO_COROUTINE
_CO_COROUTINE = 0x80
