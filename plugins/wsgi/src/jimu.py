"""The Python side of the server: what is easier said in Python and is not on the way of every request.

It is the module `jimu`, which applications can import: for HostLogHandler in a logging configuration, and for
ALREADY_HANDLED. Names that begin with an underscore, and functions without a use outside, are the server's own.
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

#: To be returned by an application that answered by itself, on environ["gunicorn.socket"].
ALREADY_HANDLED = object()


#: What on_drain() was given.
_drain_functions = []


class HostLogHandler(logging.Handler):
    """Sends records to the server's error log."""

    def emit(self, record):
        try:
            _log(record.levelno, record.name, self.format(record))
        except Exception:
            self.handleError(record)


class _LogStream(io.TextIOBase):
    """A text stream whose text is written to the server's log unchanged.

    Each write is passed on in one piece, up to its last line end. What follows that is kept until the line ends, or
    until flush().
    """

    def __init__(self, target):
        self._target = target
        # By thread, so that print() of two threads does not mix: it writes the line end separately.
        self._unfinished = {}

    def writable(self):
        return True

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("write() takes str, not %s" % type(text).__name__)
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
        # Of all threads: one that has ended cannot flush its own.
        for thread in list(self._unfinished):
            unfinished = self._unfinished.pop(thread, "")
            if unfinished:
                self._pass_on(unfinished)

    def _pass_on(self, text):
        _write(self._target, text.encode("utf-8", "backslashreplace"))


#: wsgi.errors
errors = _LogStream("wsgi.errors")


class FileWrapper:
    """wsgi.file_wrapper: the server sends a plain file without reading it, and anything else part by part."""

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
    """Descriptor, position and length of the plain file in a FileWrapper; None where it holds something else.

    Only what the standard library opens is known to read what its descriptor reads: gzip, bz2, lzma, and classes
    derived from a file have a fileno(), too, and give other bytes.
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
    """The file in a temporary file of the standard library, whose position is that of the file."""
    tempfile = sys.modules.get("tempfile")
    if tempfile is None:
        return file
    if type(file) is tempfile.SpooledTemporaryFile:
        file = file._file
    if type(file) is tempfile._TemporaryFileWrapper:
        file = file.file
    return file


def describe(exception):
    """An exception as one line, and as a traceback without the server's own frames."""
    line = "".join(traceback.format_exception_only(type(exception), exception)).strip()
    frames = exception.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _FILES:
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(exception), exception, frames))
    return line, text


def prepare(arguments, directories):
    """Puts the process's words and the directories of the application where Python looks for them."""
    sys.argv = list(arguments)
    for directory in reversed(directories):
        if directory in sys.path:
            sys.path.remove(directory)
        sys.path.insert(0, directory)
    _prepare_loggers()


def _prepare_loggers():
    """Gives gunicorn's loggers a handler and a level, which applications copy to their own logger."""
    level = (_setting("loglevel") or "info").upper()
    for name, level in ("gunicorn.error", level), ("gunicorn.access", logging.INFO):
        logger = logging.getLogger(name)
        logger.addHandler(HostLogHandler())
        logger.setLevel(level)
        logger.propagate = False


def capture_output():
    """Has each line that the application prints written at once.

    The log is behind the descriptors of standard output and standard error already. Standard output is block-buffered
    where that is a file or a pipe.
    """
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)


class ApplicationError(Exception):
    """The application argument, or what it names, is at fault: said in one line, no traceback is due."""


def load(spec):
    """The application that `spec` names."""
    if not spec or spec.startswith("django:"):
        return _django(spec.partition(":")[2])
    module_name, _, expression = spec.partition(":")
    application = _evaluate(_module(module_name), module_name, expression or "application")
    if application is None:
        raise ApplicationError("Failed to find application object: %r" % (expression or "application"))
    if not callable(application):
        raise ApplicationError("Application object must be callable: %s is of type %s."
                               % (spec, type(application).__name__))
    if _is_asgi(application):
        raise ApplicationError("%s is an ASGI application, and this server calls WSGI applications: name the WSGI "
                               "callable, or wrap it (a2wsgi.ASGIMiddleware, for example)" % spec)
    return application


def _is_asgi(application):
    """Whether calling the application makes a coroutine, which no WSGI application does (as uvicorn detects it)."""
    if isinstance(application, type):
        return hasattr(application, "__await__")
    return _is_coroutine_function(application) or _is_coroutine_function(type(application).__call__)


def _is_coroutine_function(function):
    # What inspect.iscoroutinefunction looks at: importing inspect would cost each start some milliseconds.
    while hasattr(function, "func"):
        function = function.func
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code is not None and bool(code.co_flags & _CO_COROUTINE)


