"""Jimu in a Django project: the management command `jimu` and a backend for django-prodserver.

Add "jimu_server.django" to INSTALLED_APPS for the command.
"""

import os
import sys
from typing import Sequence

from jimu_server import executable

__all__ = ["serve"]


def serve(arguments: Sequence[str]) -> None:
    """Replace this process by the server, which serves the project of the running manage.py."""
    path = executable()
    # Flags of the user come later, and count.
    own = ["--python", sys.executable]
    project = os.path.dirname(os.path.abspath(sys.argv[0]))
    if not os.path.isfile("manage.py") and os.path.isfile(os.path.join(project, "manage.py")):
        own += ["--chdir", project]
    os.execv(path, [path, *own, *arguments])
