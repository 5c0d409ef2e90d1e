"""Makes the next minor version of worker-api in a copy of the tree: next_minor.py TREE.

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
# Behind which line of raw.rs, and what: the last method of each trait.
METHODS = {
    "    fn wait(&mut self, interest: Interest) -> RResult<(), Failure>;\n": "added_to_exchange",
    "    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>);\n": "added_to_host",
    "    fn shutdown(&self);\n": "added_to_app",
}


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
    for line, name in METHODS.items():
        text = behind(text, line, METHOD.format(name=name))
    return text + DEFAULT


def behind(text, line, addition):
    if text.count(line) != 1:
        sys.exit(f"next_minor.py: {line.strip()!r} is not there once: follow the change of worker-api")
    return text.replace(line, line + addition)


main(*sys.argv[1:])
