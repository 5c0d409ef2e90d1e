# Prints the path of an interpreter's library as JSON.
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
json.dump({"library": found[0] if found else None}, sys.stdout)
