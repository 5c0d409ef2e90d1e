"""Puts the server's files into the wheel, whose other facts are in pyproject.toml.

The executables become scripts, and everything else goes to `lib/host` below the prefix, where the executables find their
libraries. `cargo xtask wheel` names the prefix that it has staged; without it, cargo builds one here.
"""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.install import install
from setuptools.command.install_scripts import install_scripts

HERE = Path(__file__).resolve().parent


def staged():
    """Return a prefix with `bin`, `lib` and `share`."""
    given = os.environ.get("JIMU_STAGED")
    if given:
        return Path(given)
    prefix = HERE / "build" / "staged"
    if not prefix.exists():
        # In the source distribution the workspace is below this directory, in a checkout it is around it.
        workspace = next(path for path in (HERE / "source", HERE.parent) if (path / "Cargo.toml").exists())
        subprocess.run(["cargo", "xtask", "stage", str(prefix)], cwd=workspace, check=True)
    return prefix


class Install(install):
    """The server's executables are scripts, and its other files data."""

    def has_scripts(self):
        return True

    def has_data(self):
        return True

    sub_commands = [
        ("install_lib", install.has_lib),
        ("install_scripts", has_scripts),
        ("install_data", has_data),
        ("install_egg_info", lambda self: True),
    ]


class InstallScripts(install_scripts):
    """Copies the executables as they are: they are no scripts of Python."""

    def run(self):
        copy_tree(staged() / "bin", Path(self.install_dir))


class InstallData(Command):
    """Copies libraries, headers, manual pages and completions."""

    user_options = [("install-dir=", "d", "prefix")]

    def initialize_options(self):
        self.install_dir = None
        self.root = None

    def finalize_options(self):
        self.set_undefined_options("install", ("install_data", "install_dir"))

    def run(self):
        prefix = Path(self.install_dir)
        copy_tree(staged() / "lib", prefix / "lib")
        # pip removes directories in which it has put files, and would leave the empty `share/man`.
        copy_tree(staged() / "share", prefix / "lib" / "host" / "share")
        if (staged() / "include").exists():
            copy_tree(staged() / "include", prefix / "lib" / "host" / "include")


class BdistWheel(bdist_wheel):
    """One wheel for every CPython: nothing in it is compiled against a version."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


class Native(Distribution):
    """A distribution for one platform."""

    def has_ext_modules(self):
        return True


class Build(build):
    """Builds the Python files; there are no extension modules that setuptools could build."""

    sub_commands = [("build_py", None)]


def copy_tree(source, target):
    shutil.copytree(source, target, dirs_exist_ok=True)


setup(
    distclass=Native,
    cmdclass={
        "bdist_wheel": BdistWheel,
        "build": Build,
        "install": Install,
        "install_data": InstallData,
        "install_scripts": InstallScripts,
    },
)
