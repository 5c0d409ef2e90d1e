# What the parts of continuous integration share. Sourced, from anywhere: leaves the shell in the top folder.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}

# Says what is measured next.
step() { printf '\n== %s\n' "$*"; }

# The checks of a worker class: check HOST CLASS
check() {
    step "$(basename "$2") in $1"
    "$1" --check-worker "$2"
}
