"""Runs a gunicorn.conf.py as gunicorn does, and writes a report as one line of JSON: its settings with their values, the
lines that set them and the environment variables that it reads, or the exception that it raised.

Arguments: "file" and a path, or "module" and a name; the names of all settings, separated by commas.
"""

import sys

# `-c` has put the working directory there: none of its files is a module of the standard library.
if sys.path[:1] == [""]:
    del sys.path[0]

import _collections_abc
import ast
import importlib
import importlib.machinery
import importlib.util
import json
import math
import os
import sysconfig


class Environ(type(os.environ)):
    """The environment, which remembers the names that a configuration reads."""

    def __getitem__(self, name):
        if isinstance(name, str) and is_asked_by_configuration(sys._getframe(1)):
            variables.append(name)
        return super().__getitem__(name)


def is_asked_by_configuration(frame):
    """Return whether the file, or code that it calls or imports, reads a variable; not code of the standard library
    that an import runs."""
    path = None
    imported = False
    while frame is not None:
        name = frame.f_code.co_filename
        if name == config_path[0]:
            return not imported or not path.startswith(standard)
        if name.startswith("<frozen importlib"):
            imported = True
        elif path is None and name not in (os.__file__, _collections_abc.__file__):
            path = name
        frame = frame.f_back
    return False


def plain(value):
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, (bool, int)) or isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {text(str(name)): plain(item) for name, item in value.items()}
    raise TypeError


def described(name, value):
    if name == "worker_class":
        names = class_names(value)
        if names is not None:
            return {"class": names}
    try:
        return {"value": plain(value)}
    except TypeError:
        if isinstance(value, type):
            return {"class": names_of(value)}
        return "function" if callable(value) else {"other": text(repr(value)[:200])}


def class_names(value):
    """Return the names of a class and of its bases; None if it is a name that needs no import."""
    if isinstance(value, type):
        return names_of(value)
    known = ("egg:", "gunicorn.", "geventwebsocket.", "uvicorn.", "uvicorn_worker.", "meinheld.", "aiohttp.")
    if not isinstance(value, str) or "." not in value or "/" in value or value.endswith(".so"):
        return None
    if value.startswith(known):
        return None
    module, _, attribute = value.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception:
        return None
    return [value] + names_of(found)[1:] if isinstance(found, type) else None


def names_of(cls):
    return ["%s.%s" % (base.__module__, base.__qualname__) for base in cls.__mro__]


def lines_of(path):
    """Return the line that sets each name at the top level of a file; 0 for a name that several lines set."""
    lines = {}

    def put(name, line):
        lines[name] = 0 if name in lines else line

    def visit(node):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            put(node.name, node.lineno)
            return
        if isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            return
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            put(node.id, node.lineno)
        elif isinstance(node, ast.alias):
            put((node.asname or node.name).split(".")[0], getattr(node, "lineno", 0))
        for child in ast.iter_child_nodes(node):
            visit(child)

    try:
        with open(path, "rb") as file:
            visit(ast.parse(file.read(), path))
    except (OSError, SyntaxError, ValueError, RecursionError):
        # Not source code.
        return {}
    return lines


def load(kind, name):
    if kind == "module":
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            config_path[0] = spec.origin
        return importlib.import_module(name)
    if name.endswith(".pyc"):
        loader = importlib.machinery.SourcelessFileLoader("__config__", name)
    else:
        # This loader accepts any file name, not only *.py.
        loader = importlib.machinery.SourceFileLoader("__config__", name)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("__config__", loader))
    sys.modules["__config__"] = module
    loader.exec_module(module)
    return module


def report(kind, name, known):
    if kind == "file":
        config_path[0] = name
    try:
        module = load(kind, name)
        path = config_path[0]
        lines = lines_of(path) if path.endswith(".py") or kind == "file" else {}
        names = [each for each in vars(module) if each in known]
        return {"evaluated": {
            "file": text(path),
            "names": [{"name": each, "found": described(each, getattr(module, each)), "line": lines.get(each, 0)}
                      for each in names],
            "environment": sorted(set(variables)),
            "imports": imports(path),
        }}
    except BaseException as error:
        return {"failed": failure(error)}


def imports(path):
    """Return the files of modules that were imported, without `path` and the standard library."""
    files = [getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if name not in present]
    return sorted({
        text(file) for file in files
        if isinstance(file, str) and os.path.isabs(file) and file != path and not is_standard(file)
    })


def is_standard(file):
    return file.startswith(standard) and "site-packages" not in file


def failure(error):
    """Describe an exception, with the last line of the file that led to it."""
    path, line = config_path[0], 0
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    if isinstance(error, SyntaxError) and error.filename == path:
        line = error.lineno or 0
        words = error.msg
    else:
        words = str(error)
    reason = " ".join(("%s: %s" % (type(error).__name__, words) if words else type(error).__name__).split())
    return {"file": text(path), "line": line, "reason": text(reason[:1000])}


def text(words):
    """Return a text that is valid UTF-8."""
    return words.encode("utf-8", "replace").decode("utf-8")


def main():
    # Output of the file must not become part of the report.
    output = os.dup(1)
    os.dup2(2, 1)
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.getcwd())
    os.environ.__class__ = Environ
    kind, name, known = sys.argv[1:4]
    sys.argv = sys.argv[4:]
    line = (json.dumps(report(kind, name, known.split(","))) + "\n").encode("ascii")
    while line:
        line = line[os.write(output, line):]
    # Threads that the file has started need not end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


variables = []
config_path = [""]
standard = sysconfig.get_path("stdlib") + os.sep
present = set(sys.modules)
main()
