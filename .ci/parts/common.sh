# What the parts of continuous integration share. Sourced, from anywhere: leaves the shell in the top directory.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}

# For a build out of tree, into the tree's target directory: the dependencies as the tree builds them, which then serve here
# too.
as_in_tree=(--config 'profile.dev.package."*".debug=false')

# Says what is measured next.
step() { printf '\n== %s\n' "$*"; }

# The checks of a worker class: check HOST CLASS
check() {
    step "$(basename "$2") in $1"
    "$1" --check-worker "$2"
}

# The matrix of behaviors over one class, with the native and the Python application: matrix CLASS [--release]
matrix() {
    step "The matrix over $(basename "$1")"
    local python foreign=$target/foreign
    python=$(cargo xtask python)
    # The harness takes what lies among our own classes for one of them.
    mkdir -p "$foreign" && cp "$1" "$foreign/"
    cargo build --quiet --workspace "${@:2}"
    JIMU_BUILT=1 TEST_PYTHON=$python WORKER_CLASS=$foreign/$(basename "$1") \
        cargo test "${@:2}" --workspace --test matrix
}
