"""Serves an application with fastpysgi on uvloop: serve_fastpysgi.py MODULE:NAME PORT WORKERS"""

import importlib
import sys

import fastpysgi
import uvloop

module, name = sys.argv[1].split(":")
application = getattr(importlib.import_module(module), name)
fastpysgi.server.loop = uvloop.new_event_loop()
fastpysgi.run(application, "127.0.0.1", int(sys.argv[2]), workers=int(sys.argv[3]))
