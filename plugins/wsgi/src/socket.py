"""environ["gunicorn.socket"]: the connection of a request as a socket. And environ["wsgi.websocket"], made of it.

The module is made when an application first uses either of them.
"""

import _socket
import base64
import errno
import hashlib
import logging
import os
import socket

#: Stands for no time limit. The descriptor shares its non-blocking mode with the server's, and a socket with a time
#: limit leaves that mode alone. poll() takes no more than 24 days.
_FOREVER_SECONDS = 2_000_000.0


def _socket_of(descriptor):
    """A socket object that owns the descriptor: the loop's own kind of socket where Python is patched."""
    probe = _socket.socket(fileno=descriptor)
    family, kind, protocol = probe.family, probe.type, probe.proto
    probe.detach()
    made = socket.socket(family, kind, protocol, fileno=descriptor)
    made.settimeout(_FOREVER_SECONDS)
    return made


class Connection:
    """The connection of a request, as a socket. The first bytes that an application exchanges on it take it over."""

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
        """Takes the connection over, and returns the socket on which to exchange bytes."""
        if not self._taken:
            if self._socket.fileno() < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._begin()
            self._taken = True
        return self._socket

    def _begin(self):
        self._request._take_over()

    def _end(self, hijacked):
        """The request is over. Where the server has given the connection up, what waits on it in other threads is woken."""
        if hijacked and not self._shared:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.close()
        if self._file is not None:
            # It would keep the descriptor open.
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
        # To look whether the client is still there is no taking over.
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
        """Closes a file of the server's own with the request."""
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
    """As a Connection, where the client speaks TLS: what is exchanged on it goes through TLS, by way of the server.

    Its descriptor is that of the server's relay, so asking for it takes the connection over, too.
    """

    def __init__(self, request, descriptor, protocol, cipher, certificate):
        super().__init__(request, descriptor)
        self._protocol, self._cipher, self._certificate = protocol, cipher, certificate
        #: The TCP connection: for its options alone.
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
        """As ssl has it: name, version, bits."""
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
    """The connection of a request that is over."""

    def __init__(self):
        self._socket = socket.socket()
        self._socket.close()
        self._taken = self._shared = self._limited = False
        self._file = None
        self._peer = self._name = None


def websocket(environ, connection, request):
    """wsgi.websocket as gevent-websocket has it; None where that is not installed, or no WebSocket is asked for."""
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
    """gevent-websocket's WebSocket. The handshake is made when it is first used: the application may want
    gunicorn.socket instead, or answer with a page."""

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
        # What start_response and the body say from here on concerns nobody.
        self._request._detach()
        self._connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        handler = _Handler(self._environ, self._connection)
        self._connection._keep(handler.rfile)
        return self._module.WebSocket(self._environ, self._module.Stream(handler), handler)


class _Handler:
    """What gevent-websocket's WebSocket uses of its handler."""

    def __init__(self, environ, connection):
        self.environ = environ
        self.socket = connection
        self.rfile = connection.makefile("rb", -1)
        self.server = self
        self.application = None
        self.logger = logging.getLogger("geventwebsocket.handler")
