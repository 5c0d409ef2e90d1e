# Becomes the mold. Runs in any Python, also in one that is too old to serve.
import sys


def refuse(reason):
    """Report why this interpreter cannot serve, as the mold reports a refusal, and exit."""
    import json
    import os
    reason = " ".join(str(reason).split())[:2000]
    if command >= 0:
        message = {"refused": {"reason": reason, "status": 4}}
        os.write(command, json.dumps(message).encode("ascii"))
    else:
        sys.stderr.write("error: %s\n" % reason)
        sys.stderr.flush()
    os._exit(4)


def resume():
    implementation = getattr(getattr(sys, "implementation", None), "name", None)
    version = "%s is Python %d.%d" % ((sys.executable,) + tuple(sys.version_info[:2]))
    if sys.version_info < (3, 9):
        refuse("%s: 3.9 or later is required" % version)
    if implementation != "cpython":
        refuse("%s is %s: CPython is required" % (sys.executable, implementation))
    if "t" in getattr(sys, "abiflags", ""):
        refuse("%s, a free-threaded build, which is not supported: use the default build" % version)
    import _signal
    from importlib.machinery import ExtensionFileLoader, ModuleSpec
    # Python's handler for SIGINT is that of an interactive program.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    # `-c` has put the working directory there.
    if sys.path and sys.path[0] == "":
        del sys.path[0]
    try:
        loader = ExtensionFileLoader("_jimu_runtime", runtime)
        module = loader.create_module(ModuleSpec("_jimu_runtime", loader, origin=runtime))
        loader.exec_module(module)
    except Exception as error:
        refuse("%s cannot load extension modules: %s" % (sys.executable, error))
    # Returns only if it cannot continue.
    refuse(module.resume(state))


state, command, runtime = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sys.argv = sys.argv[4:]
resume()
