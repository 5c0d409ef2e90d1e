"""environ["gunicorn.socket"], the connection of a request as a socket, and environ["wsgi.websocket"] on top of it.

Loaded when an application first uses either of them.
"""

import _socket
import base64
import errno
import hashlib
import logging
import os
import socket

#: Timeout of a socket without one. The descriptor shares its non-blocking mode with the server's, and a socket with a
#: timeout does not change that mode. poll() accepts at most 24 days.
_FOREVER_SECONDS = 2_000_000.0


def _socket_of(descriptor):
    """Return a socket object that owns the descriptor. If Python is patched, it is a socket of the loop."""
    probe = _socket.socket(fileno=descriptor)
    family, kind, protocol = probe.family, probe.type, probe.proto
    probe.detach()
    made = socket.socket(family, kind, protocol, fileno=descriptor)
    made.settimeout(_FOREVER_SECONDS)
    return made


class Connection:
    """The connection of a request, as a socket. An application takes it over by sending or receiving on it."""

    def __init__(self, request, descriptor):
        self._request = request
        self._socket = _socket_of(os.dup(descriptor))
        self._taken = False
        self._shared = False
        self._limited = False
        self._file = None
        self._peer = self._name = None
        for place, ask in (("_peer", self._socket.getpeername), ("_name", self._socket.getsockname)):
            try:
                setattr(self, place, ask())
            except OSError:
                pass

    def _take(self):
        """Take the connection over, and return the socket to use."""
        if not self._taken:
            if self._socket.fileno() < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._begin()
            self._taken = True
        return self._socket

    def _begin(self):
        self._request._take_over()

    def _end(self, hijacked):
        """End the use of the socket with the request.

        If the server has given up the connection, wake other threads that wait on it.
        """
        if hijacked and not self._shared:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.close()
        if self._file is not None:
            # Otherwise it would keep the descriptor open.
            self._file.close()

    def send(self, *arguments):
        return self._take().send(*arguments)

    def sendall(self, *arguments):
        return self._take().sendall(*arguments)

    def sendto(self, *arguments):
        return self._take().sendto(*arguments)

    def sendmsg(self, *arguments):
        return self._take().sendmsg(*arguments)

    def sendfile(self, *arguments, **named):
        return self._take().sendfile(*arguments, **named)

    def _reading(self, flags):
        # Checking whether the client is still connected does not take the connection over.
        return self._socket if flags & socket.MSG_PEEK else self._take()

    def recv(self, size, flags=0):
        return self._reading(flags).recv(size, flags)

    def recvfrom(self, size, flags=0):
        return self._reading(flags).recvfrom(size, flags)

    def recv_into(self, buffer, nbytes=0, flags=0):
        return self._reading(flags).recv_into(buffer, nbytes, flags)

    def recvmsg(self, size, ancillary=0, flags=0):
        return self._reading(flags).recvmsg(size, ancillary, flags)

    def _keep(self, file):
        """Close a file of the server at the end of the request."""
        self._file = file

    def makefile(self, *arguments, **named):
        return self._take().makefile(*arguments, **named)

    def dup(self):
        made = _socket_of(os.dup(self._take().fileno()))
        self._shared = True
        return made

    def detach(self):
        self._shared = True
        return self._take().detach()

    def shutdown(self, how):
        self._take().shutdown(how)

    def close(self):
        try:
            self._socket.close()
        except OSError:
            pass

    def fileno(self):
        return self._socket.fileno()

    def getpeername(self):
        return self._named(self._peer)

    def getsockname(self):
        return self._named(self._name)

    def _named(self, name):
        if self._socket.fileno() < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if name is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return name

    def settimeout(self, seconds):
        self._limited = seconds is not None
        self._socket.settimeout(_FOREVER_SECONDS if seconds is None else seconds)

    def gettimeout(self):
        return self._socket.gettimeout() if self._limited else None

    timeout = property(gettimeout)

    def setblocking(self, flag):
        self.settimeout(None if flag else 0.0)

    def getblocking(self):
        return self.gettimeout() != 0.0

    def getsockopt(self, *arguments):
        return self._socket.getsockopt(*arguments)

    def setsockopt(self, *arguments):
        self._socket.setsockopt(*arguments)

    family = property(lambda self: self._socket.family)
    type = property(lambda self: self._socket.type)
    proto = property(lambda self: self._socket.proto)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class TlsConnection(Connection):
    """A Connection whose client uses TLS. The server encrypts and decrypts what is sent and received on it.

    Its descriptor is one end of the server's relay, so fileno() takes the connection over, too.
    """

    def __init__(self, request, descriptor, protocol, cipher, certificate):
        super().__init__(request, descriptor)
        self._protocol, self._cipher, self._certificate = protocol, cipher, certificate
        #: The TCP connection, only for its options.
        self._transport = self._socket

    def _begin(self):
        made = _socket_of(self._request._take_over())
        made.settimeout(self._socket.gettimeout())
        self._socket = made

    def _reading(self, flags):
        return self._take()

    def close(self):
        super().close()
        try:
            self._transport.close()
        except OSError:
            pass

    def fileno(self):
        return self._take().fileno() if self._socket.fileno() >= 0 else -1

    def getsockopt(self, *arguments):
        return self._transport.getsockopt(*arguments)

    def setsockopt(self, *arguments):
        self._transport.setsockopt(*arguments)

    family = property(lambda self: self._transport.family)
    type = property(lambda self: self._transport.type)
    proto = property(lambda self: self._transport.proto)

    def version(self):
        return self._protocol

    def cipher(self):
        """Return name, version and bits, as in the module ssl."""
        name = self._cipher.replace("TLS13_", "TLS_")
        return name, self._protocol, 128 if "AES_128" in name else 256

    def getpeercert(self, binary_form=False):
        if binary_form or not self._certificate:
            return self._certificate or None
        import ssl
        import tempfile

        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(ssl.DER_cert_to_PEM_cert(self._certificate))
            file.flush()
            return ssl._ssl._test_decode_cert(file.name)

    def selected_alpn_protocol(self):
        return None

    def compression(self):
        return None

    def pending(self):
        return 0


