"""The application that the Debian package serves under systemd."""

import time
from pathlib import Path

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    return "hello\n"


@app.get("/slow")
def slow():
    Path("/tested/slow-began").touch()
    time.sleep(2)
    return "finished\n"
