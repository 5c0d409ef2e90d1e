"""Client for wsgi_sockets.py, using the package websocket-client: websocket_client.py URL PATH"""

import json
import ssl
import sys

import websocket

url, path = sys.argv[1:]
#: The certificate is not verified here but in the TLS tests; OpenSSL considers it self-signed.
options = {"sslopt": {"cert_reqs": ssl.CERT_NONE, "check_hostname": False}}


def connect(path):
    return websocket.create_connection(url + path, timeout=10, **options)


def echoes(path):
    ws = connect(path)
    for data in ("hello", "x" * 100_000, "\u00fc"):
        ws.send(data)
        assert ws.recv() == data, path
    ws.close()


def socket_io():
    ws = connect("/socket.io/?EIO=4&transport=websocket")
    assert json.loads(ws.recv()[1:])["sid"]
    ws.send("40")
    assert ws.recv().startswith("40")
    for number in range(3):
        ws.send('42["echo",%d]' % number)
        assert ws.recv() == '42["echo",%d]' % number
    ws.close()


if path == "/socket.io":
    socket_io()
else:
    echoes(path)
print("well")