class Closed(Connection):
    """The connection of a request that has ended."""

    def __init__(self):
        self._socket = socket.socket()
        self._socket.close()
        self._taken = self._shared = self._limited = False
        self._file = None
        self._peer = self._name = None


def websocket(environ, connection, request):
    """Return wsgi.websocket; None if gevent-websocket is not installed or the request asks for no WebSocket."""
    try:
        import geventwebsocket.websocket
    except ImportError:
        return None
    get = environ.get
    if (environ["REQUEST_METHOD"] != "GET" or environ["SERVER_PROTOCOL"] != "HTTP/1.1"
            or get("HTTP_UPGRADE", "").lower() != "websocket"
            or "upgrade" not in get("HTTP_CONNECTION", "").lower()
            or get("HTTP_SEC_WEBSOCKET_VERSION") not in ("13", "8", "7")):
        return None
    try:
        key = base64.b64decode(get("HTTP_SEC_WEBSOCKET_KEY", ""))
    except ValueError:
        return None
    if len(key) != 16:
        return None
    return WebSocket(environ, connection, request, geventwebsocket.websocket)


class WebSocket:
    """gevent-websocket's WebSocket, opened when it is first used.

    Until then, the application can use gunicorn.socket instead, or respond with a page.
    """

    def __init__(self, environ, connection, request, module):
        self._environ = environ
        self._connection = connection
        self._request = request
        self._module = module
        self._made = None

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if self._made is None:
            self._made = self._open()
        return getattr(self._made, name)

    def _open(self):
        key = self._environ["HTTP_SEC_WEBSOCKET_KEY"].strip() + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode("latin-1")).digest())
        # From here on, start_response and the body have no effect.
        self._request._detach()
        self._connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        handler = _Handler(self._environ, self._connection)
        self._connection._keep(handler.rfile)
        return self._module.WebSocket(self._environ, self._module.Stream(handler), handler)


class _Handler:
    """The part of a handler that gevent-websocket's WebSocket uses."""

    def __init__(self, environ, connection):
        self.environ = environ
        self.socket = connection
        self.rfile = connection.makefile("rb", -1)
        self.server = self
        self.application = None
        self.logger = logging.getLogger("geventwebsocket.handler")
