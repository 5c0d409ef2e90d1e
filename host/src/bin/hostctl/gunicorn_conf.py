"""Runs a gunicorn.conf.py as gunicorn does, and writes what it has set as JSON: pairs of a name and either
{"value": ...} or, where that is no plain value, {"other": what it is}."""

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
# What the file prints is no part of the answer.
answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
# A loader for any name of file, since .py is only a habit.
loader = importlib.machinery.SourceFileLoader("__config__", path)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("__config__", loader))
sys.modules["__config__"] = module
sys.dont_write_bytecode = True
loader.exec_module(module)
names = [name for name in vars(module) if not name.startswith("__")]
json.dump([[name, described(getattr(module, name))] for name in names], answer)
answer.close()
