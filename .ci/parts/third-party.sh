#!/bin/bash
# Worker classes that are built outside the workspace, in Rust and in C: lints, the contract, and the matrix of behaviors.
#   third-party.sh [--no-matrix|--build]      --build: it compiles, and nothing more
source "$(dirname "$0")/common.sh"

# The class in C, with the kit for C linked in: class_in_c FILE
class_in_c() {
    cc -std=c11 -Wall -Wextra -Wpedantic -Werror -O2 -fPIC -shared -pthread -I worker-api/include \
        -I workers/kit-c/include plugins/examples/threaded-worker-c/threaded.c -o "$1" \
        "$target/debug/libjimu_kit.a" -lm -Wl,--gc-sections,--exclude-libs,ALL
}

cargo build --quiet --workspace

step "The class"
manifest=plugins/examples/threaded-worker/Cargo.toml
if [ "${1:-}" = --build ]; then
    cargo build "${as_in_tree[@]}" --manifest-path $manifest --target-dir "$target" --locked
    class_in_c "$target/debug/libthreaded_c_worker.so"
    exit
fi
cargo fmt --manifest-path $manifest --check
cargo clippy "${as_in_tree[@]}" --manifest-path $manifest --target-dir "$target" --locked -- -D warnings
cargo build "${as_in_tree[@]}" --manifest-path $manifest --target-dir "$target" --locked
class=$target/debug/libthreaded_worker.so
check "$target/debug/host" "$class"

[ "${1:-}" = --no-matrix ] || matrix "$class"

step "The class in C"
class=$target/debug/libthreaded_c_worker.so
class_in_c "$class"
check "$target/debug/host" "$class"
[ "${1:-}" = --no-matrix ] || matrix "$class"
