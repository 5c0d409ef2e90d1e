"""Serves an application with gevent's WSGI server: serve_pywsgi.py MODULE:NAME PORT"""

# Before all other imports, as gevent's documentation requires.
from gevent import monkey

monkey.patch_all()

import importlib
import sys

from gevent.pywsgi import WSGIServer

module, name = sys.argv[1].split(":")
application = getattr(importlib.import_module(module), name)
WSGIServer(("127.0.0.1", int(sys.argv[2])), application, log=None).serve_forever()
