"""Runs a gunicorn.conf.py as gunicorn does, and writes its settings as JSON: pairs of a name and either
{"value": ...} or, if the value is not plain data, {"other": its description}."""

import importlib.machinery
import importlib.util
import json
import os
import sys


def plain(value):
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    raise TypeError


def described(value):
    try:
        return {"value": plain(value)}
    except TypeError:
        return {"other": "a function" if callable(value) and not isinstance(value, type) else repr(value)}


path = sys.argv[1]
# Output of the file must not become part of the result.
output = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
# This loader accepts any file name, not only *.py.
loader = importlib.machinery.SourceFileLoader("__config__", path)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("__config__", loader))
sys.modules["__config__"] = module
sys.dont_write_bytecode = True
loader.exec_module(module)
names = [name for name in vars(module) if not name.startswith("__")]
json.dump([[name, described(getattr(module, name))] for name in names], output)
output.close()
