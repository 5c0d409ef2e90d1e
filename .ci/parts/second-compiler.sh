#!/bin/bash
# A worker class by another compiler, in a host by the toolchain's; and one without optimisation in a host with it.
#   second-compiler.sh [--no-release]
# The other compiler is $OTHER_RUSTC, else Debian's rustc-web.
source "$(dirname "$0")/common.sh"

cargo build --quiet -p host -p check-app
other=${OTHER_RUSTC:-/usr/bin/rustc}
if "$other" --version > /dev/null 2>&1; then
    step "The class by $("$other" --version), the host by $(rustc --version)"
    RUSTC=$other cargo build --manifest-path plugins/third-party/Cargo.toml \
        --target-dir "$target/second-compiler" --locked
    check "$target/debug/host" "$target/second-compiler/debug/libthreaded_worker.so"
else
    echo "second-compiler.sh: skipped, there is no $other: apt-get install rustc-web"
fi

if [ "${1:-}" != --no-release ]; then
    step "A class without optimisation, a host with it"
    cargo build --quiet -p broken-class
    cargo build --quiet --release -p host -p check-app
    check "$target/release/host" "$target/debug/libbroken_worker.so"
fi
