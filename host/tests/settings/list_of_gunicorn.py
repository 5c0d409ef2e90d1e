"""Prints gunicorn's settings with their flags and defaults, in the form of gunicorn-27.tsv. Needs a Python with gunicorn.

    python list_of_gunicorn.py > gunicorn-27.tsv
"""

import gunicorn
from gunicorn.config import KNOWN_SETTINGS


def default(value):
    """A plain value as text; `?` for a function, for a table, and for what is found out on the machine."""
    if value is None:
        return "unset"
    if value in ("", [], ()):
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(value)
    return str(value) if isinstance(value, (int, str)) else "?"


#: Defaults of the machine or of the moment.
FOUND_OUT = ("chdir", "control_socket", "group", "user", "sendfile")

print("# setting, its flags and, where it is a plain value, its default, of gunicorn %s" % gunicorn.__version__)
for setting in sorted(KNOWN_SETTINGS, key=lambda setting: setting.name):
    text = "?" if setting.name in FOUND_OUT else default(setting.default)
    print(setting.name, ",".join(setting.cli or ["-"]), text, sep="\t")
