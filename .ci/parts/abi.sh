#!/bin/bash
# The promise of docs/abi.md: libraries of an older and of a newer worker-api, in this host and in a newer one.
#   abi.sh [--older]      --older: those of the older one in this host, and nothing more
source "$(dirname "$0")/common.sh"

step "Libraries of worker-api 1.0.0, this host"
cargo build --manifest-path tests/abi/Cargo.toml -p app-of-1-0 -p class-of-1-0 --target-dir "$target" --locked
packages=(-p host -p check-app -p sync-worker -p hello-app -p broken-class)
# With what else is built there anyway, the tests that follow use the same builds.
[ "${1:-}" != --older ] || packages=(--workspace)
cargo build --quiet "${packages[@]}"
old=$target/debug
fits() {
    echo "-- $(basename "$2") and $(basename "$3") in $1"
    "$1" --check-config --worker-class "$2" "$3"
}
fits "$target/debug/host" "$old/libfaulty10_worker.so" "$old/libhello10_app.so"
fits "$target/debug/host" "$target/debug/libsync_worker.so" "$old/libhello10_app.so"
[ "${1:-}" != --older ] || exit 0

step "The tree with a newer worker-api"
# A copy of the tree whose worker-api has a further field and further methods, as a next minor version would.
tree=$target/abi/tree
rm -rf "$tree" && mkdir -p "$tree"
git ls-files -z | grep -zv '^docs/' | xargs -0 cp --parents -t "$tree"
python3 tests/abi/next_minor.py "$tree"
(cd "$tree" && cargo build --quiet --offline --target-dir "$target/abi/next" \
    "${packages[@]}")
new=$target/abi/next/debug

fits "$new/host" "$old/libfaulty10_worker.so" "$old/libhello10_app.so"
fits "$new/host" "$target/debug/libsync_worker.so" "$new/libhello_app.so"
fits "$new/host" "$new/libsync_worker.so" "$target/debug/libhello_app.so"
fits "$target/debug/host" "$new/libsync_worker.so" "$target/debug/libhello_app.so"
fits "$target/debug/host" "$target/debug/libsync_worker.so" "$new/libhello_app.so"
check "$new/host" "$target/debug/libbroken_worker.so"
check "$target/debug/host" "$new/libbroken_worker.so"
