"""gunicorn's server hooks in Python: calling the functions, and the objects that are their arguments.

Loaded only if the setting hooks_module names Python code. The objects have the attributes that gunicorn documents, as
far as they apply to this server; docs/hooks.md lists them.
"""

import importlib
import inspect
import logging
import os
import runpy

import jimu


class Hooks:
    """The hooks of a module or of a Python file."""

    def __init__(self, name):
        if name.endswith(".py") or "/" in name:
            self._names = runpy.run_path(name, run_name="<hooks>")
        else:
            self._names = vars(importlib.import_module(name))
        self._server = Server()
        self._workers = {}
        self._worker = None

    def has(self, event):
        return callable(self._names.get(event))

    def call(self, event, facts):
        hook = self._names.get(event)
        arguments = self._arguments(event, facts)
        if callable(hook):
            hook(*arguments)

    def _arguments(self, event, facts):
        """Return the arguments of gunicorn's hook of that name. `facts` are the numbers that describe the event."""
        first, second = (list(facts) + [0, 0])[:2]
        server = self._server
        if event in ("on_starting", "on_reload", "when_ready", "pre_exec", "on_exit"):
            server.num_workers = first
            return (server,)
        if event == "nworkers_changed":
            server.num_workers = first
            return server, first, second
        worker = self._worker_of(first, second)
        if event == "post_fork":
            # From here on this process is the worker: the other workers belong to the mold.
            self._workers = {worker.age: worker}
            self._worker = worker
            server.pid = os.getppid()
        elif event == "post_worker_init":
            worker.booted = True
        elif event in ("worker_int", "worker_abort", "worker_exit"):
            worker.alive = False
            worker.aborted |= event == "worker_abort"
        elif event == "child_exit":
            self._workers.pop(worker.age, None)
        if event in ("pre_fork", "post_fork", "child_exit", "worker_exit"):
            return server, worker
        return (worker,)

    def _worker_of(self, pid, age):
        worker = self._workers.get(age)
        if worker is None:
            worker = self._workers[age] = Worker(age)
        worker.pid = pid or os.getpid()
        return worker

    def wrap(self, application):
        """Return the application, with the hooks pre_request and post_request around each request if they exist."""
        before, after = self._names.get("pre_request"), self._names.get("post_request")
        if not callable(before) and not callable(after):
            return application
        # As in gunicorn, the environ and the response are passed to a hook that takes three or four arguments.
        count = min(_positional(after), 4) if callable(after) else 0

        def hooked(environ, start_response):
            worker, request = self._current(), Request(environ)
            worker.nr += 1
            if callable(before):
                before(worker, request)
            if not callable(after):
                return application(environ, start_response)
            response = Response(request)

            def watched(status, headers, exc_info=None):
                response.begin(status, headers)
                return start_response(status, headers, exc_info)

            def finish():
                try:
                    after(*(worker, request, environ, response)[:count])
                except Exception:
                    jimu.report("the hook post_request failed")

            try:
                parts = application(environ, watched)
            except BaseException:
                finish()
                raise
            return _watch(parts, finish)

        return hooked

    def wrap_asgi(self, application):
        """Return an ASGI application with the hooks pre_request and post_request around each request if they exist."""
        before, after = self._names.get("pre_request"), self._names.get("post_request")
        if not callable(before) and not callable(after):
            return application
        count = min(_positional(after), 4) if callable(after) else 0

        async def hooked(scope, receive, send):
            if scope["type"] == "lifespan":
                return await application(scope, receive, send)
            worker, request = self._current(), Request.of_scope(scope)
            worker.nr += 1
            if callable(before):
                before(worker, request)
            response = Response(request)

            async def watched(message):
                if message["type"] == "http.response.start":
                    headers = [(name.decode("latin-1"), value.decode("latin-1"))
                               for name, value in message.get("headers", ())]
                    response.begin(str(message["status"]), headers)
                await send(message)

            try:
                await application(scope, receive, watched if callable(after) else send)
            finally:
                if callable(after):
                    try:
                        after(*(worker, request, scope, response)[:count])
                    except Exception:
                        jimu.report("the hook post_request failed")

        return hooked

    def _current(self):
        if self._worker is None:
            self._worker = self._worker_of(os.getpid(), 0)
        return self._worker


