"""Serves requests in greenlets of a guest loop: what gevent and eventlet have in common.

The loop calls Driver.turn when the engine's descriptor is readable. Greenlets are kept and used again, because making
one costs about twenty times a switch. Context and greenlet-locals are still those of a connection, as where each
connection has a greenlet: fresh for its first request, and for the next ones as the request before left them. A
context is put aside with its connection. A greenlet to which somebody holds a weak reference has locals: it serves
this connection alone from then on, and ends with it.
"""

import os
import time
import traceback
from weakref import getweakrefcount

import _jimu_process as process
import greenlet
import jimu

#: How many greenlets are kept for the next requests.
IDLE_MAX = 512
#: How often is looked whether connections that have left something are still open.
SWEEP_SECONDS = 1.0
#: What is put: the rest of what was put before, a part of the body, the data of a write().
REST, PART, WRITE = 0, 1, 2


class Driver:
    def __init__(self, loop, next_request, woken, gone, limited):
        self._loop = loop
        self._next = next_request
        self._woken = woken
        self._gone = gone
        self._limited = limited
        self._idle = []
        self._waiting = {}
        #: By connection, with its descriptor: contexts that are not empty, and greenlets that have locals.
        self._contexts = {}
        self._bound = {}
        self._swept = time.monotonic()
        #: All greenlets of requests, also the idle ones.
        self._greenlets = set()
        #: With a limit on the time of requests: the greenlet and the request of each number.
        self._serving = {}
        self._engine = None
        self._application = None
        #: In a process that the application has forked: the greenlet that did it.
        self._is_child = False
        self._forker = None
        self.input = make_input(self._wait)

    def run(self, engine, application):
        """Runs the loop until the engine has stopped."""
        self._engine = engine
        self._application = application
        self._loop.start()
        # After the hub, whose own functions for forks have run then.
        os.register_at_fork(after_in_child=self._after_fork_in_child)
        self._loop.run(engine.descriptor(), self.turn)

    def _after_fork_in_child(self):
        self._is_child = True
        self._forker = greenlet.getcurrent()
        self._loop.forget()

    def _end_child(self, error):
        """In a process that the application has forked: what a greenlet does whose request is over.

        Copies of other requests' greenlets, which gevent carries on with as long as the process waits in its hub, end
        without a word.
        """
        if greenlet.getcurrent() is self._forker:
            process.end_child(error, False)
        return False

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
        work = self._next()
        idle = self._idle
        while work is not None:
            busy = True
            bound = self._bound and self._bound.get(connection_of(work[0]._descriptor()))
            if bound:
                bound[1].switch(work)
            elif idle:
                idle.pop().switch(work)
            else:
                self._loop.spawn(self._serve_all, work)
            work = self._next()
        # The engine turns at least once a second: for the heartbeat.
        if self._contexts or self._bound:
            self._forget_closed(goes_on)
        return goes_on, busy

    def trace(self):
        """What each greenlet that serves a request is doing."""
        resting = [*self._idle, *(one for _, one in self._bound.values())]
        busy = [one for one in self._greenlets.difference(resting) if one.gr_frame is not None]
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

    def _serve_all(self, work):
        """A greenlet's life: request after request, as long as they come.

        What is looked at for each of them stands in locals: attributes would cost more than the rest of this.
        """
        me = greenlet.getcurrent()
        idle, contexts, others_bound, next_work = self._idle, self._contexts, self._bound, self._next
        references = getweakrefcount(me)
        serve = self._serve_limited if self._limited else self._serve
        bound = False
        self._greenlets.add(me)
        try:
            while work is not None:
                if contexts and not bound:
                    me.gr_context = self._context_of(work[0])
                if not serve(work):
                    return
                bound = getweakrefcount(me) != references
                if bound:
                    descriptor = work[0]._descriptor()
                    del work
                    work = self._stay(me, descriptor)
                    continue
                context = me.gr_context
                if context is not None:
                    self._put_aside(work[0], context)
                    me.gr_context = context = None
                del work
                # Another that is ready costs no switch; but it may be for a greenlet that waits for it.
                work = None if others_bound else next_work()
                if work is None:
                    if len(idle) >= IDLE_MAX:
                        return
                    idle.append(me)
                    work = self._loop.to_hub()
        finally:
            self._greenlets.discard(me)
            if me in idle:
                # Somebody killed it there.
                idle.remove(me)

    def _stay(self, me, descriptor):
        """In a greenlet with locals: until the next request of its connection; None where there will be none."""
        connection = connection_of(descriptor)
        # Another has served its next request already where this one was long about closing a body.
        if connection is None or connection in self._bound:
            return None
        self._bound[connection] = descriptor, me
        try:
            return self._loop.to_hub()
        finally:
            del self._bound[connection]

    def _context_of(self, request):
        """What the request before has left; None for an empty context."""
        kept = self._contexts.pop(connection_of(request._descriptor()), None)
        return kept and kept[1]

    def _put_aside(self, request, context):
        """Keeps a context for the next request of the connection, where there can be one."""
        descriptor = request._descriptor()
        connection = connection_of(descriptor) if len(context) else None
        if connection is not None:
            self._contexts[connection] = descriptor, context

    def _forget_closed(self, goes_on):
        """In the hub: drops what closed connections have left; all of it at the end."""
        now = time.monotonic()
        if goes_on and now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        for kept in self._contexts, self._bound:
            for connection, (descriptor, what) in list(kept.items()):
                if goes_on and connection_of(descriptor) == connection:
                    continue
                if kept is self._bound:
                    what.switch(None)
                else:
                    del kept[connection]

    def _serve_limited(self, work):
        request = work[0]
        number = request._number()
        self._serving[number] = greenlet.getcurrent(), request
        try:
            return self._serve(work)
        finally:
            del self._serving[number]

    def _serve(self, work):
        """Serves one request, as the engine has given it; false where the greenlet is to end."""
        request, environ, start_response = work
        try:
            result = self._application(environ, start_response)
            if self._is_child:
                return self._end_child(None)
            sent = request._put_list(result)
            if sent is not None:
                # A body of one piece is sent and the request is over with it, usually; this one is not.
                self._go_on(request, result, sent)
                if self._is_child:
                    return self._end_child(None)
                request._end()
        except BaseException as error:
            if self._is_child:
                return self._end_child(error)
            request._end(error)
            return not isinstance(error, greenlet.GreenletExit)
        return True

    def _go_on(self, request, result, sent):
        """Sends what the application has returned, from where the list of one piece stopped that it may be."""
        if sent is False:
            return self._send(request, result)
        data = result[0]
        while sent < len(data):
            self._wait(request)
            sent = request._put(data, sent, REST)
        request._finish()

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
                if self._is_child:
                    return
                if self._put(request, part) > len(part):
                    # Content-Length leaves no room for all of it.
                    break
            if not self._is_child:
                request._finish()
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                try:
                    close()
                except Exception:
                    jimu.report("Error in close() of what the application returned")

    def _put(self, request, data):
        sent = request._put(data, 0, PART)
        while sent < len(data):
            self._wait(request)
            sent = request._put(data, sent, REST)
        return sent

    def _put_file(self, request, descriptor, offset, length):
        sent, length = request._put_file(descriptor, offset, length, True)
        while sent < length:
            self._wait(request)
            more, _ = request._put_file(descriptor, offset + sent, length - sent)
            sent += more


def connection_of(descriptor):
    """What tells a connection from all others, as long as it is open; None for one that is not."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


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
            sent = request._put(data, 0, WRITE)
            while sent < len(data):
                wait(request)
                sent = request._put(data, sent, REST)

    return Input
