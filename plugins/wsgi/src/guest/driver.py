"""Serves requests in greenlets of a guest loop: what gevent and eventlet have in common.

The loop calls Driver.turn when the engine's descriptor is readable. Greenlets are kept and used again, because making
one costs about twenty times a switch. Each request still finds a fresh context, and fresh greenlet-locals: a greenlet
to which somebody holds a weak reference has such locals, and is not used again.
"""

import traceback
from weakref import getweakrefcount

import greenlet
import jimu

#: How many greenlets are kept for the next requests.
IDLE_MAX = 512
#: What is put: the rest of what was put before, a part of the body.
REST, PART = 0, 1


class Driver:
    def __init__(self, loop, next_request, woken, gone, limited):
        self._loop = loop
        self._next = next_request
        self._woken = woken
        self._gone = gone
        self._limited = limited
        self._idle = []
        self._waiting = {}
        #: All greenlets of requests, also the idle ones.
        self._greenlets = set()
        #: With a limit on the time of requests: the greenlet and the request of each number.
        self._serving = {}
        self._engine = None
        self._application = None
        self.input = make_input(self._wait)

    def run(self, engine, application):
        """Runs the loop until the engine has stopped."""
        self._engine = engine
        self._application = application
        self._loop.run(engine.descriptor(), self.turn)

    def turn(self):
        """In the hub: lets the engine work, and goes on with what has become ready.

        Answers whether it goes on at all, and whether there was something to do: another turn may find more then.
        """
        goes_on = self._engine.turn()
        busy = False
        numbers = self._woken()
        if numbers is not None:
            busy = True
            waiting = self._waiting
            for number in numbers:
                parked = waiting.get(number)
                if parked is not None:
                    parked.switch()
        if self._limited:
            self._end_what_is_over()
        request = self._next()
        idle = self._idle
        while request is not None:
            busy = True
            if idle:
                idle.pop().switch(request)
            else:
                self._loop.spawn(self._serve_all, request)
            request = self._next()
        return goes_on, busy

    def trace(self):
        """What each greenlet that serves a request is doing."""
        busy = [one for one in self._greenlets.difference(self._idle) if one.gr_frame is not None]
        return "\n".join("%r:\n%s" % (one, "".join(traceback.format_stack(one.gr_frame))) for one in busy)

    def _end_what_is_over(self):
        for number in self._gone() or ():
            serving, request = self._serving.get(number, (None, None))
            if serving is not None and request._is_over():
                serving.throw(RequestTimeout("the request ran over its time"))

    def _wait(self, request):
        """In a greenlet: until the request's waker has fired."""
        number = request._number()
        self._waiting[number] = greenlet.getcurrent()
        try:
            self._loop.to_hub()
        finally:
            del self._waiting[number]

    def _serve_all(self, request):
        """A greenlet's life: request after request."""
        me = greenlet.getcurrent()
        idle = self._idle
        references = getweakrefcount(me)
        self._greenlets.add(me)
        try:
            while True:
                me.gr_context = None
                serve = self._serve_limited if self._limited else self._serve
                if not serve(request):
                    return
                del request
                if getweakrefcount(me) != references or len(idle) >= IDLE_MAX:
                    return
                # Another that is ready costs no switch.
                request = self._next()
                if request is None:
                    idle.append(me)
                    request = self._loop.to_hub()
        finally:
            self._greenlets.discard(me)
            if me in idle:
                # Somebody killed it there.
                idle.remove(me)

    def _serve_limited(self, request):
        number = request._number()
        self._serving[number] = greenlet.getcurrent(), request
        try:
            return self._serve(request)
        finally:
            del self._serving[number]

    def _serve(self, request):
        """Serves one request; false where the greenlet is to end."""
        try:
            environ, start_response = request._begin()
            result = self._application(environ, start_response)
            del environ, start_response
            if type(result) is list and len(result) == 1:
                if not self._put_whole(request, result[0]):
                    return True
                request._finish()
            else:
                self._send(request, result)
        except BaseException as error:
            request._end(error)
            return not isinstance(error, greenlet.GreenletExit)
        request._end()
        return True

    def _send(self, request, result):
        try:
            if result is jimu.ALREADY_HANDLED or self._loop.already_handled(result):
                request._hijack()
                return
            if type(result) is jimu.FileWrapper:
                span = jimu.file_span(result)
                if span is not None:
                    self._put_file(request, *span)
                    request._finish()
                    return
            for part in result:
                self._put(request, part)
            request._finish()
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                try:
                    close()
                except Exception:
                    jimu.report("Error in close() of what the application returned")

    def _put_whole(self, request, data):
        """Puts a body that is in one piece; false where the request has ended with it, which is the rule."""
        sent = request._put_whole(data)
        if sent is None:
            return False
        while sent < len(data):
            self._wait(request)
            sent = request._put(data, sent, REST)
        return True

    def _put(self, request, data):
        sent = request._put(data, 0, PART)
        while sent < len(data):
            self._wait(request)
            sent = request._put(data, sent, REST)

    def _put_file(self, request, descriptor, offset, length):
        sent, length = request._put_file(descriptor, offset, length, True)
        while sent < length:
            self._wait(request)
            more, _ = request._put_file(descriptor, offset + sent, length - sent)
            sent += more


class RequestTimeout(BaseException):
    """The request ran over request_timeout: raised in its greenlet. No Exception, so that nobody takes it for his."""


def make_input(wait):
    """The type of wsgi.input, which waits with `wait`."""

    class Input:
        __slots__ = ("_request",)

        def __init__(self, request):
            self._request = request

        def read(self, size=-1):
            request = self._request
            data = request.read(size)
            while data is None:
                wait(request)
                data = request.read(size)
            return data

        def readline(self, size=-1):
            request = self._request
            data = request.readline(size)
            while data is None:
                wait(request)
                data = request.readline(size)
            return data

        def readlines(self, hint=-1):
            lines, total = [], 0
            for line in self:
                lines.append(line)
                total += len(line)
                if hint is not None and 0 < hint <= total:
                    break
            return lines

        def __iter__(self):
            return self

        def __next__(self):
            line = self.readline()
            if not line:
                raise StopIteration
            return line

        def _write(self, data):
            request = self._request
            sent = request._put(data, 0, PART)
            while sent < len(data):
                wait(request)
                sent = request._put(data, sent, REST)

    return Input
