"""Serves an application with bjoern: serve_bjoern.py MODULE:NAME PORT"""

import importlib
import sys

import bjoern

module, name = sys.argv[1].split(":")
bjoern.run(getattr(importlib.import_module(module), name), "127.0.0.1", int(sys.argv[2]))
