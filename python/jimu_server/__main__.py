"""`python -m jimu_server`: executes the server, which serves with this interpreter."""

import os
import sys

from jimu_server import executable


def main() -> None:
    path = executable()
    arguments = sys.argv[1:]
    # In a virtual environment the server finds the interpreter by itself.
    if sys.prefix == sys.base_prefix:
        arguments = ["--python", sys.executable, *arguments]
    os.execv(path, [path, *arguments])


if __name__ == "__main__":
    main()
