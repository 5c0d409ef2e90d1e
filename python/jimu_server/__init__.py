"""The application server Jimu. Its commands are `host` and `hostctl`, also named `jimu` and `jimuctl`.

What applications import at run time is the module `jimu`, which the server provides.
"""

import os
import sys
import sysconfig

__all__ = ["executable"]


def executable() -> str:
    """Return the path of the server's executable, `host`."""
    directories = [
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", "posix_user"),
        # pip install --target
        os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin"),
    ]
    for directory in directories:
        path = os.path.join(directory, "host")
        if os.path.isfile(path) and os.path.isdir(os.path.join(directory, "..", "lib", "host")):
            return path
    raise FileNotFoundError("no executable `host` of jimu-server in " + ", ".join(directories))
