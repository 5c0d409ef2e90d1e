"""gevent's own WSGI server for an application: serve_pywsgi.py MODULE:NAME PORT"""

# The first thing of all, as gevent's documentation asks for.
from gevent import monkey

monkey.patch_all()

import importlib
import sys

from gevent.pywsgi import WSGIServer

module, name = sys.argv[1].split(":")
application = getattr(importlib.import_module(module), name)
WSGIServer(("127.0.0.1", int(sys.argv[2])), application, log=None).serve_forever()
