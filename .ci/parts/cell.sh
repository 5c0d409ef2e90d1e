#!/bin/bash
# The behaviors of one worker class with one application; with the native one also the checks of the class.
#   cell.sh CLASS native|wsgi
source "$(dirname "$0")/common.sh"

class=$target/debug/lib${1:?the class}_worker.so application=${2:?the application}
cargo build --quiet --workspace
if [ "$application" = wsgi ]; then
    python=$(cargo xtask python)
    export TEST_PYTHON=$python
    which=(::wsgi::)
else
    check "$target/debug/host" "$class"
    which=(--skip ::wsgi::)
fi
JIMU_BUILT=1 WORKER_CLASS=$class cargo test -p jimu-tests --test matrix -- "${which[@]}"
