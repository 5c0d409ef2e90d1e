#!/bin/bash
# A worker class that is built outside the workspace: lints, the contract, and the matrix of behaviors.
#   third-party.sh [--no-matrix|--build]      --build: it compiles, and nothing more
source "$(dirname "$0")/common.sh"

step "The class"
manifest=plugins/examples/threaded-worker/Cargo.toml
if [ "${1:-}" = --build ]; then
    cargo build --manifest-path $manifest --target-dir "$target" --locked
    exit
fi
cargo fmt --manifest-path $manifest --check
cargo clippy --manifest-path $manifest --target-dir "$target" --locked -- -D warnings
cargo build --manifest-path $manifest --target-dir "$target" --locked
class=$target/debug/libthreaded_worker.so

cargo build --quiet -p host -p check-app
check "$target/debug/host" "$class"

[ "${1:-}" = --no-matrix ] || matrix "$class"