def _positional(hook):
    """Return the number of positional arguments that a callable accepts."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(hook).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return 4
    return sum(parameter.kind in kinds for parameter in parameters)


def _watch(parts, finish):
    """Return the body, such that `finish` is called when the server closes it."""
    if parts is jimu.ALREADY_HANDLED:
        finish()
        return parts
    if type(parts) is jimu.FileWrapper:
        # Not wrapped: the server sends the file of this object without reading it.
        parts.close = _Closing(getattr(parts, "close", None), finish)
        return parts
    return _Watched(parts, finish)


class _Closing:
    """The close() of a body, followed by `finish`."""

    def __init__(self, close, finish):
        self._close = close
        self._finish = finish

    def __call__(self):
        try:
            if self._close is not None:
                self._close()
        finally:
            self._finish()


class _Watched:
    """A body whose close() also calls `finish`."""

    def __init__(self, parts, finish):
        self._parts = parts
        self.close = _Closing(getattr(parts, "close", None), finish)

    def __iter__(self):
        return iter(self._parts)


class Config:
    """The current settings by gunicorn's names. A setting that is not set is None."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return jimu._setting(name)


#: The same object for all hooks, as in gunicorn.
CONFIG = Config()


class Server:
    """The arbiter, as seen by hooks."""

    def __init__(self):
        self.pid = os.getppid()
        self.num_workers = CONFIG.workers
        self.cfg = CONFIG
        self.log = logging.getLogger("gunicorn.error")
        self.address = CONFIG.bind
        self.timeout = CONFIG.timeout
        self.proc_name = CONFIG.proc_name


class Worker:
    """A worker, as seen by hooks."""

    def __init__(self, age):
        self.age = age
        self.pid = 0
        self.ppid = os.getppid()
        self.nr = 0
        self.cfg = CONFIG
        self.log = logging.getLogger("gunicorn.error")
        self.timeout = CONFIG.timeout
        self.max_requests = CONFIG.max_requests
        self.alive = True
        self.booted = False
        self.aborted = False

    def __str__(self):
        return "<Worker %s>" % self.pid


class Request:
    """A request, as seen by hooks."""

    def __init__(self, environ):
        self.method = environ["REQUEST_METHOD"]
        self.uri = environ["RAW_URI"]
        self.path = environ["PATH_INFO"]
        self.query = environ["QUERY_STRING"]
        self.fragment = ""
        self.version = tuple(int(part) for part in environ["SERVER_PROTOCOL"][5:].split("."))
        self.scheme = environ["wsgi.url_scheme"]
        self.remote_addr = environ["REMOTE_ADDR"], int(environ.get("REMOTE_PORT") or 0)
        self.headers = [(key[5:].replace("_", "-"), value) for key, value in environ.items()
                        if key.startswith("HTTP_")]
        for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if key in environ:
                self.headers.append((key.replace("_", "-"), environ[key]))
        self.trailers = []
        self.body = environ["wsgi.input"]

    @classmethod
    def of_scope(cls, scope):
        """Return the request of an ASGI scope. Its body is None: the application receives it."""
        request = cls.__new__(cls)
        query = scope["query_string"].decode("latin-1")
        request.method = scope.get("method", "GET")
        request.uri = scope["raw_path"].decode("latin-1") + ("?" + query if query else "")
        request.path = scope["path"]
        request.query = query
        request.fragment = ""
        request.version = tuple(int(part) for part in scope["http_version"].split("."))
        request.scheme = scope["scheme"]
        request.remote_addr = tuple(scope["client"] or ("", 0))
        request.headers = [(name.decode("latin-1").upper(), value.decode("latin-1"))
                           for name, value in scope["headers"]]
        request.trailers = []
        request.body = None
        return request


class Response:
    """A response, as seen by hooks. `status` is the string passed to start_response, None before that."""

    def __init__(self, request):
        self.req = request
        self.version = request.version
        self.status = None
        self.status_code = None
        self.headers = []
        self.headers_sent = False

    def begin(self, status, headers):
        self.status = status
        digits = status.split(None, 1)[0] if isinstance(status, str) and status else ""
        self.status_code = int(digits) if digits.isdigit() else None
        self.headers = headers
        self.headers_sent = True
