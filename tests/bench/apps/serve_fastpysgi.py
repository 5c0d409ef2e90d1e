"""Serves an application with fastpysgi, which finds out its kind: serve_fastpysgi.py MODULE:NAME PORT WORKERS [uvloop]"""

import importlib
import sys

import fastpysgi

module, name = sys.argv[1].split(":")
application = getattr(importlib.import_module(module), name)
if sys.argv[4:] == ["uvloop"]:
    import uvloop

    fastpysgi.server.loop = uvloop.new_event_loop()
fastpysgi.run(application, "127.0.0.1", int(sys.argv[2]), workers=int(sys.argv[3]))
