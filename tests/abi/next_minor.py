"""Creates the next minor version of worker-api in a copy of the tree: next_minor.py TREE.

It adds what docs/abi.md allows a minor version to add, in each place: a field of a root module, and methods with a
default to objects that are made by a class, by an application and by the host.
"""

import pathlib
import re
import sys

FIELD = """    /// Not in earlier versions.
    #[sabi(missing_field(option))]
    pub added: u64,
"""
METHOD = """    /// Not in earlier versions.
    fn {name}(&self) -> u64 {{
        default_of_added()
    }}
"""
DEFAULT = """
fn default_of_added() -> u64 {
    0
}
"""
# Traits of raw.rs to which a method is appended, and its name.
METHODS = {"RawExchange": "added_to_exchange", "RawHost": "added_to_host", "RawApp": "added_to_app"}


def main(tree):
    api = pathlib.Path(tree) / "worker-api"
    edit(api / "Cargo.toml", next_version)
    edit(api / "src/root.rs", add_field)
    edit(api / "src/raw.rs", add_methods)


def edit(path, change):
    path.write_text(change(path.read_text()))


def next_version(text):
    major, minor = re.search(r'^version = "(\d+)\.(\d+)\.', text, re.M).groups()
    return re.sub(r'^version = ".*"', f'version = "{major}.{int(minor) + 1}.0"', text, count=1, flags=re.M)


def add_field(text):
    text = behind(text, "-> RResult<WorkerBox, Failure>,\n", FIELD)
    return behind(text, "        new: new_worker::<W>,\n", "        added: 1,\n")


def add_methods(text):
    for trait, name in METHODS.items():
        end = text.index("\n}\n", text.index(f"pub trait {trait}:")) + 1
        text = text[:end] + METHOD.format(name=name) + text[end:]
    return text + DEFAULT


def behind(text, line, addition):
    if text.count(line) != 1:
        sys.exit(f"next_minor.py: {line.strip()!r} is not there once: follow the change of worker-api")
    return text.replace(line, line + addition)


main(*sys.argv[1:])
