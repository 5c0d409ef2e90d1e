#!/bin/bash
# The wheel: built, checked by the tools of PyPI, installed into a fresh environment of each CPython that is found, where it
# serves Flask, Django and ASGI under each class while the classes are swapped; and pip uninstall leaves nothing.
#   wheel.sh [--built] [PYTHON...]      --built: test the wheel in target/wheels; PYTHON: only these interpreters
source "$(dirname "$0")/common.sh"

# Lists what is in an environment, without what pip compiles of itself.
listing() { (cd "$1" && find . -name __pycache__ -prune -o -print | sort); }

# interpreters: one CPython of each version, from PATH and from pyenv.
interpreters() {
    local python
    for python in python3 python3.{9..15} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3; do
        python=$(command -v "$python") || continue
        "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 9))' 2> /dev/null || continue
        "$python" -c 'import os, sys; print(os.path.realpath(sys.executable))'
    done | sort -u
}

# tried PYTHON: installs, serves and uninstalls the wheel.
tried() {
    local environment python package before
    environment=$(mktemp -d "$target/wheel-venv.XXXXXX")
    python=$environment/bin/python
    step "$("$1" --version), $1"
    "$1" -m venv "$environment"
    "$python" -m pip install -q --disable-pip-version-check flask django
    for package in gevent eventlet; do
        "$python" -m pip install -q --disable-pip-version-check --only-binary :all: "$package" || true
    done
    before=$(listing "$environment")
    "$python" -m pip install -q --disable-pip-version-check --no-index "$wheel"
    "$python" -m jimu_server --version
    PATH=/usr/bin:/bin "$environment/bin/jimuctl" --version
    python3 tests/wheel/serve.py "$environment"
    "$python" -m pip uninstall -q --disable-pip-version-check -y jimu-server
    diff <(echo "$before") <(listing "$environment")
    rm -r "$environment"
}

[ "${1:-}" = --built ] && shift || cargo xtask wheel
tools=$target/tools/bin
wheel=$(ls "$target"/wheels/jimu_server-*_"$(uname -m)".whl)

step "What the tools of PyPI say"
"$tools/auditwheel" show "$wheel"
"$tools/auditwheel" show "$wheel" | tr '\n' ' ' | grep -q "$(basename "$wheel" .whl | grep -o 'manylinux_.*')"
"$tools/twine" check --strict "$wheel"
"$tools/check-wheel-contents" --config python/pyproject.toml "$wheel"

step "Symbols that no library of the system has"
rm -rf "$target/wheel-unpacked" && python3 -m zipfile -e "$wheel" "$target/wheel-unpacked"
# Those of Python come from the interpreter. What zig links against an old glibc has a version.
unknown=$(nm -D --undefined-only --with-symbol-versions "$target"/wheel-unpacked/*/{scripts/host,data/lib/host/*.so} |
    awk '$1 == "U" && $2 !~ /@/ && $2 !~ /^_?Py/')
[ -z "$unknown" ] || { echo "$unknown"; exit 1; }

step "What is installed"
tested=$(mktemp -d "$target/wheel-venv.XXXXXX")
python3 -m venv "$tested"
"$tested/bin/pip" install -q --disable-pip-version-check --no-index "$wheel"
# In units of 1000 bytes, of which 20 MB are permitted.
kilobytes=$(du -c --block-size=1000 "$tested"/bin/{host,jimu}* "$tested"/lib/host \
    "$tested"/lib/python3*/site-packages/jimu* | tail -1 | cut -f1)
echo "$kilobytes kB"
[ "$kilobytes" -le 20000 ]
"$tools/mypy" --strict --python-executable "$tested/bin/python" tests/wheel/stubs.py
for class in "$tested"/lib/host/lib*_worker.so; do check "$tested/bin/host" "$class"; done
rm -r "$tested"

[ $# -gt 0 ] || mapfile -t found < <(interpreters)
for python in "$@" "${found[@]}"; do tried "$python"; done
