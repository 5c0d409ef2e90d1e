"""Client for asgi_sockets.py, using the package websockets: asgi_websocket_client.py URL COMPRESSION

COMPRESSION is whether the server compresses: yes or no.
"""

import sys

from websockets.sync.client import connect

url, compression = sys.argv[1:]
with connect(url + "/echo", max_size=None) as ws:
    names = [extension.name for extension in ws.protocol.extensions]
    assert names == (["permessage-deflate"] if compression == "yes" else []), names
    for data in ("hello", "", "\u00fc" * 100_000, b"", b"bytes", bytes(range(256)) * 4000):
        ws.send(data)
        assert ws.recv(10) == data, data[:20]
    ws.send(["in ", "several ", "frames"])
    assert ws.recv(10) == "in several frames"
    assert ws.ping(b"payload").wait(10)
with connect(url + "/echo", compression=None) as ws:
    assert not ws.protocol.extensions
    ws.send("plain")
    assert ws.recv(10) == "plain"
print("well")
