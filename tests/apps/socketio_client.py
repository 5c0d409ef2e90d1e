"""Client for socketio_app.py, using python-socketio: socketio_client.py URL"""

import queue
import sys

import socketio

url = sys.argv[1]
known = {"token": "known"}


def speaks(client, transport):
    told = queue.Queue()
    client.on("told", told.put)
    assert client.call("whoami") == [transport, "/socket.io/"]
    for data in ("text", {"number": 1, "nested": [None, True]}, b"bytes" * 20_000, "\u00fc" * 100_000):
        assert client.call("echo", data) == data, data[:20]
    client.emit("tell", "all of you")
    assert told.get(timeout=10) == "all of you"
    for number in range(10):
        client.emit("tell", number)
    assert [told.get(timeout=10) for _ in range(10)] == list(range(10))
    # By the server: a client that polls would wait for the response to its last poll.
    left = queue.Queue()
    client.on("disconnect", left.put)
    client.emit("leave")
    left.get(timeout=10)
    client.disconnect()


for transports in (["polling"], ["websocket"], ["polling", "websocket"]):
    client = socketio.Client()
    client.connect(url, auth=known, transports=transports, wait_timeout=10)
    speaks(client, transports[-1])

reasons = queue.Queue()
stranger = socketio.Client()
stranger.on("connect_error", reasons.put)
try:
    stranger.connect(url, auth={}, retry=False)
    raise SystemExit("not refused")
except socketio.exceptions.ConnectionError:
    assert "who are you" in str(reasons.get(timeout=10))

# A client that stays at a reload: it connects again, to the next generation.
client = socketio.Client(reconnection_delay=0.1, randomization_factor=0)
states = queue.Queue()
client.on("connect", lambda: states.put("connected"))
client.on("disconnect", lambda reason: states.put("disconnected"))
client.connect(url, auth=known, transports=["websocket"])
assert states.get(timeout=10) == "connected"
print("reload", flush=True)
assert states.get(timeout=30) == "disconnected"
assert states.get(timeout=30) == "connected"
speaks(client, "websocket")
print("well")
