# Prints the properties of an interpreter as one line of JSON. Must run under any Python 3, also one too old to embed.
import json
import os
import sys
import sysconfig

var = sysconfig.get_config_var
version = "%d.%d" % sys.version_info[:2]
names = [var("INSTSONAME"), var("LDLIBRARY"), "libpython%s.so.1.0" % version, "libpython%s.so" % version]
names = [name for name in names if name and ".so" in name]
directories = [var("LIBDIR"), var("LIBPL"), os.path.join(sys.base_prefix, "lib"), os.path.join(sys.base_prefix, "lib64")]
if var("LIBDIR") and var("MULTIARCH"):
    directories.insert(1, os.path.join(var("LIBDIR"), var("MULTIARCH")))
paths = [os.path.join(directory, name) for name in names for directory in directories if directory]
found = [path for path in paths if os.path.exists(path)]
json.dump(
    {
        "version": sys.version_info[:2],
        "implementation": sys.implementation.name,
        "free_threaded": bool(var("Py_GIL_DISABLED")),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "library": found[0] if found else None,
        "library_name": names[0],
        "utf8": bool(sys.flags.utf8_mode),
    },
    sys.stdout,
)
