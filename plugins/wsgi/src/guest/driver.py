"""Serve requests in greenlets of a guest loop: the part that gevent and eventlet share.

The loop calls Driver.turn when the engine's descriptor is readable. Greenlets are reused, because creating one costs
about as much as twenty switches. Context and greenlet-locals nevertheless belong to a connection, as if each connection
had a greenlet: they are empty at its first request, and later requests find them as the previous one left them. A
context is stored with its connection. A greenlet to which weak references exist has locals: from then on it serves only
this connection, and ends with it.
"""

import os
import time
import traceback
from weakref import getweakrefcount

import _jimu_process as process
import greenlet
import jimu

#: Maximum number of idle greenlets that are kept for further requests.
IDLE_MAX = 512
#: Interval of the check whether connections with a stored context or greenlet are still open.
SWEEP_SECONDS = 1.0


class Driver:
    def __init__(self, loop, limited):
        self._loop = loop
        self._limited = limited
        self._idle = []
        self._waiting = {}
        #: For each connection, with its descriptor: a context that is not empty; a greenlet that has locals.
        self.contexts = {}
        self.bound = {}
        self._swept = time.monotonic()
        #: All greenlets that serve requests, including idle ones.
        self._greenlets = set()
        #: If requests have a deadline: the greenlet and the request of each request number.
        self._serving = {}
        self._engine = None
        #: Methods of the engine.
        self._next = self._woken = self._gone = self._proceed = None
        self._application = None
        #: Whether the application has forked this process, and the greenlet that did it.
        self._is_child = False
        self._forker = None

    def run(self, engine, application):
        """Run the loop until the engine has stopped."""
        self._engine = engine
        self._next, self._woken, self._gone = engine.next, engine.woken, engine.gone
        # With a deadline, each request is registered before it is served.
        self._proceed = send_list if self._limited else engine.proceed
        self._application = application
        self._loop.start()
        # After start(), so that the hub's functions for forks run first.
        os.register_at_fork(after_in_child=self._after_fork_in_child)
        self._loop.run(engine.descriptor(), self.turn)
        if self._busy() and not self._is_child:
            self._loop.end_requests()

    def _after_fork_in_child(self):
        self._is_child = True
        self._forker = greenlet.getcurrent()
        self._loop.forget()

    def _end_child(self, error):
        """End a request in a process that the application has forked.

        The greenlet that forked ends the process. Copies of the greenlets of other requests, which gevent runs while
        the process waits in its hub, end silently.
        """
        if greenlet.getcurrent() is self._forker:
            process.end_child(error, False)
        return False

    def turn(self):
        """Run a turn of the engine in the hub, then the greenlets of requests that have become ready.

        Return whether the engine still runs, and whether there was work: if so, another turn may find more.
        """
        running = self._engine.turn()
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
            self._end_overdue()
        work = self._next()
        idle = self._idle
        while work is not None:
            busy = True
            bound = self.bound and self.bound.get(connection_of(work[0]._descriptor()))
            if bound:
                bound[1].switch(work)
            elif idle:
                idle.pop().switch(work)
            else:
                self._loop.spawn(self._serve_all, work)
            work = self._next()
        # There is a turn at least once a second, for the heartbeat.
        if self.contexts or self.bound:
            self._forget_closed(running)
        return running, busy

    def trace(self):
        """Return the stack of each greenlet that serves a request."""
        busy = [one for one in self._busy() if one.gr_frame is not None]
        return "\n".join("%r:\n%s" % (one, "".join(traceback.format_stack(one.gr_frame))) for one in busy)

    def _busy(self):
        """Return the greenlets that serve a request."""
        return self._greenlets.difference(self._idle, (one for _, one in self.bound.values()))

    def _end_overdue(self):
        """Raise RequestTimeout in the greenlets of requests whose deadline has passed."""
        for number in self._gone() or ():
            serving, request = self._serving.get(number, (None, None))
            if serving is not None and request._is_over():
                serving.throw(RequestTimeout("the request exceeded request_timeout"))

    def wait(self, request):
        """Wait in a greenlet until the request's waker fires."""
        number = request._number()
        self._waiting[number] = greenlet.getcurrent()
        try:
            self._loop.to_hub()
        finally:
            del self._waiting[number]

    def _serve_all(self, work):
        """Serve requests in a greenlet, one after the other, until the greenlet must end.

        What each request uses is in local variables: looking up attributes would cost more than the rest of the loop.
        """
        me = greenlet.getcurrent()
        idle, contexts, others_bound, next_work = self._idle, self.contexts, self.bound, self._next
        application, proceed = self._application, self._proceed
        serving = self._serving if self._limited else None
        references = getweakrefcount(me)
        bound = False
        self._greenlets.add(me)
        try:
            while work is not None:
                request, environ, start_response = work
                work = None
                if contexts and not bound:
                    me.gr_context = self._context_of(request)
                if serving is not None:
                    serving[request._number()] = me, request
                try:
                    while True:
                        result = application(environ, start_response)
                        # Usually, this sends the result, ends the request and returns the next one.
                        sent = proceed(request, result, me, references)
                        if type(sent) is not tuple:
                            break
                        request, environ, start_response = sent
                        result = sent = None
                    if sent is not None and not self._end(request, result, sent):
                        return
                except BaseException as error:
                    if not self._fail(request, error):
                        return
                finally:
                    if serving is not None:
                        del serving[request._number()]
                environ = start_response = result = sent = None
                bound = getweakrefcount(me) != references
                if bound:
                    descriptor = request._descriptor()
                    request = None
                    work = self._stay(me, descriptor)
                    continue
                context = me.gr_context
                if context is not None:
                    self._store_context(request, context)
                    me.gr_context = context = None
                request = None
                # Serving another ready request here saves a switch, but a bound greenlet may wait for it.
                work = None if others_bound else next_work()
                if work is None:
                    if len(idle) >= IDLE_MAX:
                        return
                    idle.append(me)
                    work = self._loop.to_hub()
        finally:
            self._greenlets.discard(me)
            if me in idle:
                # The application killed it while it was idle.
                idle.remove(me)

    def _stay(self, me, descriptor):
        """Wait in a greenlet with locals for the next request of its connection; return None if there will be none."""
        connection = connection_of(descriptor)
        # If closing the body took long, another greenlet has served the next request already.
        if connection is None or connection in self.bound:
            return None
        self.bound[connection] = descriptor, me
        try:
            return self._loop.to_hub()
        finally:
            del self.bound[connection]

    def _context_of(self, request):
        """Take the context that the previous request of the connection left; None if it is empty."""
        kept = self.contexts.pop(connection_of(request._descriptor()), None)
        return kept and kept[1]

    def _store_context(self, request, context):
        """Store a context for the next request of the connection, unless it is empty or the connection is closed."""
        descriptor = request._descriptor()
        connection = connection_of(descriptor) if len(context) else None
        if connection is not None:
            self.contexts[connection] = descriptor, context

    def _forget_closed(self, running):
        """Drop contexts and greenlets of closed connections; once the engine has stopped, all. Called in the hub."""
        now = time.monotonic()
        if running and now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        for kept in self.contexts, self.bound:
            for connection, (descriptor, what) in list(kept.items()):
                if running and connection_of(descriptor) == connection:
                    continue
                if kept is self.bound:
                    what.switch(None)
                else:
                    del kept[connection]

    def _end(self, request, result, sent):
        """Send what is left of the result, and end the request. Return whether the greenlet serves on."""
        if not self._is_child:
            self._send_rest(request, result, sent)
        if self._is_child:
            return self._end_child(None)
        request._end()
        return True

    def _fail(self, request, error):
        """End a request that failed. Return whether the greenlet serves on."""
        if self._is_child:
            return self._end_child(error)
        request._end(error)
        return not isinstance(error, greenlet.GreenletExit)

    def _send_rest(self, request, result, sent):
        """Send the application's result. `sent` bytes of a list of one item were sent already; False if it is none."""
        if sent is False:
            return self._send_result(request, result)
        request._send_rest(result[0], sent)
        request._finish()

    def _send_result(self, request, result):
        try:
            if result is jimu.ALREADY_HANDLED or self._loop.already_handled(result):
                request._hijack()
                return
            if type(result) is jimu.FileWrapper:
                span = jimu.file_span(result)
                if span is not None:
                    request._send_file(*span)
                    request._finish()
                    return
            for part in result:
                if self._is_child:
                    return
                if not request._send_part(part):
                    # Content-Length left no room for all of it.
                    break
            if not self._is_child:
                request._finish()
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                try:
                    close()
                except Exception:
                    jimu.report("error in close() of the response body")


def send_list(request, result, *_):
    """Send a result as the engine's proceed() does, without taking the next request."""
    return request._send_list(result)


def connection_of(descriptor):
    """Return an identifier of a connection that is unique while it is open; None if the descriptor is closed."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


class RequestTimeout(BaseException):
    """Raised in the greenlet of a request that exceeds request_timeout.

    Not derived from Exception, so that `except Exception` in the application does not catch it.
    """