def _module(name):
    if not name or name.startswith("."):
        raise ApplicationError("%r is not the name of a module" % name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if name.endswith(".py") and os.path.exists(name):
            raise ApplicationError("Failed to find application, did you mean '%s:application'?"
                                   % name[:-3].replace("/", ".")) from None
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ApplicationError("No module named %r: looked in %s"
                                   % (error.name, ", ".join(sys.path))) from None
        raise


def _evaluate(module, module_name, text):
    """`text` is an attribute, attributes of attributes, or a call of one with literal arguments."""
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
            # Raised by the call itself and not in the function: the arguments are wrong.
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
                # Raised by code of the application's: a property, or the module's __getattr__.
                raise
            raise ApplicationError("Failed to find attribute %r in %r." % (name, path)) from None
        path += "." + name
    return found


def _django(settings):
    """The application of the Django project in the working directory."""
    settings = settings or os.environ.get("DJANGO_SETTINGS_MODULE") or _settings_of("manage.py")
    if not settings:
        raise ApplicationError("manage.py does not say which settings it uses: set DJANGO_SETTINGS_MODULE")
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    try:
        from django.core.wsgi import get_wsgi_application
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "django":
            raise ApplicationError("There is a manage.py, but Django is not installed in %s"
                                   % sys.prefix) from None
        raise
    return get_wsgi_application()


def _settings_of(path):
    """The module that a manage.py makes the default of DJANGO_SETTINGS_MODULE."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(), path)
    except FileNotFoundError:
        raise ApplicationError("No application was given, and there is no manage.py here") from None
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
    """What has been loaded before the fork stays out of the collector's way, and its pages shared."""
    gc.collect()
    gc.freeze()


def trace():
    """What each thread is doing now."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        parts.append("Thread %s (%d):\n%s" % (names.get(ident, "?"), ident, stack))
    return "\n".join(parts)


def report_faults(log, dump_signal):
    """At a fault, and at `dump_signal` (0: none), writes what all threads do to the log: a file, or else the standard
    stream."""
    try:
        # The descriptor stays open: it is for a time when nothing can be opened any more.
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND) if log else 2
    except OSError:
        descriptor = 2
    # A worker's handlers are reset after the fork, and faulthandler, enabled in the mold, would not install its own again.
    faulthandler.disable()
    faulthandler.enable(descriptor, all_threads=True)
    if dump_signal:
        faulthandler.register(dump_signal, descriptor, all_threads=True)


def take_abort(hooks, age, end):
    """Has Python handle SIGABRT by the hook worker_abort, where there is one, and `end` after it."""
    if not hooks.has("worker_abort"):
        return False

    def aborted(number, frame):
        try:
            hooks.call("worker_abort", [os.getpid(), age()])
        except BaseException:
            report("The hook worker_abort failed")
        finally:
            end()

    signal.signal(signal.SIGABRT, aborted)
    return True


def files():
    """The files of the modules that are loaded, without Python's own."""
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
    """Says that the class's thread is no daemon. Python takes it for one, and so the threads that it starts, which then
    nobody waits for at the end."""
    threading.current_thread()._daemonic = False


def stack_size():
    """What the application has set with threading.stack_size(), in bytes; 0 where it has not."""
    return str(threading.stack_size())


def on_drain(function):
    """Has `function` called, without arguments, when this worker begins to end; at once where it has begun to.

    It runs on the main thread, under gevent and eventlet in the hub, and must not block there: it sets an event, or
    closes the sockets that the application has taken over. Can be used as a decorator.
    """
    _drain_functions.append(function)
    _watch_drain()
    if is_draining():
        run_drain_functions()
    return function


def run_drain_functions():
    while _drain_functions:
        try:
            _drain_functions.pop(0)()
        except Exception:
            report("Error in a function of jimu.on_drain()")


def shut_down(waits=True):
    """What an interpreter does at its end, up to the point where it would take itself apart. `waits`: for threads."""
    steps = [atexit._run_exitfuncs, errors.flush, sys.stdout.flush, sys.stderr.flush]
    if waits:
        steps.insert(0, threading._shutdown)
    for step in steps:
        try:
            step()
        except Exception:
            _log(logging.ERROR, "wsgi", "Error at shutdown\n" + traceback.format_exc())


def report(doing):
    """Logs the exception that is being handled."""
    _log(logging.ERROR, "wsgi", doing + "\n" + traceback.format_exc())


#: The server's own code, as tracebacks call it.
_FILES = ("<jimu>", "<_jimu_hooks>", "<_jimu_driver>", "<_jimu_process>")
#: The length of an unfinished line, and the number of threads with one, from which on they are written.
_UNFINISHED_MAX = 64 * 1024
_UNFINISHED_LINES_MAX = 64
#: inspect.CO_COROUTINE
_CO_COROUTINE = 0x80
